"""The commands of `flashsloth`, a file each; `app.py` has the table."""
