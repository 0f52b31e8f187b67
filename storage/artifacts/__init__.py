"""Artifacts: content-addressed folders, activations among them."""
