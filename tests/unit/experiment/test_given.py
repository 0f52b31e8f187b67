"""Questions as people have them in memory become the same behaviour as those of a file."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from real_tasks.experiment.direct.given import behaviour_of
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import BehaviourData

ROWS: list[dict[str, Any]] = [
    {"question": "Is glass a liquid?", "aligned": ["No.", "It is a solid."], "violating": ["Yes."]},
    {"question": "Do bulls hate red?", "aligned": ["No."], "violating": ["Yes.", "They do."]},
]


def said(data: BehaviourData) -> list[tuple[str, list[tuple[str, int]]]]:
    return [(q.text, [(a.text, a.label) for a in q.answers]) for q in data.questions]


def test_dicts_a_file_a_frame_and_a_data_set_give_the_same_questions(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    expected = said(behaviour_of(PlugIn(name="jsonl", params={"path": str(file)})))
    datasets = pytest.importorskip("datasets")
    forms = [ROWS, str(file), file, pd.DataFrame(ROWS), datasets.Dataset.from_list(ROWS)]
    assert all(said(behaviour_of(form)) == expected for form in forms)
    assert expected[0] == ("Is glass a liquid?", [("No.", 1), ("It is a solid.", 1), ("Yes.", 0)])


def test_a_missing_cell_of_a_frame_is_as_one_that_a_dict_leaves_out() -> None:
    rows = [{**ROWS[0], "category": "matter"}, ROWS[1]]
    assert [q.category for q in behaviour_of(pd.DataFrame(rows)).questions] == ["matter", "all"]


def test_preference_data_are_understood() -> None:
    rows = [{"prompt": "Hello", "chosen": "Good day.", "rejected": "What?"}]
    assert said(behaviour_of(rows)) == [("Hello", [("Good day.", 1), ("What?", 0)])]


def test_pairs_part_where_their_words_do_and_keep_every_character() -> None:
    pairs = [
        ("Is glass a liquid?\n\nNo, it is not.", "Is glass a liquid?\n\nNot at all, yes."),
        ("Is glass a liquid?\n\nNever.", "Is glass a liquid?\n\nSure."),
    ]
    data = behaviour_of(pairs)
    (question,) = data.questions
    whole = [data.full_text(question, answer) for answer in question.answers]
    assert sorted(whole) == sorted(text for pair in pairs for text in pair)
    assert data.context(question) == "Is glass a liquid?"
    assert [answer.label for answer in question.answers] == [1, 1, 0, 0]


def test_pairs_may_be_named_in_dicts_and_frames() -> None:
    pairs = [("Is glass a liquid? No.", "Is glass a liquid? Yes."), ("So? It is.", "So? No.")]
    named = [{"negative": wrong, "positive": right} for right, wrong in pairs]
    expected = said(behaviour_of(pairs))
    assert said(behaviour_of(named)) == said(behaviour_of(pd.DataFrame(named))) == expected


def test_a_behaviour_is_known_by_its_name() -> None:
    assert behaviour_of("demo_truth").name == "demo_truth"


@pytest.mark.parametrize(
    ("questions", "told"),
    [
        ([], "there are none"),
        (7, "found int"),
        ({"train": []}, "found dict, of train"),
        ("nothing.jsonl", "neither a file nor a behaviour"),
        ("q" * 5000, "questions: the path 'qqq"),
        (pd.Series(["a", "b"]), "item 1 is str"),
        ([("Yes, it is.", "No, it is not.")], "pair 1"),
        ([("The same.", "The same.")], "aligned and violating"),
        ([("It is so ", "It is so and more")], "pair 1"),
        (["only a text"], "item 1 is str"),
        ([{"question": "?", "aligned": ["a"]}], "no column 'violating'"),
        ([{"question": "?", "aligned": ["a"], "violating": ["a"]}], "aligned and violating"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_was_found(questions: Any, told: str) -> None:
    with pytest.raises(UserInputError, match="questions") as error:
        behaviour_of(questions)
    assert told in str(error.value)
