"""The runner that suits a model and its device.

In: a model, and how much it may do at once. Out: a :class:`~flashsloth.inference.engine.model_runner.ModelRunner`.

    GraphRunner      CUDA: all sequences in one pass, replayed as a graph
    BatchedRunner    any other device, or where graphs are not wanted: all sequences in one pass
    SingleRunner     a sequence at a time, for language models that can do nothing else
"""

from __future__ import annotations

import logging

from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.engine.cuda_graph import CudaGraphs
from flashsloth.inference.engine.graph_runner import GraphRunner
from flashsloth.inference.engine.model_runner import BatchedRunner, ModelRunner, SingleRunner
from flashsloth.inference.kv_cache import head_shapes
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

logger = logging.getLogger(__name__)

MASKED_ATTENTION = ("sdpa", "one_query")
"""transformers' names of attention that takes masks as runners make them, true where a query sees a key."""


def make_runner(
    model: FlashSlothForConditionalGeneration, pad_token_id: int, config: EngineConfig, cache_bytes: int
) -> ModelRunner:
    """The runner that suits a model.

    Args:
        model: what answers.
        pad_token_id: what stands where nothing does.
        config: of the engine.
        cache_bytes: for keys and values.
    """
    attention = model.model.language_model.config._attn_implementation
    shapes = head_shapes(model)
    if shapes is None or attention not in MASKED_ATTENTION:
        reason = f"its attention {attention!r} takes no masks of ours" if shapes else "its layers keep another state"
        logger.info("%s runs a sequence at a time: %s", type(model.model.language_model).__name__, reason)
        return SingleRunner(model, pad_token_id)
    if model.device.type == "cuda" and config.cuda_graphs:
        return GraphRunner(model, shapes, pad_token_id, config.max_rows, cache_bytes, CudaGraphs(model.device))
    return BatchedRunner(model, shapes, pad_token_id, cache_bytes)


__all__ = ["make_runner"]
