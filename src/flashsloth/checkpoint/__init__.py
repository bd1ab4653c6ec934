"""What is done to a checkpoint's folder: create, convert, inspect, and adapters and how they are merged."""
