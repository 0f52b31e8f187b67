"""Runs: names, folders, what they use, how they are shared."""
