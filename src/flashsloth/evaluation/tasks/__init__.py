"""What a model can be measured on, one file a task."""
