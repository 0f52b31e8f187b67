import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from real_tasks.errors import UserInputError
from real_tasks.models import output_projections
from real_tasks.steering import FACTS_FILE, TENSORS_FILE, SteeringSpec
from real_tasks.types import ModuleId
from tests.unit.tiny_models import tiny_llama, tiny_loaded, tiny_qwen2

MODULES = (ModuleId("head", 2, 7), ModuleId("head", 0, 1), ModuleId("head", 2, 0))


def make_spec(**changes: object) -> SteeringSpec:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(3, 12, generator=generator)
    spec = SteeringSpec(
        model="tiny",
        model_digest="sha256:abc",
        modules=MODULES,
        directions=directions / directions.norm(dim=1, keepdim=True),
        sigmas=torch.rand(3, generator=generator) + 0.5,
        strengths=torch.tensor([1.0, 0.9, 1 / 3]),
        alpha=0.1 + 0.2,
        token_scope="generated",
        n_heads=8,
        head_dim=12,
        provenance={"method": "real", "fold": 0, "seeds": [1, 2], "schärfe": None},
    )
    return replace(spec, **changes)


def test_a_saved_spec_comes_back_exactly(tmp_path: Path) -> None:
    spec = make_spec()
    spec.save(tmp_path / "made" / "here")
    back = SteeringSpec.load(tmp_path / "made" / "here")
    for name in ("directions", "sigmas", "strengths"):
        assert torch.equal(getattr(spec, name), getattr(back, name))
        assert getattr(spec, name).dtype == getattr(back, name).dtype
    for name in ("model", "model_digest", "modules", "alpha", "token_scope", "provenance"):
        assert getattr(spec, name) == getattr(back, name)
    assert (back.n_heads, back.head_dim) == (8, 12)


def test_the_displacement_is_alpha_times_strength_times_sigma_times_direction() -> None:
    spec = make_spec(alpha=3.0)
    intervention = spec.intervention()
    assert intervention.scope == "generated"
    assert list(intervention.displacement) == [0, 2]
    expected = {0: torch.zeros(8, 12), 2: torch.zeros(8, 12)}
    for i, module in enumerate(MODULES):
        factor = 3.0 * float(spec.strengths[i]) * float(spec.sigmas[i])
        expected[module.layer][module.head] = factor * spec.directions[i]
    for layer in (0, 2):
        torch.testing.assert_close(intervention.displacement[layer], expected[layer].flatten())


def test_with_alpha_changes_alpha_alone() -> None:
    spec = make_spec()
    doubled = spec.with_alpha(2 * spec.alpha)
    assert doubled.alpha == 2 * spec.alpha
    assert doubled.directions is spec.directions
    once, twice = spec.intervention().displacement, doubled.intervention().displacement
    torch.testing.assert_close(twice[2], 2 * once[2])


def test_three_lines_steer_a_plain_model_exactly_as_w_o_times_the_displacement(
    tmp_path: Path,
) -> None:
    make_spec(token_scope="all", alpha=5.0).save(tmp_path)
    model, ids = tiny_llama().eval(), torch.tensor([[1, 9, 12, 30]])
    with torch.no_grad():
        with SteeringSpec.load(tmp_path).applied_to(model):
            found = model(ids).logits
        displacement = SteeringSpec.load(tmp_path).intervention().displacement
        for layer, projection in enumerate(output_projections(model)):
            if layer in displacement:
                bias = torch.nn.Parameter(projection.weight @ displacement[layer])
                projection.bias = bias
        torch.testing.assert_close(found, model(ids).logits, atol=1e-4, rtol=1e-4)


def test_generate_is_steered_within_the_context_only() -> None:
    loaded = tiny_loaded()
    ids = torch.tensor([[1, 9, 12, 30]])

    def tokens() -> list[int]:
        return loaded.model.generate(ids, max_new_tokens=8, do_sample=False)[0].tolist()

    plain = tokens()
    with make_spec(alpha=30.0).applied_to(loaded.model):
        assert tokens() != plain
    assert tokens() == plain


def test_a_model_with_other_heads_is_refused() -> None:
    with (
        pytest.raises(UserInputError, match="4 heads of 8, the steering spec was made for 8 of 12"),
        make_spec().applied_to(tiny_qwen2()),
    ):
        pass
    with (
        pytest.raises(UserInputError, match="steers layer 2, but the model has layers 0 to 1"),
        make_spec().applied_to(tiny_llama(n_layers=2)),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigmas": torch.ones(2)}, r"sigmas of shape \(2,\), expected \(3,\)"),
        ({"head_dim": 16}, r"directions of shape \(3, 12\), expected \(3, 16\)"),
        ({"n_heads": 7}, "is no attention head of a layer with 7"),
        ({"modules": (MODULES[0], MODULES[0], MODULES[1])}, "listed twice"),
        ({"modules": (*MODULES[:2], ModuleId("layer", 1))}, "is no attention head"),
        ({"token_scope": "first"}, "unknown token scope 'first'"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        make_spec(**changes)


def test_a_folder_without_a_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"steering\.safetensors is missing"):
        SteeringSpec.load(tmp_path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    make_spec().save(tmp_path)
    facts = json.loads((tmp_path / FACTS_FILE).read_text())

    def refuses(message: str) -> None:
        with pytest.raises(UserInputError, match=message):
            SteeringSpec.load(tmp_path)

    (tmp_path / FACTS_FILE).write_text(json.dumps(facts | {"format_version": 2}))
    refuses("of format 2, this program reads 1")
    (tmp_path / FACTS_FILE).write_text(json.dumps({k: facts[k] for k in facts if k != "alpha"}))
    refuses("is damaged.*alpha")
    (tmp_path / FACTS_FILE).write_text('{"model": ')
    refuses("is damaged")
    make_spec().save(tmp_path)
    tensors = (tmp_path / TENSORS_FILE).read_bytes()
    (tmp_path / TENSORS_FILE).write_bytes(tensors[:-10])
    refuses("is damaged")


def test_nothing_is_written_when_the_provenance_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        make_spec(provenance={"when": object()}).save(tmp_path / "spec")
    assert not (tmp_path / "spec").exists()
