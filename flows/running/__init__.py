"""How flows run: fan-out over shards, clusters, progress, processes that end with them."""
