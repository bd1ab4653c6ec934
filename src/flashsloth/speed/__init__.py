"""Faster ways to the same answer: packed and quantized weights, and the attention that suits a processor."""

from flashsloth.speed.errors import SpeedError
from flashsloth.speed.speed_up import QUANTIZATIONS, Quantization, check_quantization, speed_up

__all__ = ["QUANTIZATIONS", "Quantization", "SpeedError", "check_quantization", "speed_up"]
