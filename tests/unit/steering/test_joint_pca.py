"""One axis through the activations of all layers: planted, by a plain SVD, and as biases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from real_tasks.export.bake import bake
from real_tasks.models.loading import prepare
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId
from tests.unit.tiny_models import tiny_family, tiny_tokenizer

LAYERS, WIDTH = 5, 8
MODULES = tuple(ModuleId("layer", layer) for layer in range(LAYERS))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def axes_and_values(n: int = 2000) -> tuple[Tensor, Tensor, Tensor]:
    """Three orthogonal axes through the middle layers; labels are the sign along the second."""
    axes = torch.linalg.qr(drawn((LAYERS - 2) * WIDTH, 3, seed=1)).Q.T
    along = drawn(n, 3, seed=2) * torch.tensor([8.0, 5.0, 3.0])
    values = 0.3 * drawn(LAYERS, n, WIDTH, seed=3) + 2.0
    values[1:-1] += (along @ axes).unflatten(1, (LAYERS - 2, WIDTH)).transpose(0, 1)
    values[[0, -1]] *= 100  # which is to be left out
    return axes, values, (along[:, 1] > 0).long()


def pieces(values: Tensor, labels: Tensor, **params: Any) -> Tensor:
    modules = tuple(ModuleId("layer", layer) for layer in range(len(values)))
    found = FITTERS.made("joint_pca", params).fit(FitterInput(modules, values, labels, labels), 0)
    return found["scale"][:, None] * found["direction"]


def test_planted_joint_axes_are_found_in_the_order_of_their_widths() -> None:
    axes, values, labels = axes_and_values()
    for component, axis in enumerate(axes):
        found = pieces(values, labels, component=component)
        assert not found[[0, -1]].any()
        whole = found[1:-1].flatten() / found.norm()
        assert float((whole @ axis).abs()) > np.cos(np.radians(5))


def test_labels_choose_the_component_and_its_sign() -> None:
    axes, values, labels = axes_and_values()
    assert float(pieces(values, labels)[1:-1].flatten() @ axes[1]) > 0
    assert torch.equal(pieces(values, labels), pieces(values, labels, component=1))
    assert torch.equal(pieces(values, 1 - labels), -pieces(values, labels))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("component", [0, 4])
def test_the_pieces_are_those_of_numpy_s_svd(scaled: bool, component: int) -> None:
    _, values, labels = axes_and_values(40)
    values[2] *= 30
    found = pieces(values, labels, component=component, scaled=scaled).numpy()
    x = values[1:-1].double().numpy()
    x = x - x.mean(axis=1, keepdims=True)
    sizes = np.sqrt((x**2).sum(axis=(1, 2))) if scaled else np.ones(len(x))
    rows = np.concatenate([layer / size for layer, size in zip(x, sizes, strict=True)], axis=1)
    _, widths, axes = np.linalg.svd(rows, full_matrices=False)
    moved = widths[component] / np.sqrt(len(rows)) * axes[component].reshape(len(x), WIDTH)
    expected = moved * sizes[:, None]
    towards = np.sign((rows @ axes[component])[labels == 1].mean())
    assert found[1:-1] == pytest.approx(towards * expected, abs=1e-4, rel=1e-3)


def test_of_activations_without_an_axis_none_explains_more_than_its_share() -> None:
    n, d = 40_000, (LAYERS - 2) * WIDTH
    values = drawn(LAYERS, n, WIDTH)
    found = pieces(values, torch.arange(n) % 2, component=0)
    share = float(found.square().sum()) / float(values[1:-1].var(dim=1).sum())
    assert 1 / d < share < 1.1 / d


def test_a_component_that_the_answers_do_not_have_is_refused() -> None:
    with pytest.raises(UserInputError, match="6 answers have 5, from 0"):
        pieces(drawn(4, 6, WIDTH), torch.arange(6) % 2, component=5)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_is_baked_as_biases_of_all_layers_but_two(family: str, tmp_path: Path) -> None:
    model = tiny_family(family, **({"num_hidden_layers": 5} if family == "llama" else {}))
    n_layers, width = model.config.num_hidden_layers, model.config.hidden_size
    modules = tuple(ModuleId("layer", layer) for layer in range(n_layers))
    labels = torch.arange(30) % 2
    data = FitterInput(modules, drawn(n_layers, 30, width), labels, labels)
    found = FITTERS.made("joint_pca", {}).fit(data, 0)
    iv = Intervention((Edit(modules, found, torch.ones(n_layers)),), 0.5)
    source, target = tmp_path / "source", tmp_path / "made"
    tiny_tokenizer().save_pretrained(source)
    target.mkdir()
    bake(prepare(model, tiny_tokenizer()), iv, source, target)
    baked = AutoModelForCausalLM.from_pretrained(target).eval()
    ids = torch.tensor([[1, 9, 12, 30, 41, 7]])
    with applied(model, iv):
        expected = model(ids).logits
    torch.testing.assert_close(baked(ids).logits, expected, atol=1e-5, rtol=0)
    before = model.state_dict()
    other = [
        name
        for name, value in baked.state_dict().items()
        if not torch.equal(value, before.get(name, torch.zeros_like(value)))
    ]
    assert len(other) == n_layers - 2 and all(name.endswith(".bias") for name in other)
