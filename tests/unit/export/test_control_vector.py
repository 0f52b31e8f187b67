"""A control vector holds what has to be added to the output of blocks, under llama.cpp's names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from torch import Tensor

from real_tasks.export.control_vector import save_control_vector
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
