"""Training: stages as a table, recipes, data, and the run on transformers' Trainer."""
