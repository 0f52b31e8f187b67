"""The check of a data file: what it is, what it holds, and every problem with its line."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from real_tasks.questions.data_check import FileCheck, check_file
from real_tasks.vocabulary.errors import UserInputError

OWN: list[dict[str, Any]] = [
    {"question": "Hot?", "aligned": ["yes", "a bit"], "violating": ["no"], "category": "weather"},
    {"question": "Late?", "aligned": ["no"], "violating": ["yes"], "catgeory": "time"},
]
OF_KINDS: dict[str, dict[str, Any]] = {
    "truthfulqa": {
        "question": "A?",
        "mc1_targets": {"x": 1, "y": 0},
        "mc2_targets": {"x": 1, "y": 0},
    },
    "caa": {
        "question": "A?\n (A) x\n (B) y",
        "answer_matching_behavior": "(A)",
        "answer_not_matching_behavior": "(B)",
    },
    "knowledge_conflict": {
        "question": "who",
        "org_context": "It was Ann.",
        "org_answer": ["Ann"],
        "sub_context": "It was Bob.",
        "sub_answer": ["Bob"],
    },
    "jsonl": OWN[0],
}


def check(folder: Path, name: str, text: str) -> FileCheck:
    (folder / name).write_text(text)
    return check_file(folder / name)


def own(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize("behaviour", OF_KINDS)
@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_the_columns_tell_which_behaviour_reads_a_file(
    tmp_path: Path, behaviour: str, ending: str
) -> None:
    record = OF_KINDS[behaviour]
    if ending == "parquet":
        pd.DataFrame([record]).to_parquet(tmp_path / "a.parquet")
        found = check_file(tmp_path / "a.parquet")
    else:
        text = json.dumps([record]) if ending == "json" else json.dumps(record)
        found = check(tmp_path, f"a.{ending}", text)
    assert (found.behaviour, found.file.format) == (behaviour, ending)
    assert found.lines()[1] == "1 questions in 1 rows"
    assert found.good and found.lines()[0].startswith(f"a.{ending}: {ending}, ")
    assert found.lines()[-1] == "no problems"


def test_the_csv_of_truthfulqa_is_known_by_its_columns(tmp_path: Path) -> None:
    text = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
    found = check(tmp_path, "T.csv", f"{text}Adversarial,Law,A?,x,x; y; y,z,\n")
    assert found.behaviour == "truthfulqa"
    assert {"1 questions in 1 rows", "categories (1): Law 1"} <= set(found.lines())
    assert "left out, answers repeated: 1" in found.lines()


def test_counts_categories_longest_texts_and_unused_columns_are_told(tmp_path: Path) -> None:
    found = check(tmp_path, "own.jsonl", own(*OWN))
    assert found.lines() == [
        "own.jsonl: jsonl, own questions (behaviour jsonl)",
        "2 questions in 2 rows",
        "answers: aligned 3, violating 2",
        "categories (2): weather 1, all 1",
        "longest, in characters: question 5, answer 5",
        "columns that are not read: catgeory",
        "a run needs at least 8 questions (4 for each of at least 2 folds)",
        "no problems",
    ]


def test_preferences_are_known_by_their_columns_and_a_column_too_many_is_told(
    tmp_path: Path,
) -> None:
    record = {"prompt": "Hot?", "chosen": "yes", "rejected": "no", "source": "me"}
    found = check(tmp_path, "own.jsonl", own(record))
    assert found.behaviour == "jsonl" and len(found.parsed.questions) == 1
    assert "columns that are not read: source" in found.lines()


def test_too_few_questions_for_any_run_are_told(tmp_path: Path) -> None:
    rows = [{**OWN[0], "question": f"Hot {n}?"} for n in range(8)]
    assert not check(tmp_path, "own.jsonl", own(*rows[:7])).enough
    enough = check(tmp_path, "own.jsonl", own(*rows))
    assert enough.enough and not any("at least" in line for line in enough.lines())


def test_all_problems_are_told_with_their_lines(tmp_path: Path) -> None:
    bad = [OWN[0]] + [OWN[0]] * 8
    found = check(tmp_path, "own.jsonl", "\n" + own(*bad) + "{\n")
    assert not found.good
    assert [problem.line for problem in found.parsed.problems] == [*range(3, 12)]
    lines = found.lines()
    assert lines[1] == "1 questions in 10 rows"
    assert lines[-10] == "9 problems"
    assert lines[-9] == "line 3: the question of line 2 again: 'Hot?'"
    assert lines[-1].startswith("line 11: invalid JSON")


def test_missing_and_unknown_columns_are_problems_that_say_what_is_expected(
    tmp_path: Path,
) -> None:
    missing = check(tmp_path, "own.csv", "question,aligned\nHot?,yes\n")
    assert missing.behaviour == "jsonl" and not missing.good
    assert "no column 'violating'; its columns are 'question', 'aligned'" in missing.lines()[-1]
    unknown = check(tmp_path, "own.csv", "frage,antwort\nHeiss?,ja\n")
    assert unknown.behaviour == "" and not unknown.good
    assert "no kind of data has the columns 'frage', 'antwort'" in unknown.lines()[-1]
    assert "own questions: question, aligned, violating" in unknown.lines()[-1]
    nothing = check(tmp_path, "own.jsonl", "{\n")
    assert not nothing.good and "line 1: invalid JSON" in "\n".join(nothing.lines())


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="correct the path"):
        check_file(tmp_path / "none.jsonl")
