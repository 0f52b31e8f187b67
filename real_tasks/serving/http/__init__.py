"""OpenAI's protocol over HTTP: what clients ask, what they are told, and how errors look."""
