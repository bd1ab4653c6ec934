"""What a run imports and works out as it goes, done once by the server that starts runs' processes for the tests.

That is not only modules: templates are compiled, fonts are looked up, and much else is remembered by a first small run.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import tempfile
import warnings
from contextlib import redirect_stderr
from importlib import import_module
from pathlib import Path

import psutil
import torch
from accelerate.state import AcceleratorState
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from flashsloth.training.recipe import load_recipe
from flashsloth.training.run import train

MODULES = (
    "flashsloth.cli.terminal",
    "flashsloth.training.lora",
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
import_module("flashsloth.cli.app").command()


def train_once() -> None:
    """A step of each kind of stage, in silence; no warning, setting or number that it met is remembered."""
    here, environment, path = Path(__file__).parent, dict(os.environ), list(sys.path)
    sys.path[:0] = [str(here.parent), str(here)]
    from tests.training import tiny_runs

    tqdm.monitor_interval, os.environ["TOKENIZERS_PARALLELISM"] = 0, "false"  # either would start threads
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), redirect_stderr(io.StringIO()):
        stages = [tiny_runs.with_batch(stage, steps=1) for stage in (tiny_runs.ALIGNMENT, tiny_runs.INSTRUCTION)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(load_recipe(tiny_runs.write_recipe(Path(folder), *stages)))
    transformers_logging.warning_once.cache_clear()
    AcceleratorState._reset_state(reset_partial_state=True)
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environment)
    assert psutil.Process().num_threads() == 1, "threads are not there in the processes that are started"


train_once()
gc.collect()
gc.freeze()  # what is here stays: no later collection, here or in the processes that are started, looks at it again
