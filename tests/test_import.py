"""`import flashsloth`: quick, free of side effects but one, and that one right in either order of imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import flashsloth
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

CPU_SECONDS = 0.5
"""Of processor time, which others' work does not lengthen."""

REGISTERED = """
import transformers
from transformers.models.auto import configuration_auto, image_processing_auto, modeling_auto, processing_auto

config = configuration_auto.CONFIG_MAPPING["flashsloth"]
names = {
    "AutoModel": "FlashSlothModel",
    "AutoModelForImageTextToText": "FlashSlothForConditionalGeneration",
    "AutoModelForMultimodalLM": "FlashSlothForConditionalGeneration",
}
for auto, ours in names.items():
    assert getattr(modeling_auto, auto)._model_mapping[config].__name__ == ours, auto
assert processing_auto.PROCESSOR_MAPPING[config].__name__ == "FlashSlothProcessor"
backends = image_processing_auto.IMAGE_PROCESSOR_MAPPING[config]
assert backends["pil"].__name__ == "FlashSlothImageProcessorPil"
"""

USED = """
import sys
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

folder = sys.argv[1]
assert AutoConfig.from_pretrained(folder).model_type == "flashsloth"
assert type(AutoModelForImageTextToText.from_pretrained(folder)).__name__ == "FlashSlothForConditionalGeneration"
assert type(AutoProcessor.from_pretrained(folder)).__name__ == "FlashSlothProcessor"
"""


ORDERS = (
    "import transformers, flashsloth",
    "from transformers import AutoModel, AutoProcessor; import transformers.models.auto.image_processing_auto\n"
    "import flashsloth",
    "import flashsloth.model.modeling_flashsloth",
    "import flashsloth.model.image_processing_flashsloth",
)
FORKING = """
import json, os, sys, traceback
import transformers.image_processing_backends, transformers.modeling_utils, transformers.processing_utils

assert not {*sys.modules} & {f"transformers.models.auto.{name}_auto" for name in ("modeling", "processing")}

statuses = []
for code in json.load(sys.stdin):
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr
        try:
            exec(code, {"__name__": "__main__"})
            status = 0
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stderr.flush()
        os._exit(status)
    statuses.append(os.waitpid(child, 0)[1])
print(json.dumps(statuses))
"""
"""Each code in a process that has imported what is heavy, but neither Auto classes nor anything of ours."""


def run(code: str, *arguments: str) -> str:
    """Run code in a Python of its own; its last word, or its error as ours."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of our layout."""
    return tiny.save(tmp_path_factory.mktemp("tiny"))


def test_nothing_heavy_is_imported() -> None:
    heavy = run(
        "import time, sys; start = time.process_time(); import flashsloth; spent = time.process_time() - start\n"
        "print(spent, [name for name in ('torch', 'transformers', 'numpy', 'PIL') if name in sys.modules])"
    )
    seconds, modules = heavy.split(" ", 1)
    assert modules == "[]"
    assert float(seconds) < CPU_SECONDS


def test_the_command_line_imports_nothing_heavy_before_a_command_runs() -> None:
    code = "print([name for name in ('torch', 'transformers', 'numpy', 'PIL') if name in sys.modules])"
    assert run(f"import sys, flashsloth.cli.app\n{code}") == "[]"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fresh_imports_in_every_order_and_without_extras_and_posix(saved: Path) -> None:
    codes = [f"{first}\n{REGISTERED}" for first in ORDERS]
    codes.append(f"import sys; sys.argv[1:] = [{str(saved)!r}]; import flashsloth\n{USED}\n{REGISTERED}")
    everything = str(Path(__file__).with_name("import_everything.py"))
    codes.append(f"import runpy; assert not runpy.run_path({everything!r})['main']()")
    command = [sys.executable, "-c", FORKING]
    done = subprocess.run(command, input=json.dumps(codes), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0] * len(codes), done.stderr


def test_pipeline(saved: Path) -> None:
    from transformers import pipeline

    pipe = pipeline("image-text-to-text", model=str(saved))
    assert isinstance(pipe.model, FlashSlothForConditionalGeneration)
    assert isinstance(pipe.processor, FlashSlothProcessor)
    answers = pipe(text=[tiny.user("What is this?", tiny.picture())], max_new_tokens=2, return_full_text=False)
    assert isinstance(answers[0]["generated_text"], str)


def test_registering_again_changes_nothing() -> None:
    before = list(sys.meta_path)
    flashsloth.model.registration.register()
    assert sys.meta_path == before


def test_public_names() -> None:
    assert flashsloth.__version__
    assert set(flashsloth.__all__) <= set(dir(flashsloth))
    for name in flashsloth.__all__:
        assert getattr(flashsloth, name) is not None, name
    assert flashsloth.FlashSlothForConditionalGeneration is FlashSlothForConditionalGeneration
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        flashsloth.nothing  # noqa: B018
