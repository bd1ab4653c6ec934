"""What a run will need, told before it runs: work, memory, time, from a configuration and a machine alone."""
