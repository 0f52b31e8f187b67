"""Neutral texts: our own paragraphs, a user's file, or a column of a Hub data set."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from real_tasks.experiment.prepared import Prepared, neutral_in_words
from real_tasks.questions import neutral
from real_tasks.questions.neutral import DEFAULT_NEUTRAL, load_neutral
from real_tasks.vocabulary.config import ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import BehaviourData
from tests.unit.tiny_models import tiny_tokenizer


def test_our_own_paragraphs_are_about_forty_short_ones_all_different() -> None:
    assert len(DEFAULT_NEUTRAL) == 40 == len(set(DEFAULT_NEUTRAL))
    assert all(40 <= len(text.split()) <= 80 for text in DEFAULT_NEUTRAL)
    assert all("\n" not in text and text.endswith(".") for text in DEFAULT_NEUTRAL)
    openings = Counter(" ".join(text.split()[:3]) for text in DEFAULT_NEUTRAL)
    assert max(openings.values()) == 1


def test_paragraphs_of_a_file_are_texts_without_repetitions_and_limited(tmp_path: Path) -> None:
    path = tmp_path / "plain.txt"
    path.write_text("\ufeffOne\nline.\n\n \nTwo.\n\nOne line.\r\n\r\nThree.\n", encoding="utf-8")
    assert load_neutral(str(path), 9) == ("One line.", "Two.", "Three.")
    assert load_neutral(str(path), 2) == ("One line.", "Two.")


def test_a_text_a_line_and_paragraphs_give_the_same_texts(tmp_path: Path) -> None:
    texts = tuple(f"Text {n} is here, and it ends" for n in range(9))
    forms = {
        "lines.txt": "\n".join(texts),
        "blank.txt": "\n\n".join(texts),
        "crlf.txt": "\r\n".join(texts) + "\r\n\r\n",
        "bom.txt": "\ufeff" + "\n".join(texts),
        "broken.txt": "\n\n".join(text.replace(", ", ",\n") for text in texts),
        "rows.jsonl": "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts) + "\n",
        "rows.json": json.dumps([{"said": text} for text in texts]),
        "rows.csv": "text\n" + "".join(f'"{text}"\n' for text in texts),
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content.encode())
        assert load_neutral(str(tmp_path / name), 99) == texts, name
    (tmp_path / "wide.txt").write_bytes("\n".join(texts).encode("utf-16"))
    assert load_neutral(str(tmp_path / "wide.txt"), 99) == texts


def test_lines_that_are_sentences_are_texts_where_a_blank_line_stands_here_and_there(
    tmp_path: Path,
) -> None:
    texts = tuple(f"Text {n} is here." for n in range(20))
    path = tmp_path / "mixed.txt"
    path.write_text("\n".join(texts[:9]) + "\n\n" + "\n".join(texts[9:]))
    assert load_neutral(str(path), 99) == texts
    broken = "Here a paragraph\nwas broken over\nmany short lines\nby hand\nand by foot."
    path.write_text(f"{broken}\n\n{broken} Again.")
    assert len(load_neutral(str(path), 99)) == 2


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", "One long line. " * 900, "holds a single text"),
        ("a.txt", "Same.\n\nSame.", "holds a single text"),
        ("a.jsonl", '{"a": "x", "b": "y"}\n', "no column 'text', and the columns 'a', 'b'"),
        ("a.jsonl", '{"text": "x"}\n{"text": 3}\n', "line 2: 'text' is a number"),
        ("a.jsonl", '{"text": "x"}\n{"text"\n', "line 2: invalid JSON"),
    ],
)
def test_too_little_text_or_none_is_told(
    tmp_path: Path, name: str, content: str, told: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserInputError) as error:
        load_neutral(str(tmp_path / name), 99)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"\n \n", "holds no text"), (b"fine\n\ncaf\xe9\n", "line 3: not UTF-8 (byte 0xe9)")],
)
def test_a_file_without_text_or_of_another_encoding_is_refused(
    tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserInputError) as error:
        load_neutral(str(tmp_path / "a.txt"), 3)
    assert told in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="correct the path"):
        load_neutral(str(tmp_path / "none.txt"), 3)


def test_a_column_of_a_hub_data_set_gives_texts_without_its_empty_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Any, ...]] = []

    def records(*args: Any) -> list[dict[str, str]]:
        asked.append(args)
        return [{"text": text} for text in ("", " a ", "b", "a", "c")]

    monkeypatch.setattr(neutral, "hub_records", records)
    assert load_neutral("hub:org/name:sub:test:text", 3) == ("a", "b", "c")
    assert load_neutral("hub:org/name::test:text", 2) == ("a", "b")
    assert asked == [("org/name", "sub", "test"), ("org/name", None, "test")]
    with pytest.raises(UserInputError, match="no column 'body' of texts; its columns are 'text'"):
        load_neutral("hub:org/name::test:body", 2)


@pytest.mark.parametrize("source", ["hub:org/name", "hub:org/name:a:b", "hub::a:b:c"])
def test_an_incomplete_name_of_a_hub_column_is_refused(source: str) -> None:
    with pytest.raises(UserInputError, match="hub:org/name:config:split:column"):
        load_neutral(source, 3)


def test_what_was_understood_is_said_in_texts_and_tokens_of_the_model(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    texts = ("w1 w2 w3 .", "w4 w5 ?")
    config = ExperimentConfig.model_validate(
        {"model": {"path": str(tmp_path)}, "evaluation": {"neutral": "own.txt"}}
    )
    data = BehaviourData("any", (), neutral_texts=texts, source={"neutral": "own.txt: in words"})
    known = Prepared(config, data, cast(Any, None), cast(Any, None))
    assert neutral_in_words(known) == "own.txt: 2 texts, 9 tokens"
    elsewhere = config.model_copy(update={"model": ModelConfig(path="org/name")})
    assert neutral_in_words(replace(known, config=elsewhere)) == "own.txt: in words"
