"""What transformers' own tests ask that cannot apply to FlashSloth, and why.

Each of them is run all the same and has to fail (`xfail_strict`): what passes one day leaves this table. A test that
the tested version of transformers does not have is no matter. What their mixins skip by themselves is not listed.
"""

from __future__ import annotations

import re

_NO_GENERATION_TESTS = "the source distribution has no tests of generation; ours are tests/model/test_generation.py"
_PHI_OVERFLOWS = "float16 with eager attention overflows in Phi, so it is refused (tests/model/test_citizenship.py)"
_PLACEHOLDERS = "it tokenizes the written prompt by itself, without query tokens written out and escapes undone"
_RGB_VIEWS = "the encoder takes three channels: views are RGB, whatever the picture had"
_NO_TORCHVISION = "views are made with Pillow, pixel for pixel as published, and torchvision is never needed"
_INTEGERS = "it writes a checkpoint that holds one tensor of integers, and such files are refused at the door"

CANNOT_APPLY = {
    r"Standard.*test_eager_matches_sdpa_inference_\d+_fp16": _PHI_OVERFLOWS,
    r"Hd.*test_eager_matches_sdpa_inference_\d+_fp16": _PHI_OVERFLOWS,
    r"test_model_weights_reload_no_missing_tied_weights": _INTEGERS,
    r"test_generation_tester_mixin_inheritance": _NO_GENERATION_TESTS,
    r"test_apply_chat_template_image_\d": _PLACEHOLDERS,
    r"test_call_numpy_4_channels": _RGB_VIEWS,
    r"test_new_models_require_torchvision_backend": _NO_TORCHVISION,
}
"""Pattern of the test's name, after its class -> why."""


def why_not(name: str) -> str | None:
    """Why the test `CLASS.NAME` cannot apply; None: it can."""
    return next((reason for pattern, reason in CANNOT_APPLY.items() if re.search(pattern, name)), None)
