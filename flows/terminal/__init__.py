"""The terminal: the application, what a person sees, the environment of the libraries."""
