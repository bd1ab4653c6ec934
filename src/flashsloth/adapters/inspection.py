"""What an adapter is, told from its files.

In: an adapter's folder. Out: an :class:`AdapterInfo`: rank, targets, fully trained parts, base, sizes, and what is odd.
Neither the adapter's weights nor the base's are read.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashsloth.adapters.folder import AdapterFolder, read_adapter
from flashsloth.model.checkpoint.soundness import odd_types, odd_values
from flashsloth.model.inspection import PARTS

_PREFIX = "base_model.model."
"""How PEFT's names begin."""
_MATRIX = re.compile(r"(?P<layer>.+)\.lora_[AB]\.weight")
_LOW_RANK = "low-rank matrices"
_PROCESSOR = "processor_config.json"


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter is.

    Attributes:
        path: the folder.
        base: the base's name; None where nobody wrote it down.
        base_digest: of its tensors.
        quantize: how the language model was held while the adapter learned.
        rank, alpha, dropout: LoRA's.
        targets: last name of a layer with an adapter -> how many layers of that name.
        parameters: the low-rank matrices, and each fully trained part -> how many numbers.
        dtypes: type, as safetensors names it -> how many numbers.
        files: weight file -> bytes.
        remarks: what is missing or odd, a line each.
        faults: those of them for which it cannot be folded in.
    """

    path: str
    base: str | None
    base_digest: str | None
    quantize: str | None
    rank: int
    alpha: float
    dropout: float
    targets: dict[str, int]
    parameters: dict[str, int]
    dtypes: dict[str, int]
    files: dict[str, int]
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def total_parameters(self) -> int:
        """Numbers in all."""
        return sum(self.parameters.values())

    def to_dict(self) -> dict[str, Any]:
        """Everything, totals included, as JSON can hold it; `kind` tells it from a whole checkpoint."""
        totals = {"total_parameters": self.total_parameters, "total_bytes": sum(self.files.values())}
        return {"kind": "adapter", **dataclasses.asdict(self), **totals}


def inspect_adapter(name_or_path: str | os.PathLike[str]) -> AdapterInfo:
    """Say what an adapter is.

    Raises:
        AdapterError: if it is none, or its files are damaged.
    """
    found = read_adapter(name_or_path)
    targets, parameters, dtypes = Counter[str](), Counter[str](), Counter[str]()
    layers = set()
    tensors = found.tensors()
    faults = [*odd_types(tensors), *odd_values(tensors)]
    for tensor in tensors:
        name = tensor.name.removeprefix(_PREFIX)
        matrix = _MATRIX.fullmatch(name)
        if matrix is not None:
            layers.add(matrix["layer"])
        parameters[_LOW_RANK if matrix is not None else _part(name)] += tensor.size
        dtypes[tensor.dtype] += tensor.size
    for layer in sorted(layers):
        targets[layer.rpartition(".")[2]] += 1
    return AdapterInfo(
        path=str(found.path),
        base=None if found.base is None else found.base.name,
        base_digest=None if found.base is None else found.base.digest,
        quantize=None if found.base is None else found.base.quantize,
        rank=found.settings["r"],
        alpha=found.settings["lora_alpha"],
        dropout=found.settings["lora_dropout"],
        targets=dict(targets),
        parameters={part: parameters[part] for part in (_LOW_RANK, *PARTS, "other") if parameters[part]},
        dtypes=dict(dtypes),
        files={file.name: file.stat().st_size for file in sorted({tensor.file for tensor in tensors})},
        remarks=[*faults, *_remarks(found)],
        faults=faults,
    )


def _part(name: str) -> str:
    return next((part for part, prefix in PARTS.items() if name.startswith(prefix)), "other")


def _remarks(found: AdapterFolder) -> list[str]:
    remarks = []
    if found.base is None:
        remarks.append("no base is written down: name it when you merge")
    elif found.base.digest is None:
        remarks.append("no digest of its base is written down: whatever fits will be taken for it")
    if found.base is not None and Path(found.base.name).is_absolute() and not Path(found.base.name).is_dir():
        remarks.append("its base is not there any more: say where it is now with `flashsloth merge --base`")
    if not (found.path / _PROCESSOR).is_file():
        remarks.append(f"no {_PROCESSOR}: copy the base's processor into the folder")
    return remarks


__all__ = ["AdapterInfo", "inspect_adapter"]
