"""Steering a model in memory: questions in, a steered model out, without a pipeline around it."""
