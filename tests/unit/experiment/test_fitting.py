"""What fitters are given of an experiment's data."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from real_tasks.experiment.fitting import fitted_tensors
from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.types import FoldSplit, ModuleId
from tests.unit.tiny_models import random_data

DATA = random_data(n_questions=6)
SPLIT = FoldSplit(train=(0, 1, 2), validation=(3,), test=(4, 5))


class Shares(Fitter):
    """A module's mean as a share of all that it sees."""

    gives = ("share",)

    def fit(self, data: FitterInput, seed: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the shares."""
        means = data.values.mean(dim=1)
        return {"share": means / means.sum(dim=0)}


class SharesOfAll(Shares):
    """The same, over all layers."""

    all_layers = True


class Beside(Fitter):
    """The sum of what it sees beside."""

    gives = ("sums",)

    def fit(self, data: FitterInput, seed: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Return a sum for each layer, once for each of its modules."""
        assert data.beside is not None
        per_layer = len(data.modules) // len(data.beside)
        return {"sums": data.beside.sum(dim=(1, 2)).repeat_interleave(per_layer)}


@pytest.mark.parametrize("all_layers", [False, True])
def test_what_lies_beside_is_that_of_the_same_layers_and_samples(
    all_layers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FITTERS._entries, "beside", Beside)
    monkeypatch.setattr(Beside, "all_layers", all_layers)
    n_answers = sum(len(question.answers) for question in DATA.questions)
    rng = np.random.default_rng(0)
    layers, others = (rng.random((4, n_answers, n, 3)).astype(np.float32) for n in (2, 1))
    given = PlugIn(name="beside"), layers, DATA, SPLIT, "head", 0, {}
    found = fitted_tensors(*given, beside=iter(others))["sums"]
    trained = sum(len(DATA.questions[i].answers) for i in SPLIT.train)
    expected = torch.tensor([float(other[:trained].sum()) for other in others])
    torch.testing.assert_close(found, expected[:, None].expand(4, 2))


@pytest.mark.parametrize("entry", [Shares, SharesOfAll])
def test_a_fitter_sees_one_layer_at_a_time_or_all_of_them(
    entry: type[Fitter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FITTERS._entries, "shares", entry)
    n_answers = sum(len(question.answers) for question in DATA.questions)
    rng = np.random.default_rng(0)
    layers = [rng.random((n_answers, 2, 3)).astype(np.float32) for _ in range(4)]

    def read() -> Iterator[np.ndarray]:
        yield from layers

    found = fitted_tensors(PlugIn(name="shares"), read(), DATA, SPLIT, "head", 0, {})["share"]
    trained = sum(len(DATA.questions[i].answers) for i in SPLIT.train)
    means = np.stack([layer[:trained].mean(axis=0) for layer in layers])
    axes = (0, 1) if entry.all_layers else (1,)
    expected = means / means.sum(axis=axes, keepdims=True)
    assert found.shape == (4, 2, 3)
    assert torch.allclose(found, torch.from_numpy(expected), atol=1e-6)


def test_modules_that_are_not_asked_for_are_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[ModuleId, ...]] = []

    class Means(Fitter):
        """Each module's mean activation."""

        gives = ("mean",)

        def fit(self, data: FitterInput, seed: int) -> dict[str, Tensor]:  # noqa: ARG002
            asked.append(data.modules)
            return {"mean": data.values.mean(dim=1)}

    monkeypatch.setitem(FITTERS._entries, "means", Means)
    n_answers = sum(len(question.answers) for question in DATA.questions)
    layers = np.random.default_rng(0).random((4, n_answers, 2, 3)).astype(np.float32)
    given = PlugIn(name="means"), layers, DATA, SPLIT, "head", 0, {}
    only = {ModuleId("head", 1, 1), ModuleId("head", 3, 0)}
    found, every = (fitted_tensors(*given, only=o)["mean"] for o in (only, None))
    assert asked[:2] == [(ModuleId("head", 1, 1),), (ModuleId("head", 3, 0),)]
    wanted = torch.zeros(4, 2, dtype=torch.bool)
    wanted[1, 1] = wanted[3, 0] = True
    assert torch.equal(found[wanted], every[wanted]) and bool(found[~wanted].isnan().all())
