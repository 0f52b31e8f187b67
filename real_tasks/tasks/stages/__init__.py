"""The stages of an experiment, and the references between them."""
