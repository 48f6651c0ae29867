"""The command, `python -m prefetch_generator`."""
