"""The paper, and nothing but the paper: configuration, modules, model, processors, and loading its weights."""
