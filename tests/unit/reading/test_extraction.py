import pytest
import torch
from torch import Tensor

from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.models.places import output_projections
from real_tasks.reading.activations import activations_at_last_token, check_vocabulary
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleKind
from tests.unit.tiny_models import (
    random_data,
    random_texts,
    tiny_llama,
    tiny_loaded,
    tiny_qwen2,
    tiny_tokenizer,
)
from tests.unit.tuple_outputs import puts_out_tuples

TEXTS = random_texts(40)
KINDS: tuple[ModuleKind, ...] = ("head", "layer", "mlp")


def one_at_a_time(loaded: LoadedModel, texts: list[str], kind: ModuleKind = "head") -> Tensor:
    """What the modules write at the last token, text by text, through the whole model."""
    samples = []
    for text in texts:
        kept: list[Tensor] = []

        def keep(_module: object, args: tuple, output: Tensor, kept: list = kept) -> None:
            kept.append(args[0][0, -1] if kind == "head" else output[0, -1])

        blocks = loaded.model.model.layers
        sites = {
            "head": [block.self_attn.o_proj for block in blocks],
            "layer": list(blocks),
            "mlp": [block.mlp for block in blocks],
        }
        handles = [site.register_forward_hook(keep) for site in sites[kind]]
        with torch.no_grad():
            loaded.model(**loaded.tokenizer(text, return_tensors="pt"))
        for handle in handles:
            handle.remove()
        n_modules = loaded.shape.n_heads if kind == "head" else 1
        samples.append(torch.stack(kept).unflatten(-1, (n_modules, -1)))
    return torch.stack(samples).float()


def no_hooks(loaded: LoadedModel) -> bool:
    return not any(m._forward_pre_hooks or m._forward_hooks for m in loaded.model.modules())


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", [tiny_llama, tiny_qwen2])
def test_batched_extraction_equals_one_text_at_a_time(
    model, kind: ModuleKind, padding_side, batch_tokens
) -> None:
    loaded = prepare(model(), tiny_tokenizer(padding_side))
    found = activations_at_last_token(loaded, TEXTS, batch_tokens, kind)
    shape = loaded.shape
    one_a_layer = (1, shape.d_model)
    expected = (shape.n_heads, shape.head_dim) if kind == "head" else one_a_layer
    assert found.shape == (40, shape.n_layers, *expected)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, one_at_a_time(loaded, TEXTS, kind), atol=1e-5, rtol=1e-4)


def test_layers_are_the_hidden_states_that_the_library_gives_out() -> None:
    loaded = tiny_loaded()
    found = activations_at_last_token(loaded, TEXTS, 200, "layer")
    for sample, text in enumerate(TEXTS):
        with torch.no_grad():
            encoded = loaded.tokenizer(text, return_tensors="pt")
            states = loaded.model(**encoded, output_hidden_states=True).hidden_states
        # The library's last one has gone through the final norm; the others start with embeddings.
        plain = [state[0, -1] for state in states[1:-1]]
        torch.testing.assert_close(found[sample, :-1, 0], torch.stack(plain), atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            normed = loaded.decoder.norm(found[sample, -1, 0])
        torch.testing.assert_close(normed, states[-1][0, -1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["layer", "mlp"])
def test_parts_that_put_out_tuples_are_read_like_those_with_a_tensor(kind: ModuleKind) -> None:
    loaded = tiny_loaded()
    expected = one_at_a_time(loaded, TEXTS[:5], kind)
    for block in loaded.model.model.layers:
        puts_out_tuples(block if kind == "layer" else block.mlp)
    found = activations_at_last_token(loaded, TEXTS[:5], 200, kind)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_little_memory_changes_nothing_but_the_size_of_batches(kind: ModuleKind, caplog) -> None:
    data = random_data(10)
    texts = [*TEXTS, *(data.full_text(q, a) for q in data.questions for a in q.answers)]
    expected = activations_at_last_token(tiny_loaded(), texts, 100_000, kind)
    loaded, sizes = tiny_loaded(), []

    def runs_out(_module: object, _args: object, kwargs: dict) -> None:
        sizes.append(kwargs["input_ids"].numel())
        if sizes[-1] > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")

    loaded.decoder.register_forward_pre_hook(runs_out, with_kwargs=True)
    found = activations_at_last_token(loaded, texts, 100_000, kind)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert min(sizes) <= 100 < max(sizes)
    assert "activations: out of memory" in caplog.text


def test_a_text_that_does_not_fit_the_memory_alone_is_refused() -> None:
    loaded = tiny_loaded()

    def runs_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    loaded.decoder.register_forward_pre_hook(runs_out)
    with pytest.raises(UserInputError, match="does not fit the memory of cpu even alone"):
        activations_at_last_token(loaded, TEXTS[:4], 200)


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", [tiny_llama, tiny_qwen2])
def test_texts_that_begin_alike_equal_one_text_at_a_time(
    model, kind: ModuleKind, batch_tokens: int
) -> None:
    loaded = prepare(model(), tiny_tokenizer())
    data = random_data(10)
    texts = [data.full_text(q, a) for q in data.questions for a in q.answers]
    # A text that is another's beginning, and one that is there twice.
    texts += [" ".join(texts[0].split()[:-3]), texts[5]]
    found = activations_at_last_token(loaded, texts, batch_tokens, kind)
    torch.testing.assert_close(found, one_at_a_time(loaded, texts, kind), atol=1e-5, rtol=1e-4)


def test_texts_that_begin_alike_in_a_sliding_window_equal_them_alone() -> None:
    loaded = prepare(tiny_qwen2(sliding_window=4), tiny_tokenizer())
    texts = [f"{TEXTS[0]} {text}" for text in TEXTS[:8]]
    found = activations_at_last_token(loaded, texts, 400)
    torch.testing.assert_close(found, one_at_a_time(loaded, texts), atol=1e-5, rtol=1e-4)


def test_a_text_within_a_sliding_window_model_equals_it_alone() -> None:
    loaded = prepare(tiny_qwen2(sliding_window=4), tiny_tokenizer())
    found = activations_at_last_token(loaded, TEXTS, 400)
    torch.testing.assert_close(found, one_at_a_time(loaded, TEXTS), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_give_float32_near_the_full_precision(dtype) -> None:
    loaded = tiny_loaded()
    half = prepare(tiny_llama().to(dtype), tiny_tokenizer())
    full = activations_at_last_token(loaded, TEXTS, 200)
    found = activations_at_last_token(half, TEXTS, 200)
    assert found.dtype == torch.float32
    assert (found - full).norm() < 0.1 * full.norm()


def test_activations_can_be_trained_on() -> None:
    found = activations_at_last_token(tiny_loaded(), TEXTS[:4], 200)
    weight = torch.ones(12, requires_grad=True)
    (found * weight).sum().backward()
    assert weight.grad is not None


def test_no_texts_give_no_samples() -> None:
    assert activations_at_last_token(tiny_loaded(), [], 200).shape == (0, 3, 8, 12)
    assert activations_at_last_token(tiny_loaded(), [], 200, "mlp").shape == (0, 3, 1, 32)


def test_the_language_model_head_is_run_for_one_position_of_a_batch() -> None:
    loaded, seen = tiny_loaded(), []
    loaded.lm_head.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    activations_at_last_token(loaded, TEXTS[:3], 200)
    assert seen == [(1, 32)]


def test_a_planted_activation_is_read_from_its_layer_and_head() -> None:
    loaded = tiny_loaded()
    planted = torch.arange(12.0)

    def plant(_module: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values = args[0].clone()
        values[..., 5 * 12 : 6 * 12] = planted
        return (values,)

    output_projections(loaded.model)[1].register_forward_pre_hook(plant)
    found = activations_at_last_token(loaded, TEXTS[:3], 200)
    assert torch.equal(found[:, 1, 5], planted.expand(3, -1))


@pytest.mark.parametrize("kind", ["layer", "mlp"])
def test_a_planted_output_is_read_from_its_layer(kind: ModuleKind) -> None:
    loaded = tiny_loaded()
    planted = torch.arange(32.0)
    block = loaded.model.model.layers[1]
    site = block if kind == "layer" else block.mlp
    site.register_forward_hook(lambda _m, _args, output: planted.expand_as(output))
    found = activations_at_last_token(loaded, TEXTS[:3], 200, kind)
    assert torch.equal(found[:, 1, 0], planted.expand(3, -1))
    assert not torch.equal(found[:, 0, 0], found[:, 1, 0])
    assert not torch.equal(found[:, 2, 0], found[:, 1, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_are_gone_after_a_run_and_after_an_error(kind: ModuleKind) -> None:
    loaded = tiny_loaded()
    activations_at_last_token(loaded, TEXTS[:3], 200, kind)
    assert no_hooks(loaded)
    loaded.decoder.forward = lambda **_: (_ for _ in ()).throw(KeyError("broken"))
    with pytest.raises(KeyError, match="broken"):
        activations_at_last_token(loaded, TEXTS[:3], 200, kind)
    assert no_hooks(loaded)


@pytest.mark.parametrize("kind", KINDS)
def test_not_finite_activations_name_the_layer_and_the_texts(kind: ModuleKind) -> None:
    loaded = tiny_loaded()
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[8 + 59] = float("inf")
    with pytest.raises(
        UserInputError, match=r"from layer 0 on, for 1 of the texts of a batch: 'w1 w59';"
    ):
        activations_at_last_token(loaded, ["w1 w2", "w1 w59", "w3 w4"], 200, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_whose_weights_are_elsewhere_until_needed_gives_the_same(kind: ModuleKind) -> None:
    accelerate = pytest.importorskip("accelerate", reason="comes with the extra 'large'")
    expected = activations_at_last_token(tiny_loaded(), TEXTS, 200, kind)
    loaded = tiny_loaded()
    accelerate.cpu_offload(loaded.model, execution_device=torch.device("cpu"))
    assert next(loaded.model.parameters()).is_meta
    found = activations_at_last_token(loaded, TEXTS, 200, kind)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_texts_beyond_the_positions_are_refused_not_cut() -> None:
    long = " ".join(["w1"] * 128)
    with pytest.raises(UserInputError, match="1 of 2 texts are longer than the model's 128"):
        activations_at_last_token(tiny_loaded(), ["w1", long], 200)


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
