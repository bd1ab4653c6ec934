"""How well a model answers, measured through the one door."""
