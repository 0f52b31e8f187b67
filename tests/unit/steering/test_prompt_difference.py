"""The difference between conditions against a planted shift and plain loops."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.hooks import applied
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.types import ModuleId
from tests.unit.tiny_models import tiny_loaded

MODULES = (ModuleId("layer", 0), ModuleId("layer", 1))
D = 16
DRAW = torch.Generator().manual_seed(1)
ASKED = [(q, c) for q in range(60) for c in ("plain", "owls", "cats")[: 3 if q < 40 else 1 + q % 2]]
"""Sixty questions: forty under three conditions, the others under one or two of them."""
ROWS = [one for one in ASKED for _ in range(1 + one[0] % 4)]
"""With one to four answers."""
NAMES = ("cats", "owls", "plain")
SHIFT = torch.nn.functional.normalize(torch.randn(2, D, generator=DRAW), dim=-1)
TOPICS = 5 * torch.randn(2, 60, D, generator=DRAW)


def seen() -> FitterInput:
    """Every question has a large vector of its own; only the condition owls shifts it."""
    questions = torch.tensor([question for question, _ in ROWS])
    owls = torch.tensor([condition == "owls" for _, condition in ROWS])
    values = TOPICS[:, questions] + 0.3 * torch.randn(2, len(ROWS), D, generator=DRAW)
    values += owls[:, None] * SHIFT[:, None]
    labels = torch.arange(len(ROWS)) % 2
    conditions = tuple(NAMES.index(condition) for _, condition in ROWS)
    told: dict[str, Any] = {"conditions": conditions, "condition_names": NAMES}
    return FitterInput(MODULES, values, labels, questions, **told)


SEEN = seen()


def found(**params: str) -> dict[str, torch.Tensor]:
    return FITTERS.made("prompt_difference", params).fit(SEEN, 0)


@pytest.mark.parametrize("reference", ["plain", ""])
def test_a_planted_shift_is_recovered_whatever_else_differs_between_questions(
    reference: str,
) -> None:
    direction = found(condition="owls", reference=reference)["direction"]
    assert float((direction * SHIFT).sum(-1).min()) > 0.95
    back = found(condition="plain", reference="owls")["direction"]
    assert float((back * SHIFT).sum(-1).max()) < -0.95


def test_it_equals_a_plain_loop_over_the_questions_asked_under_both() -> None:
    fitted = found(condition="owls", reference="plain")
    for module in range(2):
        differences = []
        for question in range(60):
            means = [
                [
                    SEEN.values[module, row].double().numpy()
                    for row, one in enumerate(ROWS)
                    if one == (question, condition)
                ]
                for condition in ("owls", "plain")
            ]
            if all(means):
                differences.append(np.mean(means[0], axis=0) - np.mean(means[1], axis=0))
        assert len(differences) == 50
        expected = np.mean(differences, axis=0)
        expected /= np.linalg.norm(expected)
        assert fitted["direction"][module].numpy() == pytest.approx(expected, abs=1e-5)
        along = SEEN.values[module].numpy() @ expected
        ends = [
            np.mean([a for a, (q, c) in zip(along, ROWS, strict=True) if c == side and q in BOTH])
            for side in ("owls", "plain")
        ]
        assert float(fitted["target"][module]) == pytest.approx(ends[0], abs=1e-4)
        assert float(fitted["threshold"][module]) == pytest.approx(np.mean(ends), abs=1e-4)


BOTH = [q for q in range(60) if q < 40 or q % 2]


def test_nothing_is_left_along_it_once_it_is_projected_out() -> None:
    loaded = tiny_loaded()
    drawn = torch.randn(1, len(ROWS), loaded.shape.d_model, generator=DRAW)
    data = replace(SEEN, modules=MODULES[:1], values=drawn)
    u = FITTERS.made("prompt_difference", {"condition": "owls"}).fit(data, 0)["direction"]
    project_out = OPERATORS.made("project_out", {})
    edit = Edit(MODULES[:1], {"direction": u}, torch.ones(1), project_out)
    along: list[torch.Tensor] = []
    loaded.model.model.layers[1].register_forward_pre_hook(
        lambda _, given: along.append(given[0][0] @ u[0])
    )
    for intervention in (None, Intervention((edit,), 1.0)):
        with torch.no_grad(), applied(loaded, intervention):
            loaded.model(torch.tensor([[1, 5, 9, 12, 7]]))
    assert float(along[0].abs().min()) > 1e-3
    assert float(along[1].abs().max()) < 1e-5
