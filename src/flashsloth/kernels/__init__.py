"""Faster ways to the same answer: packed and quantized weights, and the attention that suits a processor."""

from flashsloth.errors import SpeedError
from flashsloth.kernels.optimize import QUANTIZATIONS, Quantization, check_quantization, speed_up

__all__ = ["QUANTIZATIONS", "Quantization", "SpeedError", "check_quantization", "speed_up"]
