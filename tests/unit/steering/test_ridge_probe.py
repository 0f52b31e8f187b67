"""A ridge-tuned probe and the step to one of its probabilities (RAPTOR, arXiv 2602.00158)."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.gates import GATES, Seen
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId

SITE = ModuleId("layer", 0)


def taught(n: int, d: int, seed: int = 0, loud: float = 2.0) -> tuple[FitterInput, Tensor]:
    """Labels drawn by a teacher's probability, two samples a question; and the teacher."""
    source = torch.Generator().manual_seed(seed)
    teacher = torch.nn.functional.normalize(torch.randn(d, generator=source), dim=0)
    values = torch.randn(1, n, d, generator=source)
    chance = (loud * values[0] @ teacher).sigmoid()
    labels = (torch.rand(n, generator=source) < chance).long()
    return FitterInput((SITE,), values, labels, torch.arange(n) // 2), teacher


def fitted(data: FitterInput, **params: float) -> dict[str, Tensor]:
    return FITTERS.made("ridge_probe", params).fit(data, 0)


def pipeline(c: float) -> Pipeline:
    probe = LogisticRegression(C=c, tol=1e-12, solver="newton-cholesky")
    return make_pipeline(StandardScaler(), probe)


@pytest.mark.parametrize(("n", "d"), [(120, 6), (60, 100)], ids=["samples", "numbers"])
def test_c_and_probabilities_are_those_of_sklearns_pipeline(n: int, d: int) -> None:
    data, _ = taught(n, d)
    data = FitterInput(data.modules, 5 + 3 * data.values.double(), data.labels, data.questions)
    x, y, part = data.values[0].numpy(), data.labels.numpy(), data.questions.numpy() % 5
    losses = {}
    for c in np.logspace(-4, 2, 7):
        held_out = np.empty(n)
        for k in range(5):
            model = pipeline(c).fit(x[part != k], y[part != k])
            held_out[part == k] = model.predict_proba(x[part == k])[:, 1]
        losses[c] = log_loss(y, held_out)
    found = fitted(data)
    best = min(losses, key=lambda c: losses[c])
    assert float(found["inverse_penalty"]) == pytest.approx(best)
    odds = data.values[0] @ found["weights"][0] + found["bias"]
    expected = pipeline(best).fit(x, y).predict_proba(x)[:, 1]
    assert odds.sigmoid().numpy() == pytest.approx(expected, abs=1e-6)


def test_the_step_lands_on_the_probability_and_is_done_where_it_is_missing() -> None:
    data, _ = taught(200, 32)
    found = fitted(data, probability=0.9)
    x = 2 * torch.randn(1, 50, 32, generator=torch.Generator().manual_seed(9))

    def chance(values: Tensor) -> Tensor:
        return (values @ found["weights"][0] + found["bias"]).sigmoid()

    one = torch.ones(1, 1, 1)
    stepped = OPERATORS.made("clamp", {}).apply(x[:, :, None], found, one)[:, :, 0]
    assert chance(stepped)[0].tolist() == pytest.approx([0.9] * 50, abs=1e-5)
    tensors = {name: found[name][0] for name in ("direction", "threshold")}
    seen = Seen(None, torch.ones(1, 50, dtype=torch.bool), {SITE: x})
    gate = GATES.made("coordinate", {}).placed(SITE).strength(seen, tensors)
    assert torch.equal(gate == 1, chance(x) < 0.9)
    assert 0 < int(gate.sum()) < 50


def test_the_threshold_may_be_another_probability_than_the_target() -> None:
    data, _ = taught(100, 8)
    found = fitted(data, probability=0.8, below=0.5)
    at = {name: found[name] * found["weights"].norm() + found["bias"] for name in found}
    assert float(at["target"].sigmoid()) == pytest.approx(0.8, abs=1e-5)
    assert float(at["threshold"].sigmoid()) == pytest.approx(0.5, abs=1e-5)


def test_a_tuned_ridge_is_nearer_to_the_teacher_and_a_strong_one_steadier_than_a_weak() -> None:
    gains, steadier = [], []
    for seed in range(4):
        data, teacher = taught(60, 60, seed, loud=4.0)
        part = FitterInput(data.modules, data.values[:, 6:], data.labels[6:], data.questions[6:])
        weak, strong = ({"smallest": c, "largest": c, "steps": 1} for c in (100.0, 1e-3))
        tuned, loose = (fitted(data, **how)["direction"][0] for how in ({}, weak))
        gains.append(float((tuned - loose) @ teacher))
        kept = [
            float(fitted(data, **how)["direction"][0] @ fitted(part, **how)["direction"][0])
            for how in (strong, weak)
        ]
        steadier.append(kept[0] - kept[1])
    assert np.mean(gains) > 0.02
    assert np.mean(steadier) > 0.02


def test_where_no_question_can_be_held_out_the_mend_is_said() -> None:
    data, _ = taught(20, 4)
    alone = FitterInput(data.modules, data.values, data.labels * 0, data.questions)
    with pytest.raises(UserInputError, match="give more questions"):
        fitted(alone)
