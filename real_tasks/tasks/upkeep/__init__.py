"""Upkeep of a home."""
