"""The paper, and nothing but the paper: configuration, modules, model and processors."""
