import pytest
import torch
from torch import Tensor

from real_tasks.errors import UserInputError
from real_tasks.extraction import check_vocabulary, head_activations
from real_tasks.models import LoadedModel, output_projections, prepare
from tests.unit.tiny_models import (
    random_data,
    random_texts,
    tiny_llama,
    tiny_loaded,
    tiny_qwen2,
    tiny_tokenizer,
)

TEXTS = random_texts(40)


def one_at_a_time(loaded: LoadedModel, texts: list[str]) -> Tensor:
    """What o_proj is given at the last token, text by text, through the whole model."""
    samples = []
    for text in texts:
        kept: list[Tensor] = []
        handles = [
            p.register_forward_hook(lambda _m, args, _out, kept=kept: kept.append(args[0][0, -1]))
            for p in output_projections(loaded.model)
        ]
        with torch.no_grad():
            loaded.model(**loaded.tokenizer(text, return_tensors="pt"))
        for handle in handles:
            handle.remove()
        samples.append(torch.stack(kept).unflatten(-1, (loaded.shape.n_heads, -1)))
    return torch.stack(samples).float()


def no_hooks(loaded: LoadedModel) -> bool:
    return not any(m._forward_pre_hooks or m._forward_hooks for m in loaded.model.modules())


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("model", [tiny_llama, tiny_qwen2])
def test_batched_extraction_equals_one_text_at_a_time(model, padding_side, batch_tokens) -> None:
    loaded = prepare(model(), tiny_tokenizer(padding_side))
    found = head_activations(loaded, TEXTS, batch_tokens)
    shape = loaded.shape
    assert found.shape == (40, shape.n_layers, shape.n_heads, shape.head_dim)
    torch.testing.assert_close(found, one_at_a_time(loaded, TEXTS), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
@pytest.mark.parametrize("model", [tiny_llama, tiny_qwen2])
def test_texts_that_begin_alike_equal_one_text_at_a_time(model, batch_tokens: int) -> None:
    loaded = prepare(model(), tiny_tokenizer())
    data = random_data(10)
    texts = [data.full_text(q, a) for q in data.questions for a in q.answers]
    # A text that is another's beginning, and one that is there twice.
    texts += [" ".join(texts[0].split()[:-3]), texts[5]]
    found = head_activations(loaded, texts, batch_tokens)
    torch.testing.assert_close(found, one_at_a_time(loaded, texts), atol=1e-5, rtol=1e-4)


def test_texts_that_begin_alike_in_a_sliding_window_equal_them_alone() -> None:
    loaded = prepare(tiny_qwen2(sliding_window=4), tiny_tokenizer())
    texts = [f"{TEXTS[0]} {text}" for text in TEXTS[:8]]
    found = head_activations(loaded, texts, 400)
    torch.testing.assert_close(found, one_at_a_time(loaded, texts), atol=1e-5, rtol=1e-4)


def test_a_text_within_a_sliding_window_model_equals_it_alone() -> None:
    loaded = prepare(tiny_qwen2(sliding_window=4), tiny_tokenizer())
    found = head_activations(loaded, TEXTS, 400)
    torch.testing.assert_close(found, one_at_a_time(loaded, TEXTS), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_give_float32_near_the_full_precision(dtype) -> None:
    loaded = tiny_loaded()
    half = prepare(tiny_llama().to(dtype), tiny_tokenizer())
    full = head_activations(loaded, TEXTS, 200)
    found = head_activations(half, TEXTS, 200)
    assert found.dtype == torch.float32
    assert (found - full).norm() < 0.1 * full.norm()


def test_activations_can_be_trained_on() -> None:
    found = head_activations(tiny_loaded(), TEXTS[:4], 200)
    weight = torch.ones(12, requires_grad=True)
    (found * weight).sum().backward()
    assert weight.grad is not None


def test_no_texts_give_no_samples() -> None:
    assert head_activations(tiny_loaded(), [], 200).shape == (0, 3, 8, 12)


def test_the_language_model_head_is_not_run() -> None:
    loaded = tiny_loaded()
    loaded.lm_head.register_forward_pre_hook(lambda *_: pytest.fail("the head was run"))
    head_activations(loaded, TEXTS[:3], 200)


def test_a_planted_activation_is_read_from_its_layer_and_head() -> None:
    loaded = tiny_loaded()
    planted = torch.arange(12.0)

    def plant(_module: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values = args[0].clone()
        values[..., 5 * 12 : 6 * 12] = planted
        return (values,)

    output_projections(loaded.model)[1].register_forward_pre_hook(plant)
    found = head_activations(loaded, TEXTS[:3], 200)
    assert torch.equal(found[:, 1, 5], planted.expand(3, -1))


def test_hooks_are_gone_after_a_run_and_after_an_error() -> None:
    loaded = tiny_loaded()
    head_activations(loaded, TEXTS[:3], 200)
    assert no_hooks(loaded)
    loaded.decoder.forward = lambda **_: (_ for _ in ()).throw(KeyError("broken"))
    with pytest.raises(KeyError, match="broken"):
        head_activations(loaded, TEXTS[:3], 200)
    assert no_hooks(loaded)


def test_not_finite_activations_name_the_layer_and_the_texts() -> None:
    loaded = tiny_loaded()
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[8 + 59] = float("inf")
    with pytest.raises(
        UserInputError, match=r"from layer 0 on, for 1 of the texts of a batch: 'w1 w59';"
    ):
        head_activations(loaded, ["w1 w2", "w1 w59", "w3 w4"], 200)


def test_texts_beyond_the_positions_are_refused_not_cut() -> None:
    long = " ".join(["w1"] * 128)
    with pytest.raises(UserInputError, match="1 of 2 texts are longer than the model's 128"):
        head_activations(tiny_loaded(), ["w1", long], 200)


def test_unknown_words_are_named() -> None:
    loaded = tiny_loaded()
    check_vocabulary(loaded, TEXTS)
    check_vocabulary(loaded, [])
    with pytest.raises(UserInputError, match=r"2 of 3 texts .*'Paris', 'zebra'"):
        check_vocabulary(loaded, ["w1", "w2 Paris w3", "zebra Paris"])


def test_a_tokenizer_without_an_unknown_token_knows_every_word() -> None:
    loaded = tiny_loaded()
    loaded.tokenizer.unk_token = None
    check_vocabulary(loaded, ["w1 Paris"])
