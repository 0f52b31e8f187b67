"""From texts to tokens to activations."""
