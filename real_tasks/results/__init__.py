"""Rows of tables, and what they say."""
