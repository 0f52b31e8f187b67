from collections.abc import Callable

import pytest
import torch

from real_tasks.evaluation import gradients
from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.evaluation.model_handle import ModelHandle
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.models.places import output_projections
from real_tasks.reading.prompts import answered_text, prompt_text
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.model_access import Text
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId, ModuleKind
from tests.unit.tiny_models import (
    TINY_FAMILIES,
    random_data,
    random_intervention,
    tiny_family,
    tiny_loaded,
    tiny_tokenizer,
)

DATA = random_data()
KINDS: tuple[ModuleKind, ...] = (
    "head", "attention", "neuron", "mlp", "residual_in", "residual_mid", "layer", "final",
)  # fmt: skip


def texts_of(loaded: LoadedModel, n_questions: int = 4) -> list[Text]:
    return [
        Text(prompt_text(loaded, DATA, question), answered_text(loaded, DATA, question, answer))
        for question in DATA.questions[:n_questions]
        for answer in question.answers
    ]


def pushes(*vectors: torch.Tensor, modules: tuple[ModuleId, ...]) -> Intervention:
    """Each module pushed by its own vector, in an edit of its own."""
    one = torch.ones(1)
    edits = [
        Edit((module,), {"direction": vector[None], "scale": one}, one)
        for module, vector in zip(modules, vectors, strict=True)
    ]
    return Intervention(tuple(edits), 0.7)


def slope(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    """Central differences along every coordinate."""
    found, step = torch.zeros_like(at), 1e-2
    with torch.no_grad():
        for i in range(at.numel()):
            away = torch.zeros_like(at).flatten()
            away[i] = step
            away = away.view_as(at)
            found.view(-1)[i] = (function(at + away) - function(at - away)) / (2 * step)
    return found


def test_log_probabilities_are_those_of_the_evaluation_steered_or_not() -> None:
    loaded = tiny_loaded()
    encoded = encode_choices(loaded, DATA, range(4), 200)
    for intervention in (None, random_intervention(loaded, "all")):
        expected = sum(score_choices(loaded, encoded, intervention), [])
        found = ModelHandle(loaded, 60).log_probs(texts_of(loaded), intervention)
        assert found.tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_push_is_that_of_finite_differences(kind: ModuleKind) -> None:
    loaded = tiny_loaded()
    handle, texts = ModelHandle(loaded, 60), texts_of(loaded)
    unit = 3 if kind in ("head", "neuron") else -1
    module = ModuleId(kind, 0 if kind == "final" else 1, unit)
    generator = torch.Generator().manual_seed(1)
    start = 0.3 * torch.randn(loaded.shape.width(module), generator=generator)
    weights = torch.randn(len(texts), generator=generator)

    def objective(vector: torch.Tensor) -> torch.Tensor:
        steered = pushes(vector, modules=(module,))
        return handle.log_probs(texts, steered) @ weights

    vector = start.clone().requires_grad_()
    objective(vector).backward()
    assert vector.grad is not None and vector.grad.norm() > 0
    expected = slope(objective, start)
    assert (vector.grad - expected).norm() < 0.02 * expected.norm()


def test_gradients_of_operators_that_look_at_activations_are_right_too() -> None:
    loaded = tiny_loaded()
    handle, texts = ModelHandle(loaded, 60), texts_of(loaded)
    operator = OPERATORS.made("affine", {})
    sizes = {"d": 12, "rank": 2}
    shapes = {n: [1, *(sizes[a] for a in axes.split())] for n, axes in operator.needs.items()}
    generator = torch.Generator().manual_seed(0)
    start = {n: 0.3 * torch.randn(s, generator=generator) for n, s in shapes.items()}

    def objective(changed: dict[str, torch.Tensor]) -> torch.Tensor:
        edit = Edit((ModuleId("head", 1, 2),), changed, torch.ones(1), operator, keep_norm=True)
        return handle.log_probs(texts, Intervention((edit,))).sum()

    leaves = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    objective(leaves).backward()
    for name, leaf in leaves.items():
        expected = slope(lambda t, name=name: objective({**start, name: t}), start[name])
        assert leaf.grad is not None
        assert (leaf.grad - expected).norm() < 0.02 * expected.norm() + 1e-3


def test_the_gradient_in_the_embeddings_is_that_of_finite_differences() -> None:
    loaded = tiny_loaded()
    handle, texts = ModelHandle(loaded, 60), texts_of(loaded, 1)[:2]
    embeddings = handle.embeddings(texts)
    plain = handle.log_probs(texts)
    assert torch.allclose(handle.log_probs(texts, embeddings=embeddings), plain, atol=1e-4)
    leaves = [one.clone().requires_grad_() for one in embeddings]
    handle.log_probs(texts, embeddings=leaves)[0].backward()
    expected = slope(
        lambda t: handle.log_probs(texts, embeddings=[t, embeddings[1]])[0], embeddings[0]
    )
    assert (leaves[0].grad - expected).norm() < 0.02 * expected.norm()
    assert not leaves[1].grad.any()


@pytest.mark.parametrize("kind", ["head", "residual_mid", "layer"])
def test_batching_reading_again_and_checkpointing_change_no_gradient(
    kind: ModuleKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tiny_loaded()
    texts, layers = texts_of(loaded), loaded.model.model.layers
    passes = []
    layers[2].self_attn.register_forward_hook(lambda *_: passes.append(1))
    found, counts = [], []
    shape = loaded.shape
    of_a_batch = 60 * shape.n_layers * gradients.KEPT_PER_WIDTH * shape.d_model * 4
    for batch_tokens, kept in ((10_000, 2**40), (60, 2**40), (60, of_a_batch), (60, 0)):
        monkeypatch.setattr(gradients, "KEPT_BYTES", kept)
        vectors = [torch.full((loaded.shape.part_width(kind),), 0.2) for _ in range(2)]
        vectors = [vector.requires_grad_() for vector in vectors]
        modules = (ModuleId(kind, 0), ModuleId(kind, 2))
        passes.clear()
        steered = pushes(*vectors, modules=modules)
        ModelHandle(loaded, batch_tokens).log_probs(texts, steered).sum().backward()
        found.append(torch.cat([vector.grad for vector in vectors]))
        counts.append(len(passes))
    assert counts[0] == 1 and counts[1] > 1
    assert counts[2:] == [2 * counts[1], 3 * counts[1]]
    assert torch.allclose(found[1], found[0], rtol=1e-3, atol=1e-4)
    assert torch.equal(found[2], found[1])
    assert torch.allclose(found[3], found[1], rtol=1e-4, atol=1e-5)
    assert all("forward" not in vars(layer) for layer in layers)


def test_the_model_is_frozen_unhooked_and_bit_identical_afterwards() -> None:
    loaded = tiny_loaded()
    before = {name: weight.clone() for name, weight in loaded.model.named_parameters()}
    vector = torch.zeros(32, requires_grad=True)
    steered = pushes(vector, modules=(ModuleId("layer", 1),))
    ModelHandle(loaded, 60).log_probs(texts_of(loaded), steered).sum().backward()
    assert vector.grad.any()
    for name, weight in loaded.model.named_parameters():
        assert torch.equal(weight, before[name])
        assert weight.grad is None and not weight.requires_grad
    loaded.private_copy()  # refuses what is hooked


def test_a_batch_that_does_not_fit_in_the_backward_pass_is_halved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded, grad = tiny_loaded(), torch.autograd.grad
    texts = texts_of(loaded)
    sizes = []

    def scarce(sums: torch.Tensor, *args: object, **kwargs: object) -> object:
        sizes.append(len(sums))
        if len(sums) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return grad(sums, *args, **kwargs)

    found = []
    for function in (grad, scarce):
        monkeypatch.setattr(torch.autograd, "grad", function)
        vector = torch.zeros(32, requires_grad=True)
        steered = pushes(vector, modules=(ModuleId("layer", 1),))
        ModelHandle(loaded, 10_000).log_probs(texts, steered).sum().backward()
        found.append(vector.grad)
    assert max(sizes) > 3 and torch.allclose(*found, rtol=1e-3, atol=1e-4)


def test_gradients_reach_float32_tensors_through_a_bfloat16_model() -> None:
    plain = tiny_loaded()
    rounded = prepare(tiny_loaded().model.to(torch.bfloat16), tiny_tokenizer())
    found = []
    for loaded in (plain, rounded):
        vector = torch.zeros(32, requires_grad=True)
        steered = pushes(vector, modules=(ModuleId("layer", 2),))
        ModelHandle(loaded, 200).log_probs(texts_of(loaded), steered).sum().backward()
        found.append(vector.grad)
    assert found[1].dtype == torch.float32
    assert torch.cosine_similarity(*found, dim=0) > 0.95


def test_gradients_are_refused_where_torch_keeps_none() -> None:
    loaded = tiny_loaded()
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        ModelHandle(loaded, 60).log_probs(texts_of(loaded))


def test_a_text_without_an_answer_is_an_error_that_names_it() -> None:
    with pytest.raises(UserInputError, match="w1 w2"):
        ModelHandle(tiny_loaded(), 60).log_probs([Text("w1 w2", "w1 w2")])


def test_embeddings_of_another_length_are_an_error() -> None:
    handle = ModelHandle(tiny_loaded(), 60)
    with pytest.raises(UserInputError, match=r"\[3\] positions for texts of \[4\]"):
        handle.log_probs([Text("w1 w2", "w1 w2 w3")], embeddings=[torch.zeros(3, 32)])


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_what_heads_and_neurons_write_is_their_weight_times_their_activation(name: str) -> None:
    loaded = prepare(tiny_family(name), tiny_tokenizer())
    handle, shape = ModelHandle(loaded, 60), loaded.shape
    projection = output_projections(loaded.model)[1]
    z = torch.randn(shape.part_width("head"), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        written = projection(z[None])[0] - projection(torch.zeros_like(z)[None])[0]
    heads = [ModuleId("head", 1, head) for head in range(shape.n_heads)]
    found = sum(handle.weight(head) @ z[shape.span(head)] for head in heads)
    assert torch.allclose(found, written, atol=1e-4)
    whole = handle.weight(ModuleId("attention", 1))
    assert torch.allclose(whole @ z, written, atol=1e-4)
    if shape.d_mlp:
        neuron = handle.weight(ModuleId("neuron", 1, 4))
        assert torch.equal(neuron[:, 0], handle.weight(ModuleId("mlp", 1))[:, 4])
        assert torch.equal(
            handle.weight(ModuleId("mlp", 1, 5)), handle.weight(ModuleId("mlp", 1))[5:6]
        )


def test_a_weight_is_a_copy_and_sites_without_one_are_named() -> None:
    loaded = tiny_loaded()
    handle = ModelHandle(loaded, 60)
    handle.weight(ModuleId("head", 0, 0)).zero_()
    assert handle.weight(ModuleId("head", 0, 0)).any()
    with pytest.raises(UserInputError, match="layer 1 writes by no matrix"):
        handle.weight(ModuleId("layer", 1))
    with pytest.raises(UserInputError, match="no layer 7, head 0"):
        handle.weight(ModuleId("head", 7, 0))


def test_an_offloaded_model_is_refused() -> None:
    loaded = tiny_loaded()
    loaded.model.model.layers[0].mlp.to("meta")
    with pytest.raises(UserInputError, match="device_map"):
        ModelHandle(loaded, 60)


def test_samples_follow_the_models_probabilities() -> None:
    loaded = tiny_loaded()
    (found,) = ModelHandle(loaded, 4000).sample(["w1 w2"], 2000, seed=0, max_new_tokens=1)
    ids = loaded.tokenizer("w1 w2", return_tensors="pt")
    with torch.no_grad():
        expected = loaded.model(**ids).logits[0, -1].softmax(-1)
    words = loaded.tokenizer.convert_ids_to_tokens(range(len(expected)))
    likely = [i for i in expected.argsort(descending=True)[:5].tolist() if words[i][0] != "<"]
    for i in likely:
        share, p = found.count(words[i]) / 2000, float(expected[i])
        assert abs(share - p) < 4 * (p * (1 - p) / 2000) ** 0.5 + 1e-3


def test_a_draw_depends_on_seed_and_place_not_on_its_batch() -> None:
    loaded = tiny_loaded()
    prompts = ["w1 w2", "w3 w4 w5 w6", "w7"]
    together = ModelHandle(loaded, 4000).sample(prompts, 3, seed=1, max_new_tokens=5)
    alone = ModelHandle(loaded, 10).sample(prompts, 3, seed=1, max_new_tokens=5)
    assert alone == together and len({text for row in together for text in row}) > 4
    assert ModelHandle(loaded, 4000).sample(prompts, 3, seed=2, max_new_tokens=5) != together
