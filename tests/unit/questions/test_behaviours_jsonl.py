"""The behaviour jsonl: a user's own questions, in any of the formats."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.behaviours.jsonl import OwnFile
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import BehaviourData

RECORDS: list[dict[str, Any]] = [
    {"question": "Hot?", "aligned": ["yes", "it is"], "violating": ["no"], "category": "weather"},
    {"question": "Late; or not?", "aligned": ["so-so"], "violating": ["no", "never; ever"]},
]


def load(path: Path | str, **params: Any) -> BehaviourData:
    return OwnFile(OwnFile.Params.model_validate({"path": str(path), **params})).load()


def lines(folder: Path, *records: dict[str, Any] | str) -> Path:
    path = folder / "own.jsonl"
    texts = [text if isinstance(text, str) else json.dumps(text) for text in records]
    path.write_text("\n".join(texts) + "\n")
    return path


def table(folder: Path) -> pd.DataFrame:
    frame = pd.DataFrame(RECORDS)
    frame.to_parquet(folder / "own.parquet")
    for name in ("aligned", "violating"):
        frame[name] = frame[name].map(" | ".join)
    frame.to_csv(folder / "own.csv", index=False)
    return frame


def test_the_same_questions_come_from_json_lines_csv_and_parquet(tmp_path: Path) -> None:
    lines(tmp_path, *RECORDS)
    table(tmp_path)
    ours, *others = (load(tmp_path / f"own.{ending}") for ending in ("jsonl", "csv", "parquet"))
    assert [(a.text, a.label, a.is_best) for a in ours.questions[0].answers] == [
        ("yes", 1, True),
        ("it is", 1, False),
        ("no", 0, False),
    ]
    assert [question.category for question in ours.questions] == ["weather", "all"]
    for other in others:
        assert [q.text for q in other.questions] == [q.text for q in ours.questions]
        for one, same in zip(ours.questions, other.questions, strict=True):
            assert [(a.text, a.label) for a in one.answers] == [
                (a.text, a.label) for a in same.answers
            ]
    assert ours.name == "own" and ours.source["file"] == "own.jsonl"


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_file_of_preferences_is_one_of_questions(tmp_path: Path, ending: str) -> None:
    preferences = [
        {"prompt": "Hot?", "chosen": "yes", "rejected": "no", "category": "weather"},
        {"prompt": "Late?", "chosen": "so-so", "rejected": "never", "category": "time"},
    ]
    frame = pd.DataFrame(preferences)
    lines(tmp_path, *preferences)
    frame.to_csv(tmp_path / "own.csv", index=False)
    frame.to_parquet(tmp_path / "own.parquet")
    found = load(tmp_path / f"own.{ending}").questions
    assert [(one.text, one.category) for one in found] == [("Hot?", "weather"), ("Late?", "time")]
    assert [[(a.text, a.label) for a in one.answers] for one in found] == [
        [("yes", 1), ("no", 0)],
        [("so-so", 1), ("never", 0)],
    ]


def test_columns_of_own_questions_are_not_mixed_with_those_of_preferences(tmp_path: Path) -> None:
    own = {"question": "Hot?", "aligned": "yes", "violating": "no"}
    preference = {"prompt": "Late?", "chosen": "so-so", "rejected": "never"}
    (question,) = load(lines(tmp_path, own | preference)).questions
    assert question.text == "Hot?" and [a.text for a in question.answers] == ["yes", "no"]
    with pytest.raises(UserInputError, match="aligned"):
        load(lines(tmp_path, preference | {"question": "Hot?"}))


def test_a_best_answer_can_be_named_and_must_be_aligned(tmp_path: Path) -> None:
    path = lines(tmp_path, RECORDS[0] | {"best": "it is"}, RECORDS[1] | {"best": "no"})
    with pytest.raises(UserInputError, match="line 2: the best answer 'no' is not among"):
        load(path)
    (question,) = load(path, skip_bad=True).questions
    assert [answer.text for answer in question.answers if answer.is_best] == ["it is"]


def test_every_kind_of_bad_line_is_told_with_its_number_and_the_good_ones_are_kept(
    tmp_path: Path,
) -> None:
    path = lines(
        tmp_path,
        RECORDS[0],
        "",
        "{",
        RECORDS[0],
        {"question": "A?", "aligned": ["x"]},
        {"question": "B?", "aligned": ["x"], "violating": []},
        {"question": "C?", "aligned": ["x"], "violating": ["x"]},
        {"question": 4, "aligned": ["x"], "violating": ["y"]},
        {"question": "D?", "aligned": ["x"], "violating": [" "]},
        RECORDS[1],
    )
    with pytest.raises(UserInputError) as error:
        load(path)
    assert "7 bad lines, 2 good ones" in str(error.value) and "skip_bad" in str(error.value)
    for told in (
        "line 3: invalid JSON",
        "line 4: the question of line 1 again: 'Hot?'",
        "line 5: no 'violating'",
        "line 6: 'violating' holds no answer",
    ):
        assert told in str(error.value)
    data = load(path, skip_bad=True)
    assert [question.question_id for question in data.questions] == ["row-1", "row-10"]
    assert data.source["left_out"].startswith("7 bad lines: line 3")


def test_a_context_stands_before_the_question_and_is_there_for_all_or_none(tmp_path: Path) -> None:
    with_context = [record | {"context": "It is May."} for record in RECORDS]
    data = load(lines(tmp_path, *with_context))
    assert data.context(data.questions[0]) == "It is May.\nQ: Hot? A:"
    assert data.chat_prompt == "{context}\n{question}"
    mixed = lines(tmp_path, with_context[0], RECORDS[1])
    with pytest.raises(UserInputError, match="line 2: no 'context', which other questions have"):
        load(mixed)
    assert len(load(mixed, skip_bad=True).questions) == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_condition_may_be_to_have_no_context(tmp_path: Path, suffix: str) -> None:
    records = [
        RECORDS[0] | {"context": "Be cross.", "condition": "cross"},
        RECORDS[0] | {"context": "", "condition": "plain"},
    ]
    path = lines(tmp_path, *records)
    if suffix == ".csv":
        joined = [
            record | {k: "|".join(record[k]) for k in ("aligned", "violating")}
            for record in records
        ]
        path = tmp_path / "a.csv"
        pd.DataFrame(joined).to_csv(path, index=False)
    data = load(path)
    assert [one.condition for one in data.questions] == ["cross", "plain"]
    texts = [data.full_text(one, one.answers[0]) for one in data.questions]
    assert texts == ["Be cross.\nQ: Hot? A: yes", "Q: Hot? A: yes"]


def test_one_question_about_several_contexts_is_several_questions(tmp_path: Path) -> None:
    records = [RECORDS[0] | {"context": month} for month in ("May", "June", "May")]
    with pytest.raises(UserInputError, match="line 3: the question of line 1 again"):
        load(lines(tmp_path, *records))
    assert len(load(lines(tmp_path, *records[:2])).questions) == 2


def test_templates_stops_and_measures_can_be_given(tmp_path: Path) -> None:
    data = load(
        lines(tmp_path, *RECORDS),
        name="heat",
        template="{{x}} {question}\n{answer}",
        prompt="Asked: {question} Said: {answer}",
        preamble="Be brief. ",
        chat_prompt="Please: {question}",
        stop=("!",),
        measures=("options",),
    )
    question = data.questions[0]
    assert data.full_text(question, question.answers[0]) == "{x} Hot?\nyes"
    assert data.prompt_context(question) == "Be brief. Asked: Hot? Said:"
    assert (data.name, data.stop, data.measures) == ("heat", ("!",), ("options",))


@pytest.mark.parametrize(
    "params",
    [
        {"template": "{question}"},
        {"template": "{answer}"},
        {"template": "{question} {answer}."},
        {"template": "{answer} {question} {answer}"},
        {"template": "{question} {other} {answer}"},
        {"template": "{question!r} {answer}"},
        {"template": "{question} } {answer}"},
        {"prompt": "{} {answer}"},
        {"chat_prompt": "{question} {answer}"},
        {"name": "a/b"},
        {"measures": ()},
    ],
)
def test_a_template_or_name_that_cannot_be_used_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OwnFile.Params.model_validate(params)


@pytest.mark.parametrize("name", ["template", "prompt"])
def test_a_template_must_show_the_context_exactly_if_there_is_one(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UserInputError, match=f"have no context; expected {name} without"):
        load(lines(tmp_path, *RECORDS), **{name: "{context} {question} {answer}"})
    path = lines(tmp_path, RECORDS[0] | {"context": "May"})
    with pytest.raises(UserInputError, match=f"have context; expected {name} with"):
        load(path, **{name: "{question} {answer}"})


def test_a_missing_column_or_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="no column 'aligned'"):
        load(lines(tmp_path, {"question": "A?", "good": ["x"], "violating": ["y"]}))
    with pytest.raises(UserInputError, match=r"give params\.path"):
        load("")


def test_it_is_registered() -> None:
    assert BEHAVIOURS["jsonl"] is OwnFile


ANNOTATED = [
    {
        "question": "Hot?",
        "aligned": ["yes", "a bit"],
        "violating": ["no"],
        "class": ["calm", "", "cross"],
        "pair": ["p", "", "p"],
        "marks": ["0-3", "0-1 2-5", ""],
        "condition": "by day",
    },
    {"question": "Late?", "aligned": ["no"], "violating": ["yes"], "class": "calm", "pair": "q"},
]


def told(data: BehaviourData) -> list[tuple[Any, ...]]:
    return [
        (question.condition, answer.class_name, answer.pair, answer.marks)
        for question in data.questions
        for answer in question.answers
    ]


@pytest.mark.parametrize("printed", ["['yes', 'it is']", '[""yes"", ""it is""]', "['yes' 'it is']"])
def test_a_list_that_a_program_printed_into_csv_is_no_answer(tmp_path: Path, printed: str) -> None:
    text = f'question,aligned,violating\nIs it?,"{printed}",no\n'
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(UserInputError, match=r"'aligned' is .*as programs print a list.*'\|'"):
        load(tmp_path / "own.csv")


def test_classes_pairs_marks_and_conditions_come_from_json_lines_csv_and_parquet(
    tmp_path: Path,
) -> None:
    expected = [
        ("by day", "calm", "p", ((0, 3),)),
        ("by day", "", "", ((0, 1), (2, 5))),
        ("by day", "cross", "p", ()),
        ("", "calm", "q", ()),
        ("", "calm", "q", ()),
    ]
    assert told(load(lines(tmp_path, *ANNOTATED))) == expected
    joined = [
        {name: "|".join(said) if isinstance(said, list) else said for name, said in record.items()}
        for record in ANNOTATED
    ]
    pd.DataFrame(joined).to_csv(tmp_path / "a.csv", index=False)
    assert told(load(tmp_path / "a.csv")) == expected
    wrapped = [
        {**record, "class": [record["class"]] if n else record["class"], "pair": ["q"] * 2}
        if n
        else record
        for n, record in enumerate(ANNOTATED)
    ]
    pd.DataFrame(wrapped).to_parquet(tmp_path / "a.parquet")
    assert told(load(tmp_path / "a.parquet")) == expected


@pytest.mark.parametrize(
    ("field", "said", "message"),
    [
        ("class", ["calm", "cross"], "line 1: 'class' has 2 entries; expected 3"),
        ("pair", 7, "line 1: 'pair' is a number; expected a text, or a list of texts"),
        ("pair", "p", "line 1: the pair 'p' has 2 aligned answers and 1 violating"),
        ("marks", "1-9", "line 1: 'marks' is '1-9'; expected places in 'yes'.* from 0 up to 3"),
        ("marks", "2-2", "expected places in 'yes'"),
        ("marks", "first", "as '0-4 10-12'"),
    ],
)
def test_what_answers_cannot_have_is_told_with_its_line(
    tmp_path: Path, field: str, said: Any, message: str
) -> None:
    with pytest.raises(UserInputError, match=message):
        load(lines(tmp_path, {**ANNOTATED[0], field: said}, ANNOTATED[1]))
