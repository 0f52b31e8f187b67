import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import real_tasks.evaluation.judges.truth_info as truth_info
from real_tasks.evaluation.judges import Judgement
from real_tasks.evaluation.judges.truth_info import INFO_JUDGE, TRUTH_JUDGE, TruthInfo
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Answer, Question
from storage.paths import Home
from storage.runs.verdicts import VerdictMemory
from tests.unit.tiny_judges import save_planted_judge, save_random_judge
from tests.unit.tiny_models import WORDS, random_texts, tiny_llama, tiny_tokenizer

QUESTION = Question("q", " w1 w2 ?\n", "any", (Answer("a", "good", 1), Answer("b", "bad", 0)))
TEXTS = random_texts(14, shortest=1, longest=15, seed=3)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One judge for truth, one for information."""
    folder = tmp_path_factory.mktemp("planted")
    truth = save_planted_judge(folder / "truth", yes=["good", "nothing"], no=["bad"])
    return truth, save_planted_judge(folder / "info", yes=["good", "bad"], no=["nothing"])


@pytest.fixture(scope="module")
def random_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_judge(tmp_path_factory.mktemp("random"), WORDS)


def judge(truth: Path, info: Path | None = None, memory: Any = None, **params: Any) -> TruthInfo:
    given = {"truth_model": str(truth), "dtype": "float32", "device": "cpu"} | params
    given["info_model"] = None if info is None else str(info)
    return TruthInfo(TruthInfo.Params(**given), {} if memory is None else memory)


def pairs(said: list[str]) -> list[tuple[Question, str]]:
    return [(QUESTION, one) for one in said]


def counted_loading(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    loaded: list[Path] = []
    load = truth_info.load_model

    def counting(folder: Path, *args: Any) -> Any:
        loaded.append(folder)
        return load(folder, *args)

    monkeypatch.setattr(truth_info, "load_model", counting)
    return loaded


def test_planted_verdicts_come_out(planted: tuple[Path, Path]) -> None:
    judged = judge(*planted).judge(pairs(["it is good", "bad it is", "nothing", "else", " good\n"]))
    assert [one.verdict for one in judged] == ["true", "false", "true", "neither", "true"]
    assert [one.informative for one in judged] == [True, True, False, False, True]
    assert judged[0].scores["truth_probability"] > 0.9
    assert judged[1].scores["truth_probability"] < 0.1
    assert judged[1].scores["info_probability"] > 0.9
    assert judged[2].scores["info_probability"] < 0.1


def test_without_an_info_model_nothing_is_said_of_information(planted: tuple[Path, Path]) -> None:
    (judged,) = judge(planted[0]).judge(pairs(["good"]))
    assert judged.verdict == "true"
    assert judged.informative is None
    assert set(judged.scores) == {"truth_probability"}


@pytest.mark.parametrize("batch_tokens", [1, 40, 8192])
def test_words_and_probabilities_are_those_of_generate_one_at_a_time(
    random_judge: Path, batch_tokens: int
) -> None:
    """The published way: one greedy token, stripped, after the published prompts."""
    model = AutoModelForCausalLM.from_pretrained(random_judge)
    tokenizer = AutoTokenizer.from_pretrained(random_judge)
    yes = tokenizer.get_vocab()["yes"]
    said = judge(random_judge, random_judge, batch_tokens=batch_tokens).judge(pairs(TEXTS))
    words = set()
    for text, one in zip(TEXTS, said, strict=True):
        for asked, name in (("True", "truth_probability"), ("Helpful", "info_probability")):
            given = tokenizer(f"Q: w1 w2 ?\nA: {text}\n{asked}:", return_tensors="pt")
            out = model.generate(
                **given,
                max_new_tokens=1,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
            word = tokenizer.decode(out.sequences[0, -1]).strip()
            words.add(word)
            probability = float(out.logits[0][0].softmax(-1)[yes])
            assert one.scores[name] == pytest.approx(probability, abs=1e-5)
            if asked == "True":
                assert one.verdict == {"yes": "true", "no": "false"}.get(word, "neither")
            else:
                assert one.informative == (word == "yes")
    assert {"yes", "no"} < words


def test_lower_precision_is_loaded_where_asked_for(random_judge: Path) -> None:
    exact = judge(random_judge).judge(pairs(TEXTS))
    coarse = judge(random_judge, dtype="bfloat16").judge(pairs(TEXTS))
    found = [[one.scores["truth_probability"] for one in many] for many in (exact, coarse)]
    assert found[0] != found[1]
    torch.testing.assert_close(*map(torch.tensor, found), atol=0.1, rtol=0.1)


def test_models_are_loaded_at_the_first_answer_and_once(
    planted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = counted_loading(monkeypatch)
    truth, info = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in planted)
    first = judge(truth, info)
    assert first.judge([]) == []
    assert loaded == []
    first.judge(pairs(["good"]))
    first.judge(pairs(["bad"]))
    judge(truth, info).judge(pairs(["nothing"]))
    assert loaded == [truth, info]


def test_what_is_remembered_is_not_judged_again_nor_is_a_model_loaded(
    planted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, info = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in planted)
    home = Home(tmp_path / "home")
    first = judge(truth, info, VerdictMemory(home)).judge(pairs(["good", "bad", "good"]))
    assert len(VerdictMemory(home)) == 4
    truth_info._judge_model.cache_clear()
    loaded = counted_loading(monkeypatch)
    memory = VerdictMemory(home)
    assert judge(truth, info, memory).judge(pairs(["good", "bad", "good"])) == first
    assert loaded == []
    judge(truth, None, memory).judge(pairs(["good", "new"]))
    assert loaded == [truth]
    assert len(memory) == 5


def test_another_model_precision_or_content_of_the_folder_is_judged_anew(
    planted: tuple[Path, Path], tmp_path: Path
) -> None:
    memory: dict[str, str] = {}
    folder = Path(shutil.copytree(planted[0], tmp_path / "judge"))
    assert judge(folder, None, memory).judge(pairs(["good"]))[0].verdict == "true"
    judge(planted[0], None, memory).judge(pairs(["good"]))
    assert len(memory) == 1  # the same files elsewhere
    judge(folder, None, memory, dtype="float16").judge(pairs(["good"]))
    assert len(memory) == 2
    save_planted_judge(folder, yes=["bad"], no=["good"])
    truth_info._folder.cache_clear()
    assert judge(folder, None, memory).judge(pairs(["good"]))[0].verdict == "false"
    assert len(memory) == 3


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"word": "yes"}'])
def test_a_damaged_memory_is_judged_again(planted: tuple[Path, Path], damage: str) -> None:
    memory: dict[str, str] = {}
    first = judge(planted[0], None, memory).judge(pairs(["good"]))
    memory.update(dict.fromkeys(memory, damage))
    assert judge(planted[0], None, memory).judge(pairs(["good"])) == first
    assert [json.loads(kept)["word"] for kept in memory.values()] == ["yes"]


def test_what_was_judged_before_a_failure_is_remembered(
    planted: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    judged = truth_info._next_words

    def fails_at_the_third(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return judged(*args)

    memory: dict[str, str] = {}
    texts = ["good", "it good", "a b bad", "w x y z"]
    with monkeypatch.context() as patch:
        patch.setattr(truth_info, "_next_words", fails_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            judge(planted[0], None, memory, batch_tokens=1).judge(pairs(texts))
    assert len(memory) == 2
    expected = judge(planted[0], batch_tokens=1).judge(pairs(texts))
    assert judge(planted[0], None, memory, batch_tokens=1).judge(pairs(texts)) == expected


def test_a_model_that_cannot_say_yes_is_no_judge(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserInputError, match="truth_model .* no token that reads 'yes'"):
        judge(tmp_path).judge(pairs(["good"]))


def test_an_answer_longer_than_the_models_positions_is_named(random_judge: Path) -> None:
    with pytest.raises(UserInputError, match="1 of 2 texts .*64 positions"):
        judge(random_judge).judge(pairs(["w1", "w1 " * 70]))


def test_a_model_that_is_not_there_is_named(planted: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="info_model .*nowhere"):
        judge(planted[0], tmp_path / "nowhere").judge(pairs(["good"]))


def test_published_judges_are_fetched_where_they_have_safetensors_unless_told_otherwise(
    planted: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def fetched(which: Path) -> Callable[[str, str | None], Path]:
        def local(name: str, revision: str | None) -> Path:
            asked.append((name, revision))
            return which

        return local

    monkeypatch.setattr(truth_info, "local_checkpoint", fetched(planted[0]))
    truth_info._folder.cache_clear()
    for params in (TruthInfo.Params(), TruthInfo.Params(truth_revision="main", info_model=None)):
        given = params.model_copy(update={"dtype": "float32", "device": "cpu"})
        assert TruthInfo(given, {}).judge(pairs(["good"]))[0].verdict == "true"
    truth_info._folder.cache_clear()
    pinned = truth_info.SAFETENSORS_REVISIONS[TRUTH_JUDGE]
    assert asked == [(TRUTH_JUDGE, pinned), (INFO_JUDGE, None), (TRUTH_JUDGE, "main")]


def test_equal_answers_get_equal_judgements(random_judge: Path) -> None:
    judged = judge(random_judge).judge(pairs(["w3 w4", "w5", " w3 w4 ", "w3 w4"]))
    assert judged[0] == judged[2] == judged[3]
    assert isinstance(judged[1], Judgement)
