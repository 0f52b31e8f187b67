"""Statistics: bootstrap, ROC, probes."""
