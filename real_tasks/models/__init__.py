"""Language models: architectures, checkpoints, the Hub, loading, identity."""
