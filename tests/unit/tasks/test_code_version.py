"""Which changes of the source change a key. The sources of a small program stand in for ours."""

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from real_tasks.evaluation.measuring import measuring_modules
from real_tasks.tasks import stages
from real_tasks.tasks.cache import code_version as module
from real_tasks.tasks.cache.code_version import code_version, modules_of
from real_tasks.tasks.cache.stage import Stage
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.experiment_config import EvaluationConfig

PROGRAM = {
    "real_tasks.top": "from real_tasks.helper import help_out\nimport numpy as np\n",
    "real_tasks.helper": "import real_tasks.deep\nfrom real_tasks.family import member\n",
    "real_tasks.deep": "from real_tasks.tasks.cache.stage import stage\nX = 1\n",
    "real_tasks.family": "name = 'family'\n",
    "real_tasks.family.member": "def f():\n    from real_tasks.late import y\n    return y\n",
    "real_tasks.late": "import real_tasks.top\ny = 2\n",
    "real_tasks.aside": "z = 3\n",
    "real_tasks.tasks.cache.stage": "anything = 1\n",
}
DECLARED = """
'''What the module is.'''
from pydantic import BaseModel, Field

class Params(BaseModel):
    '''What they are.'''
    width: int = Field(3, title="Width", description="how wide")
    '''In columns.'''

    def area(self):
        # reasons
        return Field.kept(self.width, description="a value") * 2
"""


def forget() -> None:
    code_version.cache_clear()


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    sources = dict(PROGRAM)
    monkeypatch.setattr(module, "_source", lambda name: (sources[name].encode(), ""))
    monkeypatch.setattr(module, "_spec", sources.get)
    module._is_ours.cache_clear()
    forget()
    yield sources
    module._is_ours.cache_clear()
    forget()


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of real modules whose source shall look as if it had been edited."""
    names: set[str] = set()
    read = module._source

    def source(name: str) -> tuple[bytes, str]:
        content, package = read(name)
        return content + (b"\nedited = 1" if name in names else b""), package

    monkeypatch.setattr(module, "_source", source)
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
    program[f"real_tasks.{changed}"] += "another = 1\n"
    assert version("real_tasks.top") != before


@pytest.mark.parametrize("changed", ["aside", "tasks.cache.stage"])
def test_a_change_elsewhere_or_of_the_cache_does_not(program: dict[str, str], changed: str) -> None:
    before = version("real_tasks.top")
    program[f"real_tasks.{changed}"] += "another = 1\n"
    assert version("real_tasks.top") == before


@pytest.mark.parametrize(
    ("old", "new", "matters"),
    [
        ("What the module is.", "Better words.", False),
        ("What they are.", "Better words.", False),
        ("    '''What they are.'''\n", "", False),
        ("In columns.", "In rows.", False),
        ("# reasons", "# better reasons", False),
        ("        # reasons\n", "", False),
        ("how wide", "how broad", False),
        ('title="Width"', 'title="Breadth"', False),
        ('title="Width", ', "", False),
        ("self.width, description", "self.width,  description", False),
        ("Field(3", "Field(4", True),
        ("* 2", "* 3", True),
        ("width: int", "width: float", True),
        ("a value", "another", True),
        ("class Params", "class Settings", True),
        ('Field(3, title="Width"', 'Field(3, ge=1, title="Width"', True),
    ],
)
def test_what_is_written_for_people_is_no_code(
    program: dict[str, str], old: str, new: str, matters: bool
) -> None:
    program["real_tasks.late"] = DECLARED
    before = version("real_tasks.top")
    assert old in DECLARED
    program["real_tasks.late"] = DECLARED.replace(old, new)
    assert (version("real_tasks.top") != before) == matters


def test_a_new_import_brings_its_module_in(program: dict[str, str]) -> None:
    program["real_tasks.deep"] += "from real_tasks.aside import z\n"
    before = version("real_tasks.top")
    program["real_tasks.aside"] += "another = 1\n"
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


def all_stages() -> dict[str, list[Stage]]:
    """The stages that each file defines."""
    files = [one.name for one in pkgutil.iter_modules(stages.__path__)]
    modules = {name: importlib.import_module(f"{stages.__name__}.{name}") for name in files}
    return {
        name: [
            one
            for one in vars(there).values()
            if isinstance(one, Stage) and one._function.__module__ == there.__name__
        ]
        for name, there in modules.items()
    }


def stage_code(name: str) -> str:
    forget()
    plugins = measuring_modules(EvaluationConfig()) if name in ("evaluation", "measured") else []
    return code_version(f"real_tasks.tasks.stages.{name}", *plugins)


def test_a_file_defines_one_stage_at_most_of_its_own_name() -> None:
    found = {name: [one.kind for one in kept] for name, kept in all_stages().items() if kept}
    assert found == {kind: [kind] for kind in found}
    assert len(found) == 10


def test_the_key_holds_the_code_of_the_stage_and_of_the_plug_ins_chosen(edited: set[str]) -> None:
    (scores,) = all_stages()["scores"]
    iti, real = ({"localizer": PlugIn(name=name)} for name in ("iti", "real"))
    before = scores.key(iti), scores.key(real)
    edited.add("real_tasks.localizers.iti")
    forget()
    assert scores.key(iti) != before[0]
    assert scores.key(real) == before[1]


@pytest.mark.parametrize(
    ("stage", "changed", "matters"),
    [
        ("fits", "real_tasks.steering.fitters", True),
        ("fits", "real_tasks.questions.samples", True),
        ("fits", "real_tasks.evaluation.answers.mc_scores", False),
        ("fits", "real_tasks.localizers.real.vqae", False),
        ("model_fits", "real_tasks.evaluation.model_handle", True),
        ("model_fits", "real_tasks.evaluation.judges", False),
        ("scores", "real_tasks.questions.folds", True),
        ("scores", "real_tasks.evaluation.tuning", False),
        ("scores", "real_tasks.evaluation.answers.choices", False),
        ("effects", "real_tasks.evaluation.answers.choices", True),
        ("effects", "real_tasks.questions.folds", True),
        ("evaluation", "real_tasks.questions.folds", True),
        ("evaluation", "real_tasks.models.loading", True),
        ("evaluation", "real_tasks.experiment.methods.method", True),
        ("activations", "real_tasks.questions.samples", True),
        ("activations", "real_tasks.reading.prompts", True),
        ("evaluation", "real_tasks.evaluation.tuning", True),
        ("evaluation", "real_tasks.evaluation.answers.mc_scores", True),
        ("evaluation", "real_tasks.steering.hooks", True),
        ("evaluation", "real_tasks.localizers.real.vqae", False),
        ("activations", "real_tasks.reading.activations", True),
        ("activations", "real_tasks.reading.batches", True),
        ("activations", "real_tasks.steering.selection", False),
        ("activations", "real_tasks.questions.folds", False),
        ("activations", "real_tasks.vocabulary.config", True),
        ("activations", "real_tasks.vocabulary.experiment_config", False),
        ("scores", "real_tasks.vocabulary.experiment_config", False),
        ("evaluation", "real_tasks.vocabulary.experiment_config", True),
        ("scores", "real_tasks.models.loading", False),
        ("scores", "real_tasks.steering.fitters.pca", False),
        ("fits", "real_tasks.models.loading", False),
        ("measured", "real_tasks.evaluation.tuning", False),
        ("measured", "real_tasks.evaluation.transfer", True),
        ("measured", "real_tasks.evaluation.judges.exact_match", True),
        ("measured", "real_tasks.evaluation.judges.endpoint", False),
        ("pictures", "real_tasks.report.figures.heads", True),
        ("checkpoint", "real_tasks.models.embedded.training", False),
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
    before = code_version("real_tasks.tasks.stages.scores", "real_tasks.localizers.real")
    edited.add(changed)
    forget()
    after = code_version("real_tasks.tasks.stages.scores", "real_tasks.localizers.real")
    assert (after != before) == matters


def test_a_plug_in_that_does_not_exist_has_no_module() -> None:
    registry = {"there": PlugIn}
    assert modules_of(registry, "there", "not") == ["real_tasks.vocabulary.config"]


def test_an_input_that_is_left_out_has_the_key_of_its_default() -> None:
    inputs = {"model": "m", "shard": "s", "kind": "head", "config": "c"}
    key = stages.activations.activations.key(inputs)
    assert key == stages.activations.activations.key(inputs | {"reading": "last"})
    assert key != stages.activations.activations.key(inputs | {"reading": "prompt_end"})


ELSEWHERE = {
    "heads/__init__.py": "",
    "heads/gap.py": "import other\nfrom . import near\nfrom .deep.far import x\n\n# reasons\n",
    "heads/near.py": "from real_tasks.localizers.roc import roc_auc\n",
    "heads/deep/far.py": "from .. import top\nx = 1\n",
    "heads/top.py": "raise RuntimeError('hashing a module must not import it')\n",
    "heads/aside.py": "",
    "other/__init__.py": "",
}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another package, whose `gap` imports as packages do, and a library that it uses."""
    for name, text in ELSEWHERE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    module._is_ours.cache_clear()
    yield tmp_path
    module._is_ours.cache_clear()
    forget()


@pytest.mark.parametrize(
    ("changed", "matters"),
    [
        ("heads/gap.py", True),
        ("heads/near.py", True),
        ("heads/deep/far.py", True),
        ("heads/top.py", True),
        ("heads/aside.py", False),
        ("other/__init__.py", False),
    ],
)
def test_the_code_of_another_package_counts_with_what_it_imports_of_itself(
    elsewhere: Path, changed: str, matters: bool
) -> None:
    before = version("real_tasks.tasks.stages.scores", "heads.gap")
    (elsewhere / changed).write_text(ELSEWHERE[changed] + "another = 1\n")
    assert (version("real_tasks.tasks.stages.scores", "heads.gap") != before) == matters


def test_so_does_what_it_imports_of_the_project_but_not_its_comments(
    elsewhere: Path, edited: set[str]
) -> None:
    before = version("heads.gap")
    (elsewhere / "heads/gap.py").write_text(ELSEWHERE["heads/gap.py"].replace("reasons", "others"))
    assert version("heads.gap") == before
    edited.add("real_tasks.localizers.roc")
    assert version("heads.gap") != before


def test_a_compiled_module_counts_by_its_bytes(elsewhere: Path) -> None:
    compiled = elsewhere / f"heads/near{EXTENSION_SUFFIXES[0]}"
    (elsewhere / "heads/near.py").unlink()
    compiled.write_bytes(b"\x7fELF\0one")
    before = version("heads.gap")
    compiled.write_bytes(b"\x7fELF\0two")
    assert version("heads.gap") != before
