"""Steering: sites, strengths and directions of an intervention, and how a model takes it."""

from real_tasks.steering.spec import SteeringSpec

__all__ = ["SteeringSpec"]
