"""One engine that everything answers through: requests wait, start when there is room, and run side by side."""
