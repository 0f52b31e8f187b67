"""Drift: what has changed since a run."""
