"""The table of a recipe's fields, as docs/recipe-fields.md has it: made from the models, so that it cannot fall behind.

In: nothing. Out: Markdown. `python tools/recipe_table.py > docs/recipe-fields.md` writes it.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

from pydantic_core import PydanticUndefined

from flashsloth.training.recipe import ModelSource, Recipe
from flashsloth.training.recipe_fields import AdapterSettings, DataSource, Engine, FeatureCache, RecipeModel
from flashsloth.training.stages import Stage, StageRun
from flashsloth.yaml_file import expectation

GROUPS: dict[str, type[RecipeModel]] = {
    "The recipe": Recipe,
    "`model:`": ModelSource,
    "A stage, an item of `stages:`": StageRun,
    "A stage's row, which its keys may change": Stage,
    "`data:` and `eval_data:`, an item": DataSource,
    "`adapter:`": AdapterSettings,
    "`engine:`": Engine,
    "`feature_cache:`": FeatureCache,
}
HEADING = """# Recipe fields

Made from the models that check recipes, by `python tools/recipe_table.py`. What a recipe is, and what its
stages are: [training](training.md). The last column is about `flashsloth train --resume` with another value than the
run has: *free* changes nothing that is learned, *from here* holds from the next step, and *no* is refused.
"""
ON_RESUME = {"free": "free", "from_here": "from here", "fixed": "no"}


def fields_table() -> str:
    """All groups of keys, each with its fields."""
    parts = [HEADING]
    for title, kind in GROUPS.items():
        of_the_row = Stage.model_fields if kind is StageRun else {}
        rows = [_row(kind, name) for name in kind.model_fields if name not in of_the_row]
        parts.append(
            "\n".join([f"## {title}\n", "| key | default | takes | | on resume |", "|---|---|---|---|---|", *rows])
        )
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _row(kind: type[RecipeModel], name: str) -> str:
    field, rule = kind.model_fields[name], kind.on_resume(name)
    assert rule is not None
    default = field.get_default(call_default_factory=True, validated_data={})
    said = (
        "–" if default is PydanticUndefined else "" if isinstance(default, RecipeModel) else f"`{json.dumps(default)}`"
    )
    takes = expectation(Annotated[field.annotation, *field.metadata]).partition(": ")[0]
    what = " ".join((field.description or "").split())
    return f"| `{name}` | {said} | {takes} | {what} | {ON_RESUME[rule.kind]} |".replace("``", "")


if __name__ == "__main__":
    sys.stdout.write(fields_table())
