"""What is to be done: configurations from files, checks, methods, units of work."""
