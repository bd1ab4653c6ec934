"""One engine that makes all answers: requests wait, start as rows and memory allow, and run side by side."""
