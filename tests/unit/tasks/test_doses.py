"""The doses that are drawn against their side effects."""

from types import SimpleNamespace
from typing import Any, cast

from real_tasks.tasks.stages.pictures import _doses


def measured(kl: float, **further: float) -> dict[str, Any]:
    """A test of two questions."""
    return {"kl": kl, "per_question": {"mc1": [0.0, 1.0]}, **further}


def test_behind_a_gate_the_side_effect_that_is_drawn_is_that_on_prompts() -> None:
    item = SimpleNamespace(method="cast", fold=0, seed=0)
    tested = {
        "alpha": 2.0,
        "test": measured(0.001, kl_open=0.04),
        "matched": measured(0.03, kl_open=0.02),
    }
    tables = SimpleNamespace(evaluations=[(item, tested | {"race": {"order": [0]}})])
    drawn = _doses(cast(Any, tables))["curves"]
    assert {row["dose"]: row["kl"] for row in drawn} == {"tuned": 0.04, "matched": 0.03}
    assert {row["mc1"] for row in drawn} == {0.5}
