"""SQL over everything that runs have left."""
