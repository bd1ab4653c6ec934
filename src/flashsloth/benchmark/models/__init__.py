"""Other small vision-language models at their true sizes, as transformers runs them, with random weights.

Shapes are those of the published configurations; each is held against its published number of parameters in the tests.
"""

from __future__ import annotations

from flashsloth.benchmark.models.baseline import Baseline, BaselineModel, make_baseline
from flashsloth.benchmark.models.internvl2 import InternVL2
from flashsloth.benchmark.models.lfm2_vl import Lfm2Vl
from flashsloth.benchmark.models.minicpm_v2 import MiniCpmV2
from flashsloth.benchmark.models.qwen2_vl import Qwen2Vl
from flashsloth.benchmark.models.smolvlm import SmolVlm

BASELINES: dict[str, type[Baseline]] = {
    "qwen2-vl-2b": Qwen2Vl,
    "internvl2-2b": InternVL2,
    "minicpm-v2": MiniCpmV2,
    "smolvlm-2.2b": SmolVlm,
    "lfm2-vl-1.6b": Lfm2Vl,
}
"""Name of the model -> what makes it."""

__all__ = ["BASELINES", "Baseline", "BaselineModel", "make_baseline"]
