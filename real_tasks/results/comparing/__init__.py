"""Comparing rankings: of two localizers, of two runs, with published ones."""
