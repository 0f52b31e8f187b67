"""The behaviour knowledge_conflict: passages with a substituted answer, toward it or away."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from real_tasks.questions.behaviours import BEHAVIOURS, knowledge_conflict
from real_tasks.questions.behaviours.knowledge_conflict import KnowledgeConflict
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import BehaviourData

RECORDS: list[dict[str, Any]] = [
    {
        "question": "who built the mill",
        "org_context": "The mill was built by Ann.",
        "org_answer": ["Ann", "Ann  ", "Ann Lee"],
        "sub_context": "The mill was built by Bob.",
        "sub_answer": ["Bob"],
    },
    {
        "question": "when was it built",
        "org_context": "In May.",
        "org_answer": "May",
        "sub_context": "In June.",
        "sub_answer": "June",
    },
]


def load(**params: Any) -> BehaviourData:
    return KnowledgeConflict(KnowledgeConflict.Params.model_validate(params)).load()


def path_of(folder: Path, *records: dict[str, Any]) -> str:
    path = folder / "swap.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return str(path)


def labelled(data: BehaviourData, index: int = 0) -> list[tuple[str, int, bool]]:
    return [(a.text, a.label, a.is_best) for a in data.questions[index].answers]


def test_the_passage_shown_is_the_substituted_one_and_its_answer_is_aligned(tmp_path: Path) -> None:
    data = load(path=path_of(tmp_path, *RECORDS))
    assert labelled(data) == [("Bob", 1, True), ("Ann", 0, True), ("Ann Lee", 0, False)]
    assert labelled(data, 1) == [("June", 1, True), ("May", 0, True)]
    question = data.questions[0]
    assert data.full_text(question, question.answers[0]) == (
        "The mill was built by Bob.\nQ: who built the mill A: Bob"
    )
    assert data.prompt_context(question) == (
        "The mill was built by Bob.\nQ: who built the mill\nA:"
    )
    assert data.outcomes == ("context", "memory", "other")
    assert data.measures == ("multiple_choice", "generation") and data.stop == ("\n", "Q:")


def test_toward_memory_turns_labels_and_outcomes_and_keeps_the_best(tmp_path: Path) -> None:
    data = load(path=path_of(tmp_path, *RECORDS), toward="memory")
    assert labelled(data) == [("Bob", 0, True), ("Ann", 1, True), ("Ann Lee", 1, False)]
    assert data.outcomes == ("memory", "context", "other") and data.source["toward"] == "memory"


def test_a_question_with_several_passages_is_taken_once_and_a_limit_counts_questions(
    tmp_path: Path,
) -> None:
    again = RECORDS[0] | {"sub_context": "The mill was built by Eve.", "sub_answer": ["Eve"]}
    path = path_of(tmp_path, RECORDS[0], again, RECORDS[1])
    data = load(path=path)
    assert [question.text for question in data.questions] == [r["question"] for r in RECORDS]
    assert data.source["questions_with_another_passage_left_out"] == "1"
    limited = load(path=path, limit=1)
    assert len(limited.questions) == 1 == int(limited.source["questions"])


def test_the_hubs_development_split_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def records(*args: Any) -> list[dict[str, Any]]:
        asked.append(args)
        return RECORDS

    monkeypatch.setattr(knowledge_conflict, "hub_records", records)
    data = load(revision="v3")
    assert asked == [("pminervini/NQ-Swap", None, "dev", "v3")]
    assert data.source["file"] == "pminervini/NQ-Swap@v3 (dev)" and len(data.questions) == 2


def test_the_same_answer_on_both_sides_is_refused_with_its_line(tmp_path: Path) -> None:
    path = path_of(tmp_path, RECORDS[0], RECORDS[1] | {"sub_answer": "May"})
    with pytest.raises(UserInputError, match="line 2: the answer 'May' is aligned and violating"):
        load(path=path)
    assert len(load(path=path, skip_bad=True).questions) == 1


def test_a_missing_column_and_contradictory_parameters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="no column 'org_answer', 'sub_context'"):
        load(path=path_of(tmp_path, {"question": "a", "sub_answer": "b"}))
    with pytest.raises(ValidationError):
        load(path="a.jsonl", revision="v3")


def test_it_is_registered() -> None:
    assert BEHAVIOURS["knowledge_conflict"] is KnowledgeConflict
