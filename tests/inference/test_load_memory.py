"""Weights are mapped into memory, and packed a layer at a time: loading never holds a model twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forked import run_python

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

LAYERS, WIDTH = 16, 768
LARGE = 200 * 2**20
"""Bytes of weights, beside which the rest counts little."""
TWICE = 1.6
"""Of the weights' own memory; a model that is held twice takes 2."""
SCRIPT = """
import sys, threading, time
import torch
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.kernels import speed_up

def anonymous():  # bytes that no file holds
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

def watch():
    while not done:
        peaks.append(anonymous())
        time.sleep(0.001)

torch.set_num_threads(1)
speed_up(FlashSlothForConditionalGeneration.from_pretrained(sys.argv[1]))  # what is needed once
before, peaks, done = anonymous(), [], False
watcher = threading.Thread(target=watch)
watcher.start()
model = FlashSlothForConditionalGeneration.from_pretrained(sys.argv[2], dtype=sys.argv[3])
speed_up(model)
done = True
watcher.join()
print(max(peaks) - before)
"""


def model_of(layers: int, width: int, folder: Path) -> Path:
    config = FlashSlothConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "image_size": 42,
            "patch_size": 14,
        },
        text_config={
            "model_type": "phi",
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_attention_heads": 4,
            "vocab_size": 512,
            "num_hidden_layers": layers,
        },
        image_token_id=0,
        query_token_id=1,
        anchor_token_id=2,
        query_size=64,
        embq_num_heads=2,
        embq_layer=0,
    )
    FlashSlothForConditionalGeneration._from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's account of a process's memory")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_model_is_never_held_twice(dtype: str, tmp_path: Path) -> None:
    folders = model_of(1, 64, tmp_path / "small"), model_of(LAYERS, WIDTH, tmp_path / "large")
    done = run_python(SCRIPT, *map(str, folders), dtype)
    assert done.returncode == 0, done.stderr
    stored = (folders[1] / "model.safetensors").stat().st_size
    weights = stored * getattr(torch, dtype).itemsize // torch.bfloat16.itemsize
    assert weights > LARGE
    assert int(done.stdout) < TWICE * weights
