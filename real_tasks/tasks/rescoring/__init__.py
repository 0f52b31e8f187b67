"""Re-scoring: what it starts from, what it makes, what it keeps."""
