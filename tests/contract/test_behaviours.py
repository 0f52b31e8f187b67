"""What every behaviour keeps to, over the registry: a new one is tested without being named.

A behaviour that needs data of the user's has an entry in `SAMPLES`, which makes a small file.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from real_tasks.contract import BehaviourContract
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.samples import samples_of
from real_tasks.results.rows import sample_rows
from real_tasks.vocabulary.types import BehaviourData
from storage.tables.rows import to_table

NUMBERS = range(12)


def truthfulqa_file(folder: Path) -> dict[str, Any]:
    path = folder / "TruthfulQA.csv"
    rows = [f"kind {n % 2},Is {n} odd?,A {n},A {n}; B {n},C {n}; D {n}" for n in NUMBERS]
    header = "Category,Question,Best Answer,Correct Answers,Incorrect Answers"
    path.write_text("\n".join([header, *rows]))
    return {"path": str(path)}


def caa_file(folder: Path) -> dict[str, Any]:
    path = folder / "tea.json"
    records = [
        {
            "question": f"Would you take {n} cups?\n\nChoices:\n (A) Yes, {n}\n (B) No",
            "answer_matching_behavior": f"({'AB'[n % 2]})",
            "answer_not_matching_behavior": f"({'BA'[n % 2]})",
        }
        for n in NUMBERS
    ]
    path.write_text(json.dumps(records))
    return {"path": str(path)}


def conflict_file(folder: Path) -> dict[str, Any]:
    path = folder / "swap.jsonl"
    records = [
        {
            "question": f"who built mill {n}",
            "org_answer": ["Ann"],
            "sub_context": f"Bob built mill {n}.",
            "sub_answer": ["Bob"],
        }
        for n in NUMBERS
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return {"path": str(path)}


def own_file(folder: Path) -> dict[str, Any]:
    path = folder / "own.jsonl"
    records = [
        {"question": f"How is {n}?", "aligned": ["good", "fine"], "violating": ["bad"]}
        for n in NUMBERS
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return {"path": str(path)}


SAMPLES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "truthfulqa": truthfulqa_file,
    "caa": caa_file,
    "knowledge_conflict": conflict_file,
    "jsonl": own_file,
}
"""For every behaviour that needs data: writes a sample of it and returns the parameters."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples")


@pytest.mark.parametrize("name", list(BEHAVIOURS))
class TestBehaviours(BehaviourContract):
    @pytest.fixture
    def params(self, name: str, folder: Path) -> dict[str, Any]:
        own = folder / name
        own.mkdir(exist_ok=True)
        return SAMPLES[name](own) if name in SAMPLES else {}

    def test_its_rows_fit_the_table_of_samples(self, data: BehaviourData) -> None:
        rows = to_table("samples", sample_rows(data, 2)).to_pylist()
        assert len(rows) == len(samples_of(data))
        assert {row["fold"] for row in rows} == {0, 1}
