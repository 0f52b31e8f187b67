"""Every family of `FAMILIES`, on a tiny random model of its own class."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.evaluation.answers.greedy import generate_answers
from real_tasks.models.families import FAMILIES, configured_shape
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.models.places import model_shape, output_projections, projection_weight, sites
from real_tasks.reading.activations import activations_at_last_token
from real_tasks.reading.batches import encode, pad
from real_tasks.reading.shared_rows import may_share
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.types import ModuleKind, TokenScope
from tests.unit.tiny_models import (
    TINY_FAMILIES,
    random_data,
    random_texts,
    tiny_family,
    tiny_tokenizer,
    vectors_of,
)

DATA = replace(random_data(4), stop=())
TEXTS = [*random_texts(6), *(DATA.full_text(q, a) for q in DATA.questions for a in q.answers)]
KINDS: tuple[ModuleKind, ...] = ("head", "layer", "mlp")

every_family = pytest.mark.parametrize("name", TINY_FAMILIES)


@cache
def loaded_family(name: str, dtype: torch.dtype = torch.float32, **changes: Any) -> LoadedModel:
    return prepare(tiny_family(name, dtype=dtype, **changes), tiny_tokenizer())


def attention_blocks(loaded: LoadedModel) -> list[nn.Module]:
    """The modules that hold the output projections."""
    parent = loaded.family.o_proj.rpartition(".")[0]
    return [layer.get_submodule(parent) for layer in sites(loaded.model, "layer")]


@contextmanager
def outputs_of(modules: Sequence[nn.Module]) -> Iterator[dict[int, Tensor]]:
    kept: dict[int, Tensor] = {}

    def keep(index: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            kept[index] = output[0] if isinstance(output, tuple) else output

        return hook

    with ExitStack() as hooks:
        for index, module in enumerate(modules):
            hooks.callback(module.register_forward_hook(keep(index)).remove)
        yield kept


@torch.no_grad()
def alone(loaded: LoadedModel, texts: Sequence[str], modules: Sequence[nn.Module]) -> Tensor:
    """What modules put out at the last token, text by text, through the whole model."""
    rows = []
    for text in texts:
        with outputs_of(modules) as kept:
            loaded.model(torch.tensor(encode(loaded, [text])))
        rows.append(torch.stack([kept[i][0, -1] for i in range(len(modules))]))
    return torch.stack(rows).float()


def displacements(
    loaded: LoadedModel, kind: ModuleKind, scope: TokenScope, scale: float = 0.5
) -> Intervention:
    draw = torch.Generator().manual_seed(1)
    shape = loaded.shape
    width = shape.modules_per_layer(kind) * shape.width(kind)
    steered = {layer: scale * torch.randn(width, generator=draw) for layer in (0, 1)}
    return Intervention.adding(steered, scope, kind)


def padded(loaded: LoadedModel, texts: Sequence[str], side: Any) -> dict[str, Tensor]:
    batch = pad(loaded, encode(loaded, texts), side)
    positions = (batch.mask.cumsum(1) - 1).clamp(min=0)
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.mask.long(),
        "position_ids": positions,
    }


def test_the_tests_hold_for_every_row_of_the_table() -> None:
    assert set(TINY_FAMILIES) == set(FAMILIES)


@every_family
def test_the_configuration_tells_the_shape_of_the_model(name: str) -> None:
    loaded = loaded_family(name)
    assert configured_shape(loaded.model.config) == loaded.shape
    for projection in output_projections(loaded.model):
        width = loaded.shape.n_heads * loaded.shape.head_dim
        assert projection_weight(projection).shape == (loaded.shape.d_model, width)
    assert loaded.max_positions == 128


@every_family
@torch.no_grad()
def test_the_decoder_and_what_follows_it_are_the_model(name: str) -> None:
    loaded = loaded_family(name)
    inputs = padded(loaded, TEXTS[:4], "right")
    ours = loaded.logits(loaded.hidden_states(**inputs))
    torch.testing.assert_close(ours, loaded.model(**inputs).logits)


@every_family
def test_head_activations_through_the_projection_are_the_attention_s_output(name: str) -> None:
    loaded = loaded_family(name)
    heads = activations_at_last_token(loaded, TEXTS, 200, "head").flatten(2)
    expected = alone(loaded, TEXTS, attention_blocks(loaded))
    for layer, projection in enumerate(output_projections(loaded.model)):
        bias = getattr(projection, "bias", None)
        written = heads[:, layer] @ projection_weight(projection).T
        written = written if bias is None else written + bias
        torch.testing.assert_close(written, expected[:, layer], atol=2e-5, rtol=1e-3)


@every_family
@torch.no_grad()
def test_layers_are_the_hidden_states_and_mlps_what_the_blocks_put_out(name: str) -> None:
    loaded = loaded_family(name)
    layers = activations_at_last_token(loaded, TEXTS[:8], 200, "layer")[:, :, 0]
    for text, found in zip(TEXTS[:8], layers, strict=True):
        ids = torch.tensor(encode(loaded, [text]))
        states = loaded.model(ids, output_hidden_states=True).hidden_states
        # The last of these is normalised.
        for layer in range(loaded.shape.n_layers - 1):
            torch.testing.assert_close(found[layer], states[layer + 1][0, -1], atol=1e-5, rtol=1e-3)
    for kind in ("layer", "mlp"):
        found = activations_at_last_token(loaded, TEXTS, 200, kind)[:, :, 0]
        expected = alone(loaded, TEXTS, sites(loaded.model, kind))
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-3)


@every_family
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_on_either_side_gives_what_a_text_gives_alone(name: str, side: str) -> None:
    loaded = loaded_family(name)
    inputs = padded(loaded, TEXTS[:6], side)
    places = inputs["attention_mask"].sum(1) - 1 if side == "right" else torch.full((6,), -1)
    blocks = attention_blocks(loaded)
    with outputs_of(blocks) as kept:
        loaded.hidden_states(**inputs)
    expected = alone(loaded, TEXTS[:6], blocks)
    for layer in range(len(blocks)):
        found = kept[layer][torch.arange(6), places]
        torch.testing.assert_close(found, expected[:, layer], atol=2e-5, rtol=1e-3)


@every_family
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_runs_and_is_near_the_full(name: str, kind: ModuleKind) -> None:
    full = activations_at_last_token(loaded_family(name), TEXTS, 200, kind)
    for dtype, tolerance in ((torch.bfloat16, 0.06), (torch.float16, 0.01)):
        half = activations_at_last_token(loaded_family(name, dtype), TEXTS, 200, kind)
        assert (half - full).norm() < tolerance * full.norm()


@every_family
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_answers_score_near_the_full(name: str, dtype: torch.dtype) -> None:
    scores = []
    for loaded in (loaded_family(name), loaded_family(name, dtype)):
        encoded = encode_choices(loaded, DATA, range(4), 100)
        iv = displacements(loaded, "head", "all")
        flat = [score for row in score_choices(loaded, encoded, iv) for score in row]
        scores.append(torch.tensor(flat))
        assert generate_answers(loaded, DATA, [0, 1], iv, 3, 1000)
    assert (scores[1] - scores[0]).norm() < 0.05 * scores[0].norm()


@contextmanager
def steered_by_hand(loaded: LoadedModel, iv: Intervention) -> Iterator[None]:
    """Add what a displacement comes to, elsewhere than where `applied` adds it."""

    def to_output(vector: Tensor) -> Any:
        return lambda _module, _args, output: output + vector

    def to_input(vector: Tensor) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (args[0] + vector, *args[1:]), kwargs
            return args, kwargs | {"hidden_states": kwargs["hidden_states"] + vector}

        return hook

    with ExitStack() as hooks:
        for layer, displacement in vectors_of(iv, loaded.shape).items():
            site = sites(loaded.model, iv.edits[0].kind)[layer]
            if iv.edits[0].kind == "head":
                moved = projection_weight(site) @ displacement
                handle = site.register_forward_hook(to_output(moved))
            elif iv.edits[0].kind == "layer":
                following = sites(loaded.model, "layer")[layer + 1]
                hook = to_input(displacement)
                handle = following.register_forward_pre_hook(hook, with_kwargs=True)
            else:
                handle = site.register_forward_hook(to_output(displacement))
            hooks.callback(handle.remove)
        yield


@every_family
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_steering_changes_the_logits_as_computed_by_hand(name: str, kind: ModuleKind) -> None:
    loaded = loaded_family(name)
    iv = displacements(loaded, kind, "all")
    inputs = padded(loaded, TEXTS[:4], "right")
    plain = loaded.model(**inputs).logits
    with applied(loaded, iv):
        found = loaded.model(**inputs).logits
        ours = loaded.logits(loaded.hidden_states(**inputs))
    with steered_by_hand(loaded, iv):
        expected = loaded.model(**inputs).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-3)
    assert (found - plain).norm() > 0.05 * plain.norm()


@every_family
@pytest.mark.parametrize("scope", ["all", "generated", "last"])
def test_generation_is_the_same_with_and_without_a_cache(name: str, scope: TokenScope) -> None:
    loaded = loaded_family(name)
    inputs = padded(loaded, TEXTS[:4], "left")
    del inputs["position_ids"]
    with applied(loaded, displacements(loaded, "head", scope)):
        cached, uncached = (
            loaded.model.generate(**inputs, max_new_tokens=8, do_sample=False, use_cache=use)
            for use in (True, False)
        )
    assert torch.equal(cached, uncached)


@every_family
@pytest.mark.parametrize("steered", [False, True])
def test_our_greedy_answers_are_the_library_s(name: str, steered: bool) -> None:
    loaded = loaded_family(name)
    iv = displacements(loaded, "head", "generated") if steered else None
    found = generate_answers(loaded, DATA, range(4), iv, 10, 1000)
    for question, answer in zip(DATA.questions, found, strict=True):
        ids = torch.tensor(encode(loaded, [DATA.context(question)]))
        with applied(loaded, iv):
            out = loaded.model.generate(ids, max_new_tokens=10, do_sample=False)
        assert answer == loaded.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@torch.no_grad()
def scored_alone(loaded: LoadedModel, iv: Intervention) -> list[list[float]]:
    scores = []
    for question in DATA.questions:
        n_context = len(encode(loaded, [DATA.context(question)])[0])
        row = []
        for answer in question.answers:
            (ids,) = encode(loaded, [DATA.full_text(question, answer)])
            with applied(loaded, iv, torch.tensor([n_context])):
                log_probs = loaded.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
            places = range(n_context, len(ids))
            row.append(sum(float(log_probs[p - 1, ids[p]]) for p in places))
        scores.append(row)
    return scores


@every_family
@pytest.mark.parametrize("scope", ["all", "generated"])
def test_scores_of_answers_are_those_of_each_alone(name: str, scope: TokenScope) -> None:
    loaded = loaded_family(name)
    iv = displacements(loaded, "head", scope)
    found = score_choices(loaded, encode_choices(loaded, DATA, range(4), 150), iv)
    for row, expected in zip(found, scored_alone(loaded, iv), strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-3)


@every_family
def test_a_private_copy_keeps_tied_weights_tied_and_is_steered_alone(name: str) -> None:
    loaded = loaded_family(name)
    copy = loaded.private_copy()
    tied = loaded.lm_head.get_parameter("weight") is loaded.model.get_input_embeddings().weight
    assert tied == (
        copy.lm_head.get_parameter("weight") is copy.model.get_input_embeddings().weight
    )
    ids = torch.tensor(encode(loaded, TEXTS[:1]))
    before = loaded.model(ids).logits
    with applied(copy, displacements(copy, "head", "all")):
        assert torch.equal(loaded.model(ids).logits, before)
        assert not torch.allclose(copy.model(ids).logits, before, atol=1e-3)
    assert torch.equal(copy.model(ids).logits, before)


WINDOWED = (
    *("cohere2", "gemma2", "gemma3", "gemma3_text"),
    *("ministral", "mistral", "olmo3", "phi3", "qwen2"),
)


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_texts_share_rows_unless_a_window_would_cut_them(name: str) -> None:
    loaded = loaded_family(name)
    assert may_share(loaded, 7)
    assert may_share(loaded, 8) == (name not in WINDOWED)


@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_that_does_not_cut_leaves_shared_rows_exact(name: str) -> None:
    loaded = loaded_family(name, sliding_window=64)
    encoded = encode_choices(loaded, DATA, range(4), 150)
    assert all(batch.rows.shares for batch in encoded.batches)
    iv = displacements(loaded, "head", "all")
    for row, expected in zip(
        score_choices(loaded, encoded, iv), scored_alone(loaded, iv), strict=True
    ):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", WINDOWED)
@torch.no_grad()
def test_the_windows_of_these_tests_do_cut(name: str) -> None:
    ids = torch.tensor(encode(loaded_family(name), [" ".join(f"w{i}" for i in range(20))]))
    narrow, wide = (
        loaded_family(name, **w).model(ids).logits for w in ({}, {"sliding_window": 64})
    )
    torch.testing.assert_close(narrow[:, :7], wide[:, :7])
    assert not torch.allclose(narrow[:, -1], wide[:, -1], atol=1e-3)


@torch.no_grad()
def test_the_eager_attention_of_gemma_2_caps_its_scores() -> None:
    ids = torch.tensor(encode(loaded_family("gemma2"), TEXTS[:1]))
    capped, free = (
        loaded_family("gemma2", attn_logit_softcapping=cap).model(ids).logits for cap in (2.0, 1e6)
    )
    assert not torch.allclose(capped, free, atol=1e-3)


def test_the_shape_of_a_model_with_packed_weights_is_that_of_its_projections() -> None:
    model = tiny_family("llama")
    expected = model_shape(model)
    for projection in output_projections(model):
        packed = torch.zeros(7, 1, dtype=torch.uint8)
        projection.weight = torch.nn.Parameter(packed, requires_grad=False)
    assert model_shape(model) == expected
