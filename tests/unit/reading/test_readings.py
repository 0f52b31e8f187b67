"""Every part is read at any tokens of a text as a plain loop over single texts reads it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from real_tasks.models.chat import ChatFormat
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.models.places import places
from real_tasks.reading.activations import activations_at, activations_at_last_token
from real_tasks.reading.batches import encode
from real_tasks.reading.positions_read import marked_tokens, positions_read
from real_tasks.reading.prompts import reading_text
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Answer, ModuleKind, Question, Reading
from tests.unit.tiny_models import (
    random_data,
    random_texts,
    tiny_llama,
    tiny_loaded,
    tiny_qwen2,
    tiny_tokenizer,
)

DATA = random_data(6)
SAMPLES = [(q, a) for q in DATA.questions for a in q.answers]
TEXTS = [DATA.full_text(q, a) for q, a in SAMPLES]
READINGS: tuple[Reading, ...] = ("last", "prompt_end", "answer_mean", "prompt_mean", "text_mean")
KINDS: tuple[ModuleKind, ...] = get_args(ModuleKind)
CHAT = (
    "{% for m in messages %}{{ ('w50 ' if m['role'] == 'user' else 'w52 ') + m['content'] }}"
    "{{ ' w51 ' if m['role'] == 'user' else '' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'w52 ' }}{% endif %}"
)


def chatting(loaded: LoadedModel) -> LoadedModel:
    loaded.tokenizer.chat_template = CHAT
    return replace(loaded, chat=ChatFormat())


def places_by_words(question: Question, answer: Answer, chat: bool, reading: Reading) -> list[int]:
    """The tokens by counting words: the tiny tokenizer makes one of each, after one bos.

    In a chat there is no bos, and the first word is the one that means leave out.
    """
    prompt = (0 if chat else 1) + len(question.text.split()) + (3 if chat else 2)
    whole = prompt + len(answer.text.split())
    return {
        "last": [whole - 1],
        "prompt_end": [prompt - 1],
        "answer_mean": list(range(prompt, whole)),
        "prompt_mean": list(range(1, prompt)),
        "text_mean": list(range(1, whole)),
    }[reading]


@torch.no_grad()
def one_at_a_time(
    loaded: LoadedModel, texts: Sequence[str], wanted: Sequence[Sequence[int]], kind: ModuleKind
) -> Tensor:
    """The mean at some tokens, text by text, `[sample, layer, number of the part]`."""
    samples = []
    for text, tokens in zip(texts, wanted, strict=True):
        kept: list[Tensor] = []

        def keep(values: Tensor, kept: list[Tensor] = kept) -> None:
            kept.append(values[0])

        handles = [place.hook(keep) for place in places(loaded.model, kind)]
        loaded.model(torch.tensor(encode(loaded, [text])))
        for handle in handles:
            handle.remove()
        means = [sum(values[t].double() for t in tokens) / len(tokens) for values in kept]
        samples.append(torch.stack([torch.as_tensor(mean) for mean in means]).float())
    return torch.stack(samples)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("reading", READINGS)
def test_the_tokens_read_are_those_of_prompt_or_answer(reading: Reading, chat: bool) -> None:
    loaded = chatting(tiny_loaded()) if chat else tiny_loaded()
    found = positions_read(loaded, DATA, SAMPLES, reading)
    expected = [places_by_words(q, a, chat, reading) for q, a in SAMPLES]
    assert [list(places) for places in found] == expected


@pytest.mark.parametrize("batch_tokens", [40, 100_000])
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    "model",
    [tiny_llama, tiny_qwen2, lambda: tiny_qwen2(sliding_window=4)],
    ids=["llama", "qwen2", "sliding"],
)
def test_shared_rows_and_padding_change_no_number(
    model: Any, reading: Reading, batch_tokens: int
) -> None:
    loaded = prepare(model(), tiny_tokenizer())
    wanted = [places_by_words(q, a, False, reading) for q, a in SAMPLES]
    expected = one_at_a_time(loaded, TEXTS, wanted, "layer")
    found = activations_at(
        loaded, TEXTS, positions_read(loaded, DATA, SAMPLES, reading), batch_tokens, "layer"
    )
    torch.testing.assert_close(found[:, :, 0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_is_read_at_one_token_and_over_several(kind: ModuleKind) -> None:
    loaded, shape = tiny_loaded(), tiny_loaded().shape
    size = (len(TEXTS), shape.n_layers_of(kind), shape.modules_per_layer(kind), shape.width(kind))
    ends = [[1 + len(text.split()) - 1] for text in TEXTS]
    found = activations_at_last_token(loaded, TEXTS, 200, kind)
    assert found.shape == size
    expected = one_at_a_time(loaded, TEXTS, ends, kind)
    torch.testing.assert_close(found.flatten(2), expected, atol=1e-5, rtol=1e-4)
    wanted = [places_by_words(q, a, False, "answer_mean") for q, a in SAMPLES]
    found = activations_at(loaded, TEXTS, wanted, 200, kind)
    expected = one_at_a_time(loaded, TEXTS, wanted, kind)
    torch.testing.assert_close(found.flatten(2), expected, atol=1e-5, rtol=1e-4)


def test_a_mean_over_one_token_each_is_what_is_read_there_bit_for_bit() -> None:
    loaded = tiny_loaded()
    last = [[len(ids) - 1] for ids in encode(loaded, TEXTS)]
    plain = activations_at_last_token(loaded, TEXTS, 200, "layer")
    assert torch.equal(activations_at(loaded, TEXTS, last, 200, "layer"), plain)


def test_half_precision_means_are_taken_in_full_precision() -> None:
    loaded = prepare(tiny_llama().to(torch.bfloat16), tiny_tokenizer())
    texts = random_texts(8)  # without common beginnings, so that each stands alone here, too
    wanted = [list(range(1, 1 + len(text.split()))) for text in texts]
    found = activations_at(loaded, texts, wanted, 1, "layer")[:, :, 0]
    expected = one_at_a_time(loaded, texts, wanted, "layer")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_marked_places_are_the_tokens_that_have_a_character_in_them() -> None:
    loaded, text = tiny_loaded(), "w1 w22 w3 w44 w5"
    assert marked_tokens(loaded, text, [(3, 6)]) == [2]
    assert marked_tokens(loaded, text, [(5, 8)]) == [2, 3]
    assert marked_tokens(loaded, text, [(14, 16), (0, 1)]) == [1, 5]
    assert marked_tokens(loaded, text, [(0, len(text))]) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("chat", [False, True])
def test_marked_places_are_read_as_one_text_at_a_time(chat: bool) -> None:
    loaded = chatting(tiny_loaded()) if chat else tiny_loaded()
    texts = [reading_text(loaded, DATA, q, a) for q, a in SAMPLES]
    spans = [[(0, 2), (text.rindex(" ", 0, -2), len(text))] for text in texts]
    # The first word, and the last two with the full stop.
    first = 0 if chat else 1
    wanted = [[first, *(first + len(t.split()) - n for n in (2, 1))] for t in texts]
    found = positions_read(loaded, DATA, SAMPLES, "marked", spans)
    assert [list(one) for one in found] == wanted
    read = activations_at(loaded, texts, found, 100, "residual_mid")[:, :, 0]
    expected = one_at_a_time(loaded, texts, wanted, "residual_mid")
    torch.testing.assert_close(read, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([], "no marked place"),
        ([(2, 3)], "no token in the marked place 2 to 3"),
        ([(3, 99)], "from 0 up to 16"),
        ([(6, 3)], "no token in the marked place 6 to 3"),
    ],
)
def test_places_without_a_token_are_refused(spans: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        marked_tokens(tiny_loaded(), "w1 w22 w3 w44 w5", spans)


def test_data_without_marks_cannot_be_read_at_them() -> None:
    with pytest.raises(UserInputError, match="the data mark none"):
        positions_read(tiny_loaded(), DATA, SAMPLES, "marked")
