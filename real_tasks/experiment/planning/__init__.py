"""What an experiment will take: work, memory, bytes, time."""
