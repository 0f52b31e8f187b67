"""EasySteer's files hold what has to be added to heads and to the outputs of layers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from torch import Tensor

from real_tasks.export.easysteer import STEERING, save_easysteer
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.scopes import PromptEnds
from real_tasks.vocabulary.types import ModuleId
from tests.unit.export.test_control_vector import push
from tests.unit.tiny_models import tiny_loaded


def heads(*places: tuple[int, int], width: int, **how: object) -> Edit:
    directions = torch.randn(len(places), width, generator=torch.Generator().manual_seed(4))
    tensors = {"direction": directions, "scale": torch.linspace(0.5, 1.5, len(places))}
    modules = tuple(ModuleId("head", layer, head) for layer, head in places)
    return Edit(modules, tensors, torch.ones(len(places)), **how)  # type: ignore[arg-type]


def read(folder: Path) -> list[tuple[dict[str, Any], dict[int, Tensor]]]:
    """What `steering.json` applies, each with its vectors by layer."""
    found = []
    for one in json.loads((folder / STEERING).read_text())["vectors"]:
        tensors = GGUFReader(folder / one["source"]).tensors
        vectors = {int(t.name.split(".")[1]): torch.tensor(t.data.copy()) for t in tensors}
        found.append((one, vectors))
    return found


def test_added_where_easysteer_adds_it_it_does_what_the_hooks_do(tmp_path: Path) -> None:
    loaded = tiny_loaded()
    at_heads = heads((0, 1), (2, 0), (2, 1), width=loaded.shape.head_dim)
    edits = (at_heads, push("layer", 0, 2), push("residual_in", 1, seed=1))
    everywhere = Intervention(edits, 3.0)
    assert save_easysteer(everywhere, loaded.shape, "llama", tmp_path) == (
        "attention_add",
        "direct",
    )
    ids = torch.tensor([[1, 9, 12, 30, 11]])

    def before(vector: Tensor) -> Callable[..., tuple[Tensor, ...]]:
        return lambda _module, args: (args[0] + vector, *args[1:])

    def behind(vector: Tensor) -> Callable[..., Tensor]:
        return lambda _module, _args, output: output + vector

    layers: Any = loaded.model.get_submodule("model.layers")
    hooks = []
    for one, vectors in read(tmp_path):
        assert one["scale"] == 1 and one["apply"] == {"prompt": "all", "generation": "all"}
        for layer, vector in vectors.items():
            if one["algorithm"] == "attention_add":
                assert len(vector) == loaded.shape.n_heads * loaded.shape.head_dim
                place = layers[layer].self_attn.o_proj
                hooks.append(place.register_forward_pre_hook(before(vector)))
            else:
                hooks.append(layers[layer].register_forward_hook(behind(vector)))
    with torch.no_grad():
        found = loaded.model(ids).logits
        for hook in hooks:
            hook.remove()
        bare = loaded.model(ids).logits
        with applied(loaded, everywhere):
            expected = loaded.model(ids).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, bare, atol=1e-2)


def test_scopes_say_which_tokens_are_steered_and_each_has_a_file(tmp_path: Path) -> None:
    edits = (push("layer", 1, scope="generated"), push("layer", 1, scope="last"))
    save_easysteer(Intervention(edits, 1.0), tiny_loaded().shape, "llama", tmp_path)
    applied_to = {one["source"]: one["apply"] for one, _ in read(tmp_path)}
    assert applied_to == {
        "direct-generated.gguf": {"generation": "all"},
        "direct-last.gguf": {"prompt_positions": [-1], "generation": "all"},
    }


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (push("residual_in", 0), "input of the first layer"),
        (push("mlp", 1), "at 'mlp'"),
        (push("layer", 1, scope=PromptEnds(first=1)), "first 1 of the prompt"),
        (push("layer", 1, operator="project_out"), "depends on the activations"),
    ],
)
def test_what_it_cannot_do_is_refused_and_nothing_written(
    edit: Edit, why: str, tmp_path: Path
) -> None:
    with pytest.raises(UserInputError, match=f"{why}.*real serve"):
        save_easysteer(Intervention((edit,)), tiny_loaded().shape, "llama", tmp_path)
    assert not list(tmp_path.iterdir())
