"""GGUF files: what they say of a model, and the ordinary checkpoint that is made of one."""
