"""The commands of `real`: each looks at what was typed and calls what does it."""
