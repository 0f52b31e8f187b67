"""Data files and Hub data sets, read as questions."""
