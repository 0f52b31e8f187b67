"""The flow that compares two runs, or a run and a published ranking."""

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.artifacts import Artifact
from scipy.stats import spearmanr

from flows.compare import compare
from real_tasks.experiment.commented import commented_yaml
from real_tasks.experiment.yaml_files import load_config
from real_tasks.results.comparing.two_runs import compare_runs, difference_rows
from real_tasks.tasks.records.comparison import CompareConfig
from real_tasks.vocabulary.errors import UserInputError
from storage.errors import StorageError
from storage.paths import Home
from storage.runs.run import run_folder, write_run
from storage.tables.parquet import write_table

pytestmark = pytest.mark.usefixtures("prefect_server")

START = datetime(2026, 11, 1, tzinfo=UTC)
N_LAYERS, N_HEADS = 4, 6


def scores(run_id: str, truth: np.ndarray) -> list[dict[str, Any]]:
    """One localizer's rows on two folds, whose mean is the truth."""
    rows = []
    for fold in (0, 1):
        values = truth + (0.001 if fold else -0.001)
        order = np.argsort(np.argsort(-values, axis=None)).reshape(values.shape)
        for (layer, head), value in np.ndenumerate(values):
            row = {
                "run_id": run_id,
                "model": "m",
                "model_id": "0",
                "behaviour": "b",
                "localizer": "real",
            }
            row |= {"protocol": "cross_fit", "fold": fold, "seed": 0, "module_kind": "head"}
            row |= {"layer": layer, "head": head, "roc_auc": value, "score": value}
            row |= {"roc_auc_low": None, "roc_auc_high": None, "aupr": None, "f1": None}
            row |= {"perplexity": None, "reconstruction_loss": None, "collapsed": None}
            rows.append(row | {"rank": int(order[layer, head]) + 1})
    return rows


def evaluations(run_id: str, mc2: float) -> list[dict[str, Any]]:
    row = {
        "run_id": run_id,
        "model": "m",
        "model_id": "0",
        "behaviour": "b",
        "seed": 0,
        "split": "test",
    }
    row |= {"top_k": 2, "alpha": 1.0, "token_scope": "all", "metric": "mc2"}
    return [
        row | {"method": method, "fold": fold, "value": value + (0.1 if fold else -0.1)}
        for method, value in (("unsteered", 0.4), ("real", mc2))
        for fold in (0, 1)
    ]


def run(home: Home, run_id: str, day: int, truth: np.ndarray, mc2: float, model: str = "m") -> None:
    folder = run_folder(home, run_id)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(commented_yaml(load_config(None, [])))
    at = START + timedelta(days=day)
    row = {"run_id": run_id, "flow": "experiment", "started_at": at, "finished_at": at}
    row |= {"status": "completed", "model": model, "model_id": "0", "behaviour": "b", "seed": 0}
    write_run(home, row | {"config_digest": "0", "git_commit": None, "mlflow_run_id": None})
    write_table(home, "module_scores", run_id, scores(run_id, truth))
    write_table(home, "evaluations", run_id, evaluations(run_id, mc2))


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.4, 0.9, (N_LAYERS, N_HEADS))


@pytest.fixture
def two(home: Path, truth: np.ndarray) -> Home:
    """Two runs; in the second one, the best head has become the worst."""
    place = Home(home)
    moved = truth.copy()
    moved[np.unravel_index(truth.argmax(), truth.shape)] = 0.1
    run(place, "first", 0, truth, 0.5)
    run(place, "second", 1, moved, 0.7)
    run(place, "elsewhere", 2, truth, 0.6, model="other")
    return place


def test_two_runs_are_compared_and_what_changed_is_found(two: Home, truth: np.ndarray) -> None:
    config = CompareConfig(run_id="second", top_k=3)
    summary = compare(config)
    assert (summary.run_id, summary.other) == ("second", "first")
    text = " ".join(summary.sentences)
    layer, head = np.unravel_index(truth.argmax(), truth.shape)
    assert f"1 left the best 3: layer {layer}, head {head}." in text
    moved = truth.copy()
    moved[layer, head] = 0.1
    expected = spearmanr(truth.ravel(), moved.ravel()).statistic
    assert f"(Spearman) of {expected:.2f} [" in text
    assert "MC2 of REAL, from 0.500 to 0.700" in text
    page, table = Artifact.get("comparison"), Artifact.get("compared-metrics")
    assert page is not None and table is not None
    assert "first and second" in str(page.data)
    assert '"difference": 0.2' in str(table.data)


def test_a_run_with_itself_agrees_wholly(two: Home) -> None:
    summary = compare(CompareConfig(run_id="first", other_run_id="first", top_k=3))
    text = " ".join(summary.sentences)
    assert "of 1.00 [1.00, 1.00]; of the best 3 of each, 3 are the same" in text
    assert "entered" not in text and "left" not in text


def test_runs_of_different_models_are_refused(two: Home) -> None:
    with pytest.raises(UserInputError, match="expected two runs on the same model"):
        compare(CompareConfig(run_id="first", other_run_id="elsewhere"))


def test_without_an_earlier_run_it_says_what_to_name(two: Home) -> None:
    with pytest.raises(UserInputError, match="name a run in other_run_id"):
        compare(CompareConfig(run_id="first"))


def test_without_any_run_it_says_so(home: Path) -> None:
    with pytest.raises(StorageError, match="no completed experiment"):
        compare()


def test_a_run_is_compared_with_a_published_ranking(
    two: Home, truth: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "published.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "fold", "seed", "layer", "head", "roc_auc"])
        for (layer, head), value in np.ndenumerate(truth):
            writer.writerow(["m", 0, 42, layer, head, value])
    summary = compare(CompareConfig(run_id="first", published=str(path), top_k=3))
    assert "(Spearman) of 1.00" in summary.sentences[0]
    assert "Of the best 3 of each, 3 are the same" in summary.sentences[1]
    table = Artifact.get("compared-heads")
    assert table is not None and "published rank" in str(table.data)


def test_differences_are_those_of_the_means(truth: np.ndarray) -> None:
    both = (scores("a", truth), scores("b", truth))
    found = compare_runs(both, (evaluations("a", 0.5), evaluations("b", 0.8)))
    rows = {(row["method"], row["metric"]): row["difference"] for row in difference_rows(found)}
    assert rows[("REAL", "MC2")] == pytest.approx(0.3)
    assert rows[("unsteered", "MC2")] == pytest.approx(0.0)
