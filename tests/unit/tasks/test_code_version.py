"""Which changes of the source change a key. The sources of a small program stand in for ours."""

from collections.abc import Iterator

import pytest

from real_tasks.tasks.cache import code_version as module
from real_tasks.tasks.cache.code_version import code_of, code_version
from real_tasks.tasks.stages import activations, evaluation, scoring

PROGRAM = {
    "real_tasks.top": "from real_tasks.helper import help_out\nimport numpy as np\n",
    "real_tasks.helper": "import real_tasks.deep\nfrom real_tasks.family import member\n",
    "real_tasks.deep": "from real_tasks.vocabulary.config import ExperimentConfig\nX = 1\n",
    "real_tasks.family": "name = 'family'\n",
    "real_tasks.family.member": "def f():\n    from real_tasks.late import y\n    return y\n",
    "real_tasks.late": "import real_tasks.top\ny = 2\n",
    "real_tasks.aside": "z = 3\n",
    "real_tasks.vocabulary.config": "anything = 1\n",
}


def forget() -> None:
    code_version.cache_clear()
    module._code_of_function.cache_clear()


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    sources = dict(PROGRAM)
    monkeypatch.setattr(module, "_source", lambda name: sources[name].encode())
    monkeypatch.setattr(module, "_is_module", lambda name: name in sources)
    forget()
    yield sources
    forget()


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of real modules whose source shall look as if it had been edited."""
    names: set[str] = set()
    read = module._source
    edit = b"\n# edited"
    monkeypatch.setattr(module, "_source", lambda n: read(n) + (edit if n in names else b""))
    forget()
    yield names
    forget()


def version(*roots: str) -> str:
    forget()
    return code_version(*roots)


@pytest.mark.parametrize("changed", ["top", "helper", "deep", "family", "family.member", "late"])
def test_a_change_of_any_module_that_is_imported_changes_the_version(
    program: dict[str, str], changed: str
) -> None:
    before = version("real_tasks.top")
    program[f"real_tasks.{changed}"] += "# another line\n"
    assert version("real_tasks.top") != before


@pytest.mark.parametrize("changed", ["aside", "vocabulary.config"])
def test_a_change_elsewhere_or_of_declarations_does_not(
    program: dict[str, str], changed: str
) -> None:
    before = version("real_tasks.top")
    program[f"real_tasks.{changed}"] += "# another line\n"
    assert version("real_tasks.top") == before


def test_a_new_import_brings_its_module_in(program: dict[str, str]) -> None:
    program["real_tasks.deep"] += "from real_tasks.aside import z\n"
    before = version("real_tasks.top")
    program["real_tasks.aside"] += "# another line\n"
    assert version("real_tasks.top") != before


def test_moving_code_from_one_module_to_another_changes_the_version(
    program: dict[str, str],
) -> None:
    before = version("real_tasks.deep", "real_tasks.aside")
    program["real_tasks.deep"], program["real_tasks.aside"] = (
        program["real_tasks.aside"],
        program["real_tasks.deep"],
    )
    assert version("real_tasks.deep", "real_tasks.aside") != before


def test_versions_of_different_roots_differ_and_repeat(program: dict[str, str]) -> None:
    assert version("real_tasks.top") == version("real_tasks.top")
    assert version("real_tasks.aside") != version("real_tasks.deep")


def stage_code(name: str) -> str:
    forget()
    if name == "evaluation":
        measure = "real_tasks.evaluation.measures.multiple_choice"
        return code_of(evaluation.evaluation._function, measure)
    return code_of(getattr(activations if name == "activations" else scoring, name)._function)


@pytest.mark.parametrize(
    ("stage", "changed", "matters"),
    [
        ("directions", "real_tasks.steering.directions", True),
        ("directions", "real_tasks.questions.samples", True),
        ("directions", "real_tasks.evaluation.answers.mc_scores", False),
        ("directions", "real_tasks.localizers.real.vqae", False),
        ("scores", "real_tasks.questions.folds", True),
        ("scores", "real_tasks.evaluation.tuning", False),
        ("scores", "real_tasks.evaluation.answers.choices", False),
        ("effects", "real_tasks.evaluation.answers.choices", True),
        ("effects", "real_tasks.questions.folds", True),
        ("evaluation", "real_tasks.questions.folds", True),
        ("evaluation", "real_tasks.models.loading", True),
        ("evaluation", "real_tasks.experiment.methods", True),
        ("activations", "real_tasks.questions.samples", True),
        ("activations", "real_tasks.reading.prompts", True),
        ("evaluation", "real_tasks.evaluation.tuning", True),
        ("evaluation", "real_tasks.evaluation.answers.mc_scores", True),
        ("evaluation", "real_tasks.steering.intervention", True),
        ("evaluation", "real_tasks.localizers.real.vqae", False),
        ("activations", "real_tasks.reading.activations", True),
        ("activations", "real_tasks.reading.batches", True),
        ("activations", "real_tasks.steering.selection", False),
    ],
)
def test_a_stage_depends_on_what_it_runs_and_on_nothing_else(
    edited: set[str], stage: str, changed: str, matters: bool
) -> None:
    before = stage_code(stage)
    edited.add(changed)
    assert (stage_code(stage) != before) == matters


@pytest.mark.parametrize(
    ("changed", "matters"),
    [("real_tasks.localizers.iti", False), ("real_tasks.localizers.real.vqae", True)],
)
def test_a_plug_in_counts_where_it_is_the_one_that_runs(
    edited: set[str], changed: str, matters: bool
) -> None:
    before = code_of(scoring.scores._function, "real_tasks.localizers.real")
    edited.add(changed)
    forget()
    after = code_of(scoring.scores._function, "real_tasks.localizers.real")
    assert (after != before) == matters
