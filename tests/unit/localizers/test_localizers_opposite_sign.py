"""Class means on opposite sides of zero, planted and by a plain loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from real_tasks.localizers import LOCALIZERS
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult, ModuleId

LAYERS, SAMPLES, WIDTH = 8, 400, 12
PLANTED = (3, 5)


def localized(data: LocalizerInput) -> LocalizerResult:
    return LOCALIZERS.made("opposite_sign", {}).localize(data, 0)


def layers() -> LocalizerInput:
    """Eight layers in which the labels tell alike much; in two of them around zero."""
    draw = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(LAYERS, 1, WIDTH, generator=draw), dim=-1)
    labels = torch.arange(SAMPLES) % 2
    middle = torch.tensor([0.0 if layer in PLANTED else 4.0 for layer in range(LAYERS)])
    along = 2.0 * (2 * labels - 1) + middle[:, None]
    noise = torch.randn(LAYERS, SAMPLES, WIDTH, generator=draw)
    questions = torch.arange(SAMPLES) // 2
    modules = tuple(ModuleId("layer", layer) for layer in range(LAYERS))
    return LocalizerInput(
        modules, noise + along[..., None] * axis, labels, questions, questions < 160
    )


def test_layers_whose_class_means_lie_around_zero_are_found_and_no_others() -> None:
    found = localized(layers()).scores
    assert tuple(score.module.layer for score in found if score.score > 0) == PLANTED


def test_scores_are_those_of_a_plain_loop_over_training_samples() -> None:
    data = layers()
    result = localized(data)
    labels, train = data.labels.numpy(), data.train.numpy()
    for layer, score in enumerate(result.scores):
        x = data.values[layer].double().numpy()[train]
        own = [x[labels[train] == label] for label in (0, 1)]
        v = own[1].mean(axis=0) - own[0].mean(axis=0)
        v /= np.sqrt((v * v).sum())
        along = [np.array([row @ v / np.sqrt(row @ row) for row in part]) for part in own]
        sd = np.sqrt((along[0].var() + along[1].var()) / 2)
        low, high = along[0].mean() / sd, along[1].mean() / sd
        expected = abs(high - low) if low * high < 0 else -min(abs(low), abs(high))
        assert score.score == pytest.approx(expected, rel=1e-4)
        assert result.evidence["class_means"][layer].numpy() == pytest.approx([low, high], rel=1e-4)


def test_a_constant_that_all_share_hides_a_layer() -> None:
    data = layers()
    values = data.values.clone()
    gap = values[3, data.labels == 1].mean(dim=0) - values[3, data.labels == 0].mean(dim=0)
    values[3] += 2 * gap
    found = localized(replace(data, values=values)).scores
    assert found[3].score < 0 < found[5].score
