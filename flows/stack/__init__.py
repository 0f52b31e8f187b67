"""The stack of `real up`: servers and worker of one machine, started, watched, stopped."""
