"""A new localizer is one file: report, pictures, terminal, SQL and plan take all else from it."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import real_tasks.localizers as room
from flows.experiment import experiment
from flows.terminal.console import out, show_results
from real_tasks.experiment.yaml_files import load_config
from real_tasks.localizers import LOCALIZERS
from real_tasks.planning.data_size import stated_size
from real_tasks.planning.plan import plan_experiment
from real_tasks.report.figures.effect_against_kl import effect_against_kl
from real_tasks.results.labels import ordered_methods
from real_tasks.results.summary import result_table, wide_rows
from storage.paths import Home
from storage.sql.catalog import Catalog
from tests.flows.test_experiment import SMALL

NAME = "mean_gap"
FILE = '''
from real_tasks.localizers import LOCALIZERS, Localizer, Look, ScoreMeaning
from real_tasks.vocabulary.types import LocalizerResult, ModuleScore


@LOCALIZERS.register("mean_gap")
class MeanGap(Localizer):
    """The distance of the means of the training answers."""

    weighting = "score"
    label = "gap of means"
    meaning = ScoreMeaning("score", "distance of means (0: none)", 0.0)
    explained = "How far the means lie apart."
    looks = (Look("#123456", "H", "-"),)
    place = 15

    def localize(self, data, seed):
        values, labels = data.values[:, data.train], data.labels[data.train]
        gaps = values[:, labels == 1].mean(dim=1) - values[:, labels == 0].mean(dim=1)
        found = zip(data.modules, gaps.norm(dim=1).tolist(), strict=True)
        return LocalizerResult("train", tuple(ModuleScore(*one) for one in found))

    def flops(self, d, n_train):
        return 7.0
'''
CONFIG = [
    *(change for change in SMALL if not change.startswith(("localizer", "methods"))),
    "localizer={name: mean_gap}",
    "baselines=[random]",
    "evaluation.measures=[multiple_choice]",
    "evaluation.max_kl=100",
]


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The file lies in the room of the localizers, in effect."""
    folder = tmp_path_factory.mktemp("entry")
    (folder / f"{NAME}.py").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "__path__", [*room.__path__, str(folder)])
        patch.setattr(LOCALIZERS, "_entries", dict(LOCALIZERS._entries))
        patch.setattr(LOCALIZERS, "_loaded", False)
        importlib.invalidate_caches()
        yield
    sys.modules.pop(f"{room.__name__}.{NAME}")


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, entry: None, prefect_server: None
) -> Iterator[tuple[Path, str]]:
    """A home in which it ranked the modules of a hardly trained demo model, and the report."""
    root = tmp_path_factory.mktemp("new") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REAL_HOME", str(root))
        yield root, Path(experiment(load_config(None, CONFIG)).report).read_text()


def rows(root: Path, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Catalog(Home(root)).query(sql).to_pylist()
    return found


def test_the_report_calls_it_and_its_scores_as_it_does(run: tuple[Path, str]) -> None:
    page = run[1]
    assert "Scores of gap of means" in page and "Map of distance of means over layers" in page
    assert "Score (distance of means)" in page and "How far the means lie apart." in page
    for row in ("gap of means with equal weights", "gap of means with random direction"):
        assert f">{row}</" in page.replace("\n", ""), row
    assert "REAL with" not in page


def test_a_legend_shows_its_colour_and_a_spare_one_with_equal_weights(
    run: tuple[Path, str],
) -> None:
    sql = "FROM evaluations WHERE split = 'validation' AND alpha IS NOT NULL"
    curves = wide_rows(rows(run[0], sql))
    figure = effect_against_kl(curves, unsteered={}, max_kl=1.0, main=NAME)
    legend = figure.legends[0]
    looks = {
        text.get_text(): handle.get_color()
        for text, handle in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    assert looks["gap of means"] == "#123456"
    assert looks["gap of means with equal weights"] != "#123456"
    assert "gap of means with PCA direction" in looks


def test_terminal_and_sql_have_it_with_what_it_scored(run: tuple[Path, str]) -> None:
    with out.capture() as shown:
        show_results(result_table(rows(run[0], "FROM evaluations")))
    assert NAME in shown.get() and f"{NAME}_equal_weights" in shown.get()
    sql = "SELECT localizer, min(score) AS least FROM module_scores GROUP BY ALL ORDER BY ALL"
    assert [row["localizer"] for row in rows(run[0], sql)] == [NAME, "random"]
    assert rows(run[0], sql)[0]["least"] > 0


@pytest.mark.usefixtures("entry")
def test_it_stands_at_its_place_and_in_the_plan() -> None:
    assert ordered_methods(["iti", NAME, "unsteered", "real"]) == ["unsteered", "real", NAME, "iti"]
    config = load_config(None, [*CONFIG, "baselines=[iti]"])
    stages = {one.stage: one for one in plan_experiment(config, stated_size(60, 4, 20)).stages}
    n_heads, n_folds = 40, config.data.n_folds
    assert stages["scores"].localizer_flops == 7.0 * n_heads * n_folds
