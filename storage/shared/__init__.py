"""The store that several machines share."""
