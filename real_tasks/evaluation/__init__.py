"""Evaluation of a steered model: multiple choice, generation with judges, side effects."""
