"""Texts that grow token by token: whole characters, up to the first stop string."""

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from real_tasks.serving.engine import Engine
from real_tasks.serving.generations import Sampling
from real_tasks.serving.texts import GrowingText, UpToStop, token_bytes
from tests.unit.serving.served import Asked, expected, prompts
from tests.unit.tiny_models import tiny_loaded, tiny_tokenizer


def a_token_a_byte() -> PreTrainedTokenizerFast:
    words = {char: n for n, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_no_piece_cuts_a_character() -> None:
    tokenizer, text = a_token_a_byte(), "né ✓日本 🙂!"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode())
    growing = GrowingText(tokenizer)
    assert [piece for piece in map(growing.push, ids) if piece] == list(text)


def test_bytes_that_never_become_a_character_are_told_at_the_end() -> None:
    tokenizer = a_token_a_byte()
    growing = GrowingText(tokenizer)
    first, second, *_ = tokenizer("🙂")["input_ids"]
    assert [growing.push(first), growing.push(second), growing.end()] == ["", "", "\ufffd"]


def test_the_bytes_of_tokens_are_those_of_the_text() -> None:
    tokenizer, text = a_token_a_byte(), "\x00\t né ✓🙂\xad"
    ids = tokenizer(text)["input_ids"]
    assert b"".join(map(token_bytes(tokenizer), ids)) == text.encode()
    assert token_bytes(tiny_tokenizer())(10) == b"w2"


@pytest.mark.parametrize("cut", [1, 2, 3, 7])
def test_a_stop_string_is_found_across_pieces_and_nothing_of_it_is_shown(cut: int) -> None:
    text, shown = "one two <end> three", UpToStop(["<END>", "<end>", "three"])
    pieces = [text[n : n + cut] for n in range(0, len(text), cut)]
    told = ""
    for piece in pieces:
        said, stopped = shown.push(piece)
        told += said
        if stopped:
            break
    assert (told, stopped) == ("one two ", True)


def test_what_only_looked_like_a_stop_string_is_shown_in_the_end() -> None:
    shown = UpToStop(["aab"])
    assert [shown.push(char) for char in "xaaa"] == [
        ("x", False), ("", False), ("", False), ("a", False)
    ]  # fmt: skip
    assert shown.end() == "aa"


def test_generation_ends_before_a_stop_string_of_several_tokens() -> None:
    loaded, prompt = tiny_loaded(), prompts(1)[0]
    new, log_probs = expected(loaded, prompt, None, 10)
    words = loaded.tokenizer.decode(new).split()
    with Engine(loaded).running() as engine:
        asked = Asked(prompt, Sampling(10, stop=("nowhere", " ".join(words[4:6])), alternatives=2))
        engine.submit([asked.generation])
        pieces = asked.all()
    assert "".join(piece.text for piece in pieces) == " ".join(words[:4]) + " "
    assert (pieces[-1].finish, pieces[-1].n_tokens) == ("stop", 6)
    scores = [score for piece in pieces for score in piece.scores]
    assert [score.log_prob for score in scores] == pytest.approx(log_probs[:5], abs=1e-5)
    assert all(score.likeliest[0] == (score.token, score.log_prob) for score in scores)
