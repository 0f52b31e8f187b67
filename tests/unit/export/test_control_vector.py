"""A control vector holds what has to be added to the output of blocks, under llama.cpp's names."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from torch import Tensor

from real_tasks.export.behind_blocks import behind_blocks, check_behind_blocks, loss_in_words
from real_tasks.export.control_vector import control_vectors, save_control_vector
from real_tasks.export.parity import make_parity
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.hooks import applied
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId, ModuleKind
from tests.unit.tiny_models import tiny_loaded


def push(
    kind: ModuleKind, *layers: int, seed: int = 0, operator: str = "add", **how: object
) -> Edit:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(len(layers), 32, generator=generator)
    tensors = {"direction": directions, "scale": torch.linspace(0.5, 1.5, len(layers))}
    return Edit(
        tuple(ModuleId(kind, layer) for layer in layers),
        tensors,
        torch.linspace(1, 2, len(layers)),
        OPERATORS.made(operator, {}),
        **how,  # type: ignore[arg-type]
    )


def test_added_to_the_blocks_it_names_it_does_what_the_hooks_do(tmp_path: Path) -> None:
    loaded = tiny_loaded()
    both = Intervention((push("layer", 1, 2), push("residual_in", 2, seed=1)), 3.0)
    save_control_vector(both, loaded.shape, "llama", tmp_path / "v.gguf")
    reader = GGUFReader(tmp_path / "v.gguf")
    vectors = {int(t.name.split(".")[1]): torch.tensor(t.data.copy()) for t in reader.tensors}
    assert sorted(vectors) == [1, 2]
    assert reader.fields["general.architecture"].contents() == "controlvector"
    ids = torch.tensor([[1, 9, 12, 30, 11]])

    def adding(vector: Tensor) -> Callable[..., Tensor]:
        return lambda _module, _args, output: output + vector

    with torch.no_grad():
        with applied(loaded, both):
            expected = loaded.model(ids).logits
        bare = loaded.model(ids).logits
        layers = loaded.model.get_submodule("model.layers")
        hooks = [
            layers.get_submodule(str(n)).register_forward_hook(adding(v))
            for n, v in vectors.items()
        ]
        found = loaded.model(ids).logits
    for hook in hooks:
        hook.remove()
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, bare, atol=1e-2)


def test_what_heads_add_is_added_behind_their_blocks_where_that_is_asked_for() -> None:
    loaded = tiny_loaded()
    places = (ModuleId("head", 0, 1), ModuleId("head", 1, 2), ModuleId("head", 2, 7))
    directions = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    tensors = {"direction": directions, "scale": torch.tensor([0.5, 1.0, 2.0])}
    heads = Intervention((Edit(places, tensors, torch.tensor([1.0, 2.0, 0.5])),), 3.0)
    check_behind_blocks(heads, "llama")
    found = control_vectors(behind_blocks(loaded, heads), loaded.shape)
    expected = {1: torch.zeros(32), 2: torch.zeros(32)}  # what the first block adds comes later
    for place, direction, size in zip(places, directions, (0.5, 2.0, 1.0), strict=True):
        weight = loaded.model.get_parameter(f"model.layers.{place.layer}.self_attn.o_proj.weight")
        columns = weight[:, 12 * place.head : 12 * (place.head + 1)].detach()
        expected[max(place.layer, 1)] += columns @ (3 * size * direction)
    assert found.keys() == expected.keys()
    for block, vector in expected.items():
        torch.testing.assert_close(found[block], vector)
    parity = make_parity(loaded, heads, [("neutral", "w1 w2 w3")])
    said = loss_in_words(loaded, behind_blocks(loaded, heads), parity)
    away = re.search(r"by up to (\S+) nats, where steering changes them by up to (\S+);", said)
    assert away and 0 < float(away[1]) < float(away[2])


@pytest.mark.parametrize(
    ("edit", "model_type", "why"),
    [
        (push("mlp", 1), "llama", "only what is added to heads"),
        (push("layer", 1, operator="project_out"), "llama", "project_out|only what is added"),
        (push("mlp", 1, scope="last"), "llama", "'last'"),
    ],
)
def test_what_is_not_added_to_heads_is_not_approximated(
    edit: Edit, model_type: str, why: str
) -> None:
    with pytest.raises(UserInputError, match=why):
        check_behind_blocks(Intervention((edit,)), model_type)


def test_behind_a_norm_heads_add_no_constant() -> None:
    tensors = {"direction": torch.ones(1, 12), "scale": torch.ones(1)}
    heads = Intervention((Edit((ModuleId("head", 1, 0),), tensors, torch.ones(1)),))
    with pytest.raises(UserInputError, match="'gemma2' a norm stands between"):
        check_behind_blocks(heads, "gemma2")


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (push("layer", 0, 1), "first block"),
        (push("residual_in", 1), "first block"),
        (push("mlp", 1), r"within a block \(mlp\)"),
        (push("layer", 1, scope="generated"), "'generated' steers some positions only"),
        (push("layer", 1, operator="project_out"), "depends on the activations"),
        (push("layer", 1, keep_norm=True), "depends on the activations"),
    ],
)
def test_what_constants_behind_blocks_cannot_do_is_refused(
    edit: Edit, why: str, tmp_path: Path
) -> None:
    with pytest.raises(UserInputError, match=f"{why}.*--format spec"):
        save_control_vector(
            Intervention((edit,)), tiny_loaded().shape, "llama", tmp_path / "v.gguf"
        )
    assert not (tmp_path / "v.gguf").exists()
