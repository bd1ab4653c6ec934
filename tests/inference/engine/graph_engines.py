"""Engines that replay graphs, on the device that is there: real ones on CUDA, elsewhere `checked_graphs.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from checked_graphs import CheckedGraphs
from test_engine_steps import make_engine

from flashsloth.inference.engine.cuda_graph import CudaGraphs
from flashsloth.inference.engine.engine import Engine
from flashsloth.inference.engine.graph_runner import GraphRunner
from flashsloth.inference.engine.model_runner import BatchedRunner
from flashsloth.inference.kv_cache import head_shapes
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.prompt import pad_id_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LoadCalm = Callable[..., FlashSloth]
CLOSE = 1e-4 if DEVICE == "cuda" else 1e-5


def plain_engine(sloth: FlashSloth, **config: Any) -> Engine:
    """One that runs every pass as it is, on any device."""
    engine = make_engine(sloth, **config)
    shapes = head_shapes(sloth.model)
    assert shapes is not None
    engine.runner = BatchedRunner(sloth.model, shapes, pad_id_of(sloth.processor.tokenizer))
    engine.end_ids = []
    return engine


def graph_engine(sloth: FlashSloth, **config: Any) -> tuple[Engine, GraphRunner]:
    """One that records and replays."""
    engine = make_engine(sloth, **config)
    model, shapes = sloth.model, head_shapes(sloth.model)
    assert shapes is not None
    graphs = CudaGraphs(model.device) if DEVICE == "cuda" else CheckedGraphs(model)
    limit = engine.config.cache_bytes or 1 << 28
    runner = GraphRunner(model, shapes, pad_id_of(sloth.processor.tokenizer), engine.config.max_rows, limit, graphs)
    engine.runner = runner
    engine.end_ids = []
    return engine, runner
