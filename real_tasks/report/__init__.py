"""Reports: pages and figures, from plain values."""
