"""Taking a steered model away, and registering it."""
