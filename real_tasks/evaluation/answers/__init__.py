"""What a model answers: choices, generations, probabilities, one batch or many."""
