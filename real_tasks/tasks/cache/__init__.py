"""The factory of cached stages: keys, code versions, timings, progress."""
