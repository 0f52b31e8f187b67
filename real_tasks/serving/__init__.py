"""Serving a model: many requests in one batch, each steered as it asks.

`Engine` owns a model in a thread of its own. Requests (`Generation`) join its batch and leave it
between two decoding steps, and each gets what it would get alone. `Catalogue` knows which specs
there are; ``http`` speaks OpenAI's protocol.
"""
