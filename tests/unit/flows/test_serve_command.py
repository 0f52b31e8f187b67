"""What `real serve`, `real chat` and `real try` refuse before a model is loaded."""

import shlex
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.cli import main
from flows.commands import trying
from flows.commands.serve import checked_key, named_folders
from real_tasks.vocabulary.errors import UserInputError


def test_specs_are_named() -> None:
    assert named_folders(["a=x", "b=y=z"]) == {"a": Path("x"), "b": Path("y=z")}
    for wrong in (["a"], ["=x"], ["a="]):
        with pytest.raises(UserInputError, match="expected NAME=FOLDER"):
            named_folders(wrong)
    with pytest.raises(UserInputError, match="'a' is given twice"):
        named_folders(["a=x", "a=y"])


def test_other_machines_need_a_key() -> None:
    assert checked_key("127.0.0.1", None) is None
    assert checked_key("0.0.0.0", "a-key") == "a-key"
    with pytest.raises(UserInputError, match="--api-key KEY or set REAL_API_KEY"):
        checked_key("0.0.0.0", None)
    for wrong in ("", " ", "two words", "schlüssel"):
        with pytest.raises(UserInputError, match="printable ASCII without blanks"):
            checked_key("127.0.0.1", wrong)


def test_a_taken_port_is_said_before_the_model_is_looked_for(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        main(["serve", "nowhere", "--port", str(taken.getsockname()[1])])
    assert ended.value.code == 2
    assert "choose another with --port N" in " ".join(capsys.readouterr().err.split())


def test_try_names_commands_that_go_on_with_its_own_model_questions_and_folder() -> None:
    def lines(questions: str | None, name: str, chat: Any) -> list[list[str]]:
        found: Any = SimpleNamespace(
            data=SimpleNamespace(name=name), asking=SimpleNamespace(chat=chat)
        )
        made = trying._next("my model", questions, Path("steered it"), found)
        return [shlex.split(line, comments=True) for line in made]

    talk, serve, run = lines("my file.jsonl", "my_file", object())
    assert talk == ["real", "chat", "my model", "steered it"]
    assert serve == ["real", "serve", "my model", "--spec", "steered=steered it"]
    fields = ["behaviour=jsonl", "behaviour.params.path=my file.jsonl", "model.chat_template=true"]
    assert run[2:] == [p for one in ("model.path=my model", *fields) for p in ("--set", one)]
    for given in (None, "everyday_myths"):
        run = lines(given, "everyday_myths", None)[2]
        assert run[4:] == ["--set", "behaviour=everyday_myths"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "a\0b", "--port", "0"], "path: expected a text without NUL"),
        (["chat", "nowhere", "--revision", "\0"], "revision: expected a text"),
        (["try", "nowhere", "--method", "nothing"], "unknown method 'nothing' in methods"),
        (["try", "nowhere", "no.jsonl"], "'no.jsonl' is neither a file nor a behaviour"),
        (["try", "nowhere", "--to", __file__], "holds something else than a steering spec"),
        (["try", "nowhere", "--to", f"{__file__}/x"], "Not a directory); name another folder"),
        (["serve", "nowhere", "--port", "0", "--spec", "a=nospec"], "'nospec' is no steering spec"),
        (["chat", "nowhere", "nospec"], "'nospec' is no steering spec"),
        (["chat", "nowhere", "--strength", "2"], "--strength without a spec"),
        (["serve", "m" * 5000, "--port", "0"], "too long for a file; shorten it"),
    ],
)
def test_what_can_be_said_before_the_model_is_looked_for_is_one_error(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    found = " ".join(capsys.readouterr().err.replace("│", "").split())
    assert said in found and "Traceback" not in found
