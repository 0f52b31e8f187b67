"""A localizer and a behaviour of another package: installed, they are as good as the project's own.

Report, pictures, terminal, SQL and plan take all that they say of a localizer from its entry.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.experiment import Summary, experiment
from flows.terminal.console import out, show_results
from real_tasks.experiment.commented import commented_yaml
from real_tasks.experiment.planning.data_size import stated_size
from real_tasks.experiment.planning.plan import plan_experiment
from real_tasks.experiment.yaml_files import load_config
from real_tasks.localizers import LOCALIZERS
from real_tasks.localizers.labels import ordered_methods
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.report.figures.effect_against_kl import effect_against_kl
from real_tasks.results.summary import result_table, wide_rows
from real_tasks.tasks.cache.code_version import code_version
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.installed import method_folders
from real_tasks.vocabulary.registry import Registry
from storage.paths import Home
from storage.sql.catalog import Catalog
from tests.flows.test_experiment import SMALL, made

pytestmark = pytest.mark.usefixtures("unrendered")

REGISTRIES: tuple[Registry[Any], ...] = (LOCALIZERS, BEHAVIOURS)
PACKAGE = "heads_of_others"
NAME, BEHAVIOUR = "mean_gap", "half_truth"
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "heads-of-others"
version = "1.2"

[project.entry-points."real_steering.localizers"]
mean_gap = "heads_of_others.gap:MeanGap"
turned_round = "heads_of_others.gap:TurnedRound"
needs_more = "heads_of_others.more:NeedsMore"

[project.entry-points."real_steering.behaviours"]
half_truth = "heads_of_others.half:HalfTruth"

[project.entry-points."real_steering.methods"]
others = "heads_of_others.methods"

[tool.setuptools]
packages = ["heads_of_others", "heads_of_others.methods"]
package-data = { "*" = ["*.yaml"] }
"""
GAP = '''
from dataclasses import replace

from real_tasks.localizers import Localizer, ScoreMeaning
from real_tasks.localizers.checks import check_labels, check_values
from real_tasks.vocabulary.types import LocalizerResult, ModuleScore

from .means import gap_of_means


class MeanGap(Localizer):
    """The distance of the means of the training answers."""

    weighting = "score"
    label = "gap of means"
    meaning = ScoreMeaning("score", "distance of means (0: none)", 0.0)
    explained = "How far the means lie apart."
    place = 15

    def localize(self, data, seed):
        check_values(data)
        check_labels(data, "training", data.train)
        gaps = gap_of_means(data.values[:, data.train], data.labels[data.train])
        found = zip(data.modules, gaps.tolist(), strict=True)
        return LocalizerResult("train", tuple(ModuleScore(*one) for one in found))

    def flops(self, d, n_train):
        return 7.0


class TurnedRound(MeanGap):
    def localize(self, data, seed):
        found = super().localize(data, seed)
        return replace(found, scores=found.scores[::-1])
'''
MEANS = """
def gap_of_means(values, labels):
    # of the labels
    gaps = values[:, labels == 1].mean(dim=1) - values[:, labels == 0].mean(dim=1)
    return gaps.norm(dim=1)
"""
HALF = '''
from dataclasses import replace
from typing import ClassVar

from pydantic import Field
from real_tasks.questions.behaviours.demo_truth import DemoTruth
from real_tasks.vocabulary.config import Frozen


class Params(Frozen):
    limit: int = Field(90, ge=8, description="how many questions there are")


class HalfTruth:
    """The first questions of the demo."""

    Params: ClassVar[type[Params]] = Params

    def __init__(self, params):
        self.params = params

    def load(self):
        data = DemoTruth(DemoTruth.Params()).load()
        return replace(data, name="half_truth", questions=data.questions[: self.params.limit])
'''
CONTRACT = """
from real_tasks.contract import BehaviourContract, LocalizerContract


class TestGap(LocalizerContract):
    name = "mean_gap"


class TestTurnedRound(LocalizerContract):
    name = "turned_round"


class TestHalf(BehaviourContract):
    name = "half_truth"
"""
FILES = {
    "pyproject.toml": PROJECT,
    "heads_of_others/__init__.py": "",
    "heads_of_others/gap.py": GAP,
    "heads_of_others/means.py": MEANS,
    "heads_of_others/more.py": "import there_is_no_such_module",
    "heads_of_others/half.py": HALF,
    "heads_of_others/methods/__init__.py": "",
    "heads_of_others/methods/gap_ablation.yaml": "localizer: mean_gap",
    "tests/test_contract.py": CONTRACT,
}
CONFIG = [
    *(change for change in SMALL if not change.startswith(("localizer", "methods", "data"))),
    f"localizer={NAME}",
    f"behaviour={BEHAVIOUR}",
    "baselines=[random]",
    "evaluation.measures=[multiple_choice]",
    "evaluation.max_kl=100",
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as its author has it."""
    folder = tmp_path_factory.mktemp("heads-of-others")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def site(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which it is installed."""
    site = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(sources)], check=True)
    return site


@pytest.fixture(scope="module")
def patch(site: Path) -> Iterator[pytest.MonkeyPatch]:
    """The folder is where Python looks for packages."""
    assert all(list(registry) for registry in REGISTRIES)  # The project's own are registered.
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        forget(patch)
        yield patch
    for name in imported():
        del sys.modules[name]


def imported() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == PACKAGE]


def forget(patch: pytest.MonkeyPatch) -> None:
    """Know as little of the package as a new process does."""
    for name in imported():
        del sys.modules[name]
    for registry in REGISTRIES:
        own = {n: one for n, one in registry._entries.items() if PACKAGE not in one.__module__}
        patch.setattr(registry, "_entries", own)
        patch.setattr(registry, "_loaded", False)
    importlib.invalidate_caches()
    code_version.cache_clear()


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch, prefect_server: None
) -> tuple[Path, Summary]:
    """A home in which it ranked the modules of a hardly trained demo model on its questions."""
    root = tmp_path_factory.mktemp("others") / "home"
    patch.setenv("REAL_HOME", str(root))
    return root, experiment(load_config(None, CONFIG))


def rows(root: Path, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Catalog(Home(root)).query(sql).to_pylist()
    return found


def test_the_report_calls_it_and_its_scores_as_it_does(run: tuple[Path, Summary]) -> None:
    page = Path(run[1].report).read_text()
    assert "Scores of gap of means" in page and "Map of distance of means over layers" in page
    assert "Score (distance of means)" in page and "How far the means lie apart." in page
    for row in ("gap of means with equal weights", "gap of means with random direction"):
        assert f">{row}</" in page.replace("\n", ""), row
    assert "REAL with" not in page and BEHAVIOUR in page


def test_its_methods_lines_are_named_in_the_picture_of_effects(run: tuple[Path, Summary]) -> None:
    sql = "FROM evaluations WHERE split = 'validation' AND alpha IS NOT NULL"
    curves = [row | {"dose": row["alpha"]} for row in wide_rows(rows(run[0], sql))]
    figure = effect_against_kl(curves, unsteered={}, max_kl=1.0, main=NAME)
    names = {text.get_text() for text in figure.axes[0].texts}
    assert {"gap of means", "gap of means with equal weights"} <= names
    assert "gap of means with PCA direction" in names


def test_terminal_and_sql_have_it_with_what_it_scored(run: tuple[Path, Summary]) -> None:
    with out.capture() as shown:
        show_results(result_table(rows(run[0], "FROM evaluations")))
    assert NAME in shown.get() and f"{NAME}_equal_weights" in shown.get()
    sql = "SELECT localizer, min(score) AS least FROM module_scores GROUP BY ALL ORDER BY ALL"
    assert [row["localizer"] for row in rows(run[0], sql)] == [NAME, "random"]
    assert rows(run[0], sql)[0]["least"] > 0
    samples = "SELECT DISTINCT behaviour, question_id FROM samples"
    assert len(rows(run[0], samples)) == 90 and rows(run[0], samples)[0]["behaviour"] == BEHAVIOUR


@pytest.mark.usefixtures("patch")
def test_it_stands_at_its_place_and_in_the_plan() -> None:
    assert ordered_methods(["iti", NAME, "unsteered", "real"]) == ["unsteered", "real", NAME, "iti"]
    config = load_config(None, [*CONFIG, "baselines=[iti]"])
    stages = {one.stage: one for one in plan_experiment(config, stated_size(60, 4, 20)).stages}
    n_heads, n_folds = 40, config.data.n_folds
    assert stages["scores"].localizer_flops == 7.0 * n_heads * n_folds


@pytest.mark.usefixtures("patch")
def test_forms_configurations_and_errors_list_what_it_brings() -> None:
    form = json.dumps(ExperimentConfig.model_json_schema())
    assert f'"{NAME}"' in form and f'"{BEHAVIOUR}"' in form
    text = commented_yaml(load_config(None, CONFIG))
    assert "# how many questions there are\n    limit: 90" in text
    with pytest.raises(UserInputError, match=f"known: .*{BEHAVIOUR}"):
        load_config(None, ["behaviour=half_lie"])
    (methods,) = method_folders()
    assert (methods.name, methods.owner) == ("others", "heads-of-others 1.2")
    assert [one.name for one in methods.folder.iterdir() if one.name.endswith(".yaml")] == [
        "gap_ablation.yaml"
    ]


def test_what_it_cannot_import_is_told_once_and_asked_for_by_name_an_error(
    patch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forget(patch)
    assert NAME in LOCALIZERS and "needs_more" not in LOCALIZERS
    (told,) = caplog.messages
    for said in ("needs_more", "heads-of-others 1.2", "there_is_no_such_module"):
        assert said in told
    with pytest.raises(UserInputError, match=r"heads-of-others 1\.2.*there_is_no_such_module"):
        load_config(None, ["localizer=needs_more"])


def test_the_contract_is_run_by_its_author_and_finds_what_is_wrong(
    sources: Path, site: Path
) -> None:
    # As where both are installed; the project lies in a folder that only these tests put there.
    path = os.pathsep.join(map(str, (site, Path.cwd())))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=sources,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = re.findall(r"^FAILED .*::(\w+)::(\w+)", done.stdout, re.MULTILINE)
    assert {name for name, _ in failed} == {"TestTurnedRound"}, done.stdout
    rule = "test_every_module_gets_one_score_in_the_order_of_the_shard"
    assert ("TestTurnedRound", rule) in failed
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 30, done.stdout


def test_an_edit_of_what_it_imports_is_computed_again_and_a_comment_is_not(
    run: tuple[Path, Summary], patch: pytest.MonkeyPatch, site: Path
) -> None:
    def score(summary: Summary) -> float:
        chosen = f"localizer = '{NAME}' AND run_id = '{summary.run_id}'"
        (row,) = rows(run[0], f"SELECT avg(score) AS score FROM module_scores WHERE {chosen}")
        return float(row["score"])

    # Of methods, only those that the localizer does not touch.
    config = [*CONFIG, "methods=[unsteered, random]"]
    helper = site / PACKAGE / "means.py"
    helper.write_text(MEANS.replace("# of the labels", "# of both labels"))
    forget(patch)
    commented = experiment(load_config(None, config))
    assert "scores" not in made(commented) and score(commented) == score(run[1])
    helper.write_text(MEANS.replace("gaps.norm(dim=1)", "3 * gaps.norm(dim=1)"))
    forget(patch)
    tripled = experiment(load_config(None, config))
    assert made(tripled)["scores"] > 0 and "activations" not in made(tripled)
    assert score(tripled) == pytest.approx(3 * score(run[1]), rel=1e-5)
