"""What a run will need, told before it runs: work, memory, time, from a configuration and a machine alone.

The standard job, which plans and benchmarks are about where nothing else is said:
"""

TEXT_TOKENS = 64
NEW_TOKENS = 64
OPENING_SHARE = 35 / TEXT_TOKENS
"""Of the text, what stands before the picture: a system text and "USER:"."""
