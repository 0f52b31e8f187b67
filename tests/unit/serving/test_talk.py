"""Talking with a model: history, strengths, comparisons, commands; typed or from a pipe."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.terminal.chatting import added, chatted
from real_tasks.models.loading import prepare
from real_tasks.serving.catalogue import Catalogue
from real_tasks.serving.engine import Engine
from real_tasks.serving.generations import Sampling
from real_tasks.serving.talk import Talk
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.serving.http_server import NO_ENDS, planted
from tests.unit.serving.served import Asked
from tests.unit.tiny_models import tiny_llama, tiny_tokenizer


@pytest.fixture
def talk() -> Iterator[Talk]:
    loaded = prepare(tiny_llama(), tiny_tokenizer())
    with Engine(loaded).running() as engine:
        yield Talk(engine, Catalogue(loaded, "tiny", {}), Sampling(6))


def steered(talk: Talk, folder: Path) -> None:
    planted(talk.engine.loaded, folder, seed=1, layer=0)
    talk.names = added(talk, [str(folder)])


def continued(talk: Talk, text: str, strength: float = 0, special: bool = True) -> str:
    """What the model goes on with after a text."""
    ids = talk.engine.loaded.tokenizer(text, add_special_tokens=special)["input_ids"]
    steering = talk.catalogue.steering(tuple((name, strength) for name in talk.names))
    asked = Asked(ids, talk.sampling, steering)
    talk.engine.submit([asked.generation])
    return asked.text()


def typed(talk: Talk, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    chatted(talk, interactive=False)


def test_what_was_said_is_in_the_next_prompt(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk.engine.loaded.tokenizer.chat_template = NO_ENDS
    first = continued(talk, "s w3 u w1 A:", special=False)
    second = continued(talk, f"s w3 u w1 a {first} u w2 A:", special=False)
    talk.system = "w3"
    typed(talk, monkeypatch, "w1", "", "w2", "/reset", "w1", "/quit", "w9")
    assert capsys.readouterr().out == f"{first}\n{second}\n{first}\n"
    assert [one["content"] for one in talk.said] == ["w1", first]


def test_without_a_chat_template_text_goes_on_as_the_spec_was_tuned(
    talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steered(talk, tmp_path)
    facts = {"template": "Q: {question} ? A: ", "stop": ["w7"]}
    talk.catalogue.specs[str(tmp_path)].spec.provenance["prompt"] = facts
    talk.put_as_tuned()
    assert talk.sampling.stop == ("w7",)
    first = continued(talk, "Q: w1 ? A:", 1)
    second = continued(talk, f"Q: w1 ? A: {first}\nQ: w2 ? A:", 1)
    typed(talk, monkeypatch, "w1", "w2")
    assert capsys.readouterr().out == f"{first}\n{second}\n"


def test_strengths_and_comparisons(
    talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steered(talk, tmp_path)
    texts = {strength: continued(talk, "w1", strength) for strength in (0, 1, -2)}
    assert len(set(texts.values())) == 3
    typed(
        *(talk, monkeypatch, "w1", "/reset", "/off", "w1", "/reset", "/on", "w1", "/reset"),
        *("/strength -2", "w1", "/reset", "/compare", "w1", "/reset", "w1"),
    )
    out = capsys.readouterr()
    compared = [f"unsteered: {texts[0]}", f"steered:   {texts[-2]}"]
    told = [texts[1], texts[0], texts[1], texts[-2], *compared, texts[-2]]
    assert out.out.splitlines() == told
    assert talk.said[-1]["content"] == texts[-2]
    assert "steering: -2 times as tuned" in out.err and "at strength -10" in out.err


def test_a_spec_s_folder_may_have_blanks_in_its_name(
    talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = planted(talk.engine.loaded, tmp_path / "the truth", seed=1, layer=0)
    typed(talk, monkeypatch, f"/spec '{folder}'", "w1")
    assert talk.names == (str(folder),)
    assert capsys.readouterr().out.splitlines() == [continued(talk, "w1", 1)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("w1 \udcff", "holds '.udcff'.*a byte that is not UTF-8"),
        ("/spec 'open", "a name with blanks: 'in quotes'"),
        ("/nothing", "there is no /nothing; there are /strength"),
        ("/strength 2", "no spec is loaded"),
        ("/strength much", "'much': expected a number"),
        ("/spec", "expected the folder"),
        ("/spec nowhere", "is no steering spec"),
        (" ".join(["w1"] * 200), "128 positions"),
    ],
)
def test_what_cannot_be_done_is_said(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    with pytest.raises(UserInputError, match=said):
        typed(talk, monkeypatch, line)


def test_ctrl_c_stops_an_answer_and_ctrl_d_leaves(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupting(io.StringIO):
        def write(self, text: str) -> int:
            if text.strip() and not self.getvalue():
                super().write(text)
                raise KeyboardInterrupt
            return super().write(text)

    lines = iter(["w1", "w2"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines, None) or leave())
    monkeypatch.setattr("sys.stdout", out := Interrupting())
    chatted(talk, interactive=True)
    first, second = out.getvalue().rstrip("\n").split("\n")
    assert talk.said[0]["content"] == "w1" and talk.said[1]["content"].startswith(first)
    assert talk.said[3]["content"] == second
    assert "stopped" in capsys.readouterr().err


def leave() -> str:
    raise EOFError
