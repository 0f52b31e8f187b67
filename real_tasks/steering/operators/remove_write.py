"""Keeping a module from writing along a direction: ``W x - strength * v (v . W x)``."""

from real_tasks.steering.operators import OPERATORS
from real_tasks.steering.operators.rank_one import RankOne


@OPERATORS.register("remove_write")
class RemoveWrite(RankOne):
    """Takes the share of a unit vector v out of a module's columns, all of it at a strength of 1.

    It is the edit of rank one that reads ``W^T v`` and writes ``-v`` (ThinkEdit, arXiv 2503.22048).
    """

    highest = 1.0
    strengths = (0.25, 0.5, 0.75, 1.0)
    unit = "share of the component that is not written"
    formula = "W x - s * v (v . W x)"
