"""Upkeep: cleaning, compaction, usage."""
