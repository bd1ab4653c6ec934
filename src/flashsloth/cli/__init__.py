"""The commands of `flashsloth`, a file each; `cli.py` has the table."""
