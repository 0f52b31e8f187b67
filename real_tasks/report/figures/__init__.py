"""Pictures: numbers and table rows in, a matplotlib ``Figure`` out, a family of pictures a module.

Figures are made through matplotlib's object interface alone, and may be drawn in several threads.
"""
