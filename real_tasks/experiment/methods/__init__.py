"""Methods as an experiment runs them: those that there are, and its own."""
