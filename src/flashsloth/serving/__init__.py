"""A model for many: a server with OpenAI's interface, a page, a batch, and both on several machines."""
