"""What a run imports and works out as it goes, done once by the server that starts runs' processes for the tests."""

from __future__ import annotations

import gc
from importlib import import_module

MODULES = (
    "flashsloth.training.run",
    "flashsloth.cli",
    "flashsloth.commands.terminal",
    "flashsloth.training.adapters",
    "flashsloth.world",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "peft",
    "PIL.PpmImagePlugin",
    "pydantic.type_adapter",
    "rich.console",
    "torch.distributed.algorithms.ddp_comm_hooks.default_hooks",
    "torch.distributed.checkpoint.state_dict",
    "torch.utils.serialization",
    "transformers.models.auto.processing_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.siglip.modeling_siglip",
)

for name in MODULES:
    import_module(name)
import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("llama")  # makes the table of all
import_module("matplotlib.font_manager").findfont("DejaVu Sans")
gc.collect()
gc.freeze()  # what is here stays: no later collection, here or in the processes that are started, looks at it again
