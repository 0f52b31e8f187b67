import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from real_tasks.models.identity import weights_fingerprint
from real_tasks.models.places import output_projections
from real_tasks.steering.spec import SteeringSpec
from real_tasks.steering.spec_files import FACTS_FILE, TENSORS_FILE
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape, ModuleId, ModuleKind
from tests.unit.tiny_models import tiny_llama, tiny_loaded, tiny_qwen2, vectors_of

SHAPE = ModelShape(n_layers=3, n_heads=8, head_dim=12, d_model=32)
MODULES = (ModuleId("head", 2, 7), ModuleId("head", 0, 1), ModuleId("head", 2, 0))


def make_spec(**changes: object) -> SteeringSpec:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(3, 12, generator=generator)
    facts = {
        "model": "tiny",
        "model_digest": "sha256:abc",
        "modules": MODULES,
        "directions": directions / directions.norm(dim=1, keepdim=True),
        "sigmas": torch.rand(3, generator=generator) + 0.5,
        "strengths": torch.tensor([1.0, 0.9, 1 / 3]),
        "alpha": 0.1 + 0.2,
        "token_scope": "generated",
        "shape": SHAPE,
        "weights": "",
        "provenance": {"method": "real", "fold": 0, "seeds": [1, 2], "schärfe": None},
    }
    return SteeringSpec.adding(**facts | changes)


def make_wide_spec(kind: ModuleKind, **changes: object) -> SteeringSpec:
    generator = torch.Generator().manual_seed(1)
    modules = (ModuleId(kind, 2), ModuleId(kind, 0), ModuleId(kind, 1))
    return make_spec(modules=modules, directions=torch.randn(3, 32, generator=generator), **changes)


@pytest.mark.parametrize(
    "spec",
    [make_spec(weights="sha256:w"), make_wide_spec("layer"), make_wide_spec("mlp")],
    ids=["head", "layer", "mlp"],
)
def test_a_saved_spec_comes_back_exactly(tmp_path: Path, spec: SteeringSpec) -> None:
    spec.save(tmp_path / "made" / "here")
    back = SteeringSpec.load(tmp_path / "made" / "here")
    (edit,), (found,) = spec.edits, back.edits
    assert edit.tensors.keys() == found.tensors.keys()
    for name, tensor in {**edit.tensors, "weights": edit.weights}.items():
        other = found.weights if name == "weights" else found.tensors[name]
        assert torch.equal(tensor, other) and tensor.dtype == other.dtype
    assert (edit.scope, edit.keep_norm) == (found.scope, found.keep_norm)
    for name in ("model", "model_digest", "modules", "alpha", "shape", "provenance", "weights"):
        assert getattr(spec, name) == getattr(back, name)


def test_the_displacement_is_alpha_times_strength_times_sigma_times_direction() -> None:
    spec = make_spec(alpha=3.0)
    intervention = spec.intervention()
    assert intervention.scope == "generated"
    displacement = vectors_of(intervention, SHAPE)
    assert sorted(displacement) == [0, 2]
    expected = {0: torch.zeros(8, 12), 2: torch.zeros(8, 12)}
    for i, module in enumerate(MODULES):
        factor = 3.0 * float(spec.edits[0].weights[i]) * float(spec.edits[0].tensors["scale"][i])
        expected[module.layer][module.head] = factor * spec.edits[0].tensors["direction"][i]
    for layer in (0, 2):
        torch.testing.assert_close(displacement[layer], expected[layer].flatten())


@pytest.mark.parametrize("kind", ["layer", "mlp"])
def test_the_displacement_of_a_layer_is_as_wide_as_the_residual_stream(kind: ModuleKind) -> None:
    spec = make_wide_spec(kind, alpha=3.0)
    intervention = spec.intervention()
    displacement = vectors_of(intervention, SHAPE)
    assert (spec.kinds, sorted(displacement)) == ((kind,), [0, 1, 2])
    (edit,) = spec.edits
    for i, module in enumerate(spec.modules):
        scale = 3.0 * float(edit.weights[i]) * float(edit.tensors["scale"][i])
        expected = scale * edit.tensors["direction"][i]
        torch.testing.assert_close(displacement[module.layer], expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["layer", "mlp"])
def test_a_loaded_spec_of_layers_steers_a_plain_model(tmp_path: Path, kind: ModuleKind) -> None:
    make_wide_spec(kind, token_scope="all").save(tmp_path)
    model, ids = tiny_llama().eval(), torch.tensor([[1, 9, 12, 30]])
    spec = SteeringSpec.load(tmp_path)
    with spec.applied_to(model):
        found = model(ids).logits
    for layer, displacement in vectors_of(spec.intervention(), SHAPE).items():
        # Layers and MLPs of a Llama alike: the last projection's output goes into the sum.
        model.model.layers[layer].mlp.down_proj.bias = torch.nn.Parameter(displacement)
    torch.testing.assert_close(found, model(ids).logits, atol=1e-4, rtol=1e-4)


def test_with_alpha_changes_alpha_alone() -> None:
    spec = make_spec()
    doubled = spec.with_alpha(2 * spec.alpha)
    assert doubled.alpha == 2 * spec.alpha
    assert doubled.edits is spec.edits
    once, twice = (vectors_of(one.intervention(), SHAPE) for one in (spec, doubled))
    torch.testing.assert_close(twice[2], 2 * once[2])


def test_three_lines_steer_a_plain_model_exactly_as_w_o_times_the_displacement(
    tmp_path: Path,
) -> None:
    make_spec(token_scope="all", alpha=5.0).save(tmp_path)
    model, ids = tiny_llama().eval(), torch.tensor([[1, 9, 12, 30]])
    with torch.no_grad():
        with SteeringSpec.load(tmp_path).applied_to(model):
            found = model(ids).logits
        displacement = vectors_of(SteeringSpec.load(tmp_path).intervention(), SHAPE)
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


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("model", "found"),
    [
        (tiny_qwen2(), "3 layers with 4 heads of 8 on a residual stream of 32"),
        (tiny_llama(n_layers=2), "2 layers with 8 heads of 12 on a residual stream of 32"),
    ],
)
def test_a_model_of_another_shape_is_always_refused(model, found: str, force: bool) -> None:
    made_for = "3 layers with 8 heads of 12 on a residual stream of 32"
    message = f"the model has {found}; the steering spec was made for {made_for} \\(tiny\\)"
    with (
        pytest.raises(UserInputError, match=message),
        make_spec().applied_to(model, force=force, digest="sha256:abc"),
    ):
        pass


def test_a_model_with_other_weights_is_refused_unless_it_is_meant() -> None:
    made_for, other = tiny_llama(seed=0), tiny_llama(seed=1)
    spec = make_spec(weights=weights_fingerprint(made_for))
    with spec.applied_to(made_for):
        pass
    with spec.applied_to(made_for.to(torch.bfloat16)):
        pass
    with (
        pytest.raises(UserInputError, match=r"made for the model tiny \(weights .*force=True"),
        spec.applied_to(other),
    ):
        pass
    with spec.applied_to(other, force=True):
        pass


def test_a_checkpoint_s_digest_tells_the_model_where_it_is_given() -> None:
    model = tiny_llama()
    spec = make_spec(weights="sha256:of-something-else")
    with spec.applied_to(model, digest="sha256:abc"):
        pass
    with (
        pytest.raises(UserInputError, match=r"\(checkpoint sha256:abc\), this .* sha256:def"),
        spec.applied_to(model, digest="sha256:def"),
    ):
        pass
    with spec.applied_to(model, digest="sha256:def", force=True):
        pass


def test_a_spec_that_knows_no_weights_says_that_only_the_shape_was_checked(caplog) -> None:
    with make_spec().applied_to(tiny_llama(seed=5)):
        assert "only the shape was checked" in caplog.text


def test_a_model_is_steered_again_within_its_own_context() -> None:
    model, ids = tiny_llama().eval(), torch.tensor([[1, 9, 12, 30]])
    spec = make_spec(weights=weights_fingerprint(model), token_scope="all")
    with torch.no_grad(), spec.with_alpha(2 * spec.alpha).applied_to(model):
        expected = model(ids).logits
    with torch.no_grad(), spec.applied_to(model), spec.applied_to(model):
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigmas": torch.ones(2)}, r"scale of shape \[2\], expected 3 rows"),
        (
            {"shape": replace(SHAPE, head_dim=16)},
            r"direction of shape \[12\] for an o_proj input of \[16\]",
        ),
        ({"shape": replace(SHAPE, n_heads=7)}, "is not in 3 layers with 7 heads"),
        ({"shape": replace(SHAPE, n_layers=2)}, "is not in 2 layers with 8 heads"),
        ({"modules": (MODULES[0], MODULES[0], MODULES[1])}, "listed twice"),
        ({"modules": (*MODULES[:2], ModuleId("head", 1))}, r"of shape \[12\] for .* of \[96\]"),
        ({"modules": (*MODULES[:2], ModuleId("layer", 1))}, "modules of the kinds head, layer"),
        ({"modules": tuple(ModuleId("gate", i) for i in range(3))}, "of the kinds gate; exp"),
        ({"modules": tuple(ModuleId("mlp", i, 32) for i in range(3))}, "is not in 3 layers"),
        ({"modules": tuple(ModuleId("mlp", i) for i in range(3))}, r"an MLP of \[32\]"),
        ({"modules": ()}, "lists no module"),
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

    (tmp_path / FACTS_FILE).write_text(json.dumps(facts | {"format_version": 1}))
    refuses("of format 1, this program reads 2 and 3; make it again")
    (tmp_path / FACTS_FILE).write_text(json.dumps(facts | {"shape": {"n_layers": 3}}))
    refuses("is damaged.*n_heads")
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
