"""A server under load, from outside: `flashsloth bench serve`. Nothing here reaches into the server's process."""
