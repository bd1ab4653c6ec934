"""Answers: requests, the engine that makes them, and what `flashsloth.load()` returns.

Here stand the numbers that a command's help shows, so that they are read without importing torch.
"""

MAX_TOKENS = 512
"""The longest answer, in tokens, where nothing else is asked for."""
RESOLUTION_THRESHOLD = 0.8
"""Of resolution "auto": an answer whose confidence is below is made again in HD; see `docs/resolution.md`."""
