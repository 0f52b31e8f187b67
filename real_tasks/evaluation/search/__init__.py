"""Which settings of a grid are measured, on what, and which is best."""
