"""The experiment as a whole, on a demo model that was hardly trained: what runs, what does not."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.experiment import Summary, experiment
from flows.running.fan_out import ShardsFailedError
from real_tasks.experiment.yaml_files import load_config
from real_tasks.localizers import LOCALIZERS
from real_tasks.tasks.reports import write_report
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from storage.errors import StorageError
from storage.paths import Home
from storage.sql.catalog import Catalog
from storage.tracking.tracker import Tracker

pytestmark = pytest.mark.usefixtures("prefect_server")

SMALL = [
    "model.params.steps=1",
    "seeds=[0]",
    "data.limit=24",
    "evaluation.neutral_texts=4",
    "methods=[unsteered, real, random, all]",
    "evaluation.top_k=[2]",
    "evaluation.alphas=[1.0]",
    "evaluation.max_new_tokens=4",
    "evaluation.bootstrap_samples=50",
    "localizer.params.epochs=1",
    "localizer.params.prior_epochs=1",
    "localizer.params.cross_folds=2",
    "localizer.params.bootstrap_samples=50",
]
EVERY_STAGE = {
    "dataset",
    "checkpoint",
    "activations",
    "scores",
    "effects",
    "fits",
    "evaluation",
}


def small(*changes: str) -> ExperimentConfig:
    return load_config(None, [*SMALL, *changes])


def made(summary: Summary) -> dict[str, int]:
    """How many tasks of each stage ran, not counting those found in the cache."""
    counts = {
        str(stage["stage"]): int(stage["shards"]) - int(stage["cached"]) for stage in summary.stages
    }
    return {stage: count for stage, count in counts.items() if count}


@pytest.fixture(scope="module")
def first_run(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: None
) -> Iterator[tuple[Path, Summary]]:
    root = tmp_path_factory.mktemp("first") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REAL_HOME", str(root))
        yield root, experiment(small())


@pytest.fixture
def copy(
    first_run: tuple[Path, Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Summary]:
    """A home of the test's own in which the experiment has run once."""
    source, summary = first_run
    shutil.copytree(source, tmp_path / "home", ignore=shutil.ignore_patterns("mlflow"))
    monkeypatch.setenv("REAL_HOME", str(tmp_path / "home"))
    return tmp_path / "home", summary


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of runs in half precision, which find there what they share."""
    return tmp_path_factory.mktemp("half") / "home"


def rows(root: Path, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Catalog(Home(root)).query(sql).to_pylist()
    return found


def test_a_first_run_makes_every_stage_and_fills_every_view(
    first_run: tuple[Path, Summary],
) -> None:
    root, summary = first_run
    assert set(made(summary)) == EVERY_STAGE | {"pictures"}
    (run,) = rows(root, "FROM runs")
    assert (run["run_id"], run["status"]) == (summary.run_id, "completed")
    for view in (
        "samples",
        "module_scores",
        "text_scores",
        "selected_modules",
        "evaluations",
        "answers",
    ):
        assert rows(root, f"SELECT count(*) AS n FROM {view}")[0]["n"] > 0, view
    assert rows(root, "SELECT count(*) AS n FROM comparisons")[0]["n"] > 0
    layers = rows(root, "SELECT layer, count(*) AS n FROM activations GROUP BY ALL ORDER BY layer")
    samples = rows(root, "SELECT count(*) AS n FROM samples")[0]["n"]
    assert layers == [{"layer": layer, "n": samples} for layer in range(5)]
    assert "<html" in Path(summary.report).read_text()


@pytest.mark.parametrize(("alphas", "kept"), [("[1.0, 1e8]", {1.0}), ("[1e9]", set())])
def test_an_alpha_that_overflows_is_ruled_out_and_said(
    half: Path, monkeypatch: pytest.MonkeyPatch, alphas: str, kept: set[float]
) -> None:
    monkeypatch.setenv("REAL_HOME", str(half))
    options = ["methods=[unsteered, random]", "baselines=[random]", "model.dtype=float16"]
    summary = experiment(small(*options, "evaluation.max_kl=5", f"evaluation.alphas={alphas}"))
    (warning,) = [text for text in summary.warnings if "overflows" in text]
    assert warning.startswith("random: ") and "float16" in warning
    assert ("every setting" in warning) == (not kept)
    assert warning in Path(summary.report).read_text()
    found = rows(
        half,
        "SELECT alpha, metric, value FROM evaluations WHERE method = 'random' AND "
        f"split = 'validation' AND alpha IS NOT NULL AND run_id = '{summary.run_id}'",
    )
    ruled_out = [row for row in found if row["alpha"] >= 1e8]
    assert {row["metric"] for row in ruled_out} == {"overflows"}
    assert {row["alpha"] for row in found if row["metric"] == "kl"} == kept


def test_every_module_is_scored_once_per_localizer_fold_and_seed(
    first_run: tuple[Path, Summary],
) -> None:
    found = rows(
        first_run[0],
        "SELECT localizer, fold, count(*) AS n, count(DISTINCT rank) AS ranks FROM module_scores "
        "GROUP BY ALL ORDER BY localizer, fold",
    )
    assert found == [
        {"localizer": localizer, "fold": fold, "n": 40, "ranks": 40}
        for localizer in ("causal", "iti", "random", "real")
        for fold in (0, 1)
    ]


@pytest.mark.parametrize(("kind", "layers"), [("residual_mid", 5), ("final", 1)])
def test_another_part_is_read_scored_steered_and_shown(
    kind: str, layers: int, copy: tuple[Path, Summary]
) -> None:
    root, _ = copy
    config = small(f"module_kind={kind}", "evaluation.top_k=[1]", "baselines=[random]")
    run = experiment(config).run_id
    scored = rows(root, f"FROM module_scores WHERE run_id = '{run}' AND localizer = 'real'")
    assert {row["module_kind"] for row in scored} == {kind}
    assert {row["layer"] for row in scored} == set(range(layers))
    assert {row["head"] for row in scored} == {None}
    (read,) = rows(
        root,
        f"SELECT count({kind}) AS n, count(DISTINCT layer) AS layers, "
        f"FROM activations WHERE module_kind = '{kind}'",
    )
    samples = rows(root, "SELECT count(*) AS n FROM samples")[0]["n"]
    assert read == {"n": layers * samples, "layers": layers}
    tuned = "SELECT value FROM evaluations WHERE method = 'real' AND metric = 'kl'"
    assert all(row["value"] > 0 for row in rows(root, f"{tuned} AND run_id = '{run}'"))
    assert "<html" in Path(write_report(Home(root), run)).read_text()


def test_tested_questions_are_those_of_the_fold_and_only_those(
    first_run: tuple[Path, Summary],
) -> None:
    wrong = rows(
        first_run[0],
        "SELECT count(*) AS n FROM answers JOIN (SELECT DISTINCT question_id, fold FROM samples) "
        "AS s USING (question_id) WHERE answers.fold <> s.fold",
    )
    assert wrong == [{"n": 0}]


def test_mlflow_holds_a_parent_and_a_child_per_method(first_run: tuple[Path, Summary]) -> None:
    root, summary = first_run
    client = Tracker(Home(root))._client
    parent = rows(root, "FROM runs")[0]["mlflow_run_id"]
    experiment_id = client.get_run(parent).info.experiment_id
    runs = client.search_runs([experiment_id])
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent]
    assert {r.info.run_name for r in children} == {"unsteered", "real", "random", "all"}
    assert {a.path for a in client.list_artifacts(parent)} >= {"config.yaml", "figures"}
    real = next(r for r in children if r.info.run_name == "real")
    expected = rows(
        root,
        "SELECT avg(value) AS v FROM evaluations WHERE method = 'real' AND split = 'test' "
        "AND metric = 'mc2'",
    )[0]["v"]
    assert real.data.metrics["test/mc2"] == pytest.approx(expected)
    assert client.get_run(parent).info.status == "FINISHED"
    assert summary.run_id == client.get_run(parent).data.tags["run_id"]


def test_a_second_identical_run_makes_nothing_and_is_recorded_all_the_same(
    copy: tuple[Path, Summary],
) -> None:
    root, first = copy
    second = experiment(small())
    assert made(second) == {}
    assert len(rows(root, "FROM runs WHERE status = 'completed' AND mlflow_run_id NOT NULL")) == 2
    both = rows(
        root,
        "SELECT run_id, avg(value) AS v FROM evaluations WHERE split = 'test' GROUP BY ALL",
    )
    assert len(both) == 2 and both[0]["v"] == both[1]["v"]
    assert first.run_id != second.run_id


def test_other_alphas_run_evaluation_again_and_nothing_before_it(
    copy: tuple[Path, Summary],
) -> None:
    summary = experiment(small("evaluation.alphas=[1.0, 2.0]"))
    assert set(made(summary)) == {"evaluation", "pictures"}


def test_another_seed_scores_again_but_never_extracts_again(copy: tuple[Path, Summary]) -> None:
    summary = experiment(small("seeds=[7]", "methods=[unsteered, real]", "baselines=[iti]"))
    assert "activations" not in made(summary) and "checkpoint" not in made(summary)
    # ITI looks at no seed, but its rows carry one: its five layers in two folds are other tasks.
    assert made(summary)["scores"] >= 10


def test_where_and_how_wide_it_runs_is_no_part_of_the_cache(copy: tuple[Path, Summary]) -> None:
    assert made(experiment(small("execution.max_workers=1", "execution.device=cpu"))) == {}


def test_deleting_an_artifact_makes_just_that_one_again(copy: tuple[Path, Summary]) -> None:
    root, _ = copy
    shutil.rmtree(sorted((root / "artifacts" / "scores").iterdir())[0])
    assert made(experiment(small())) == {"scores": 1}


def test_a_damaged_artifact_is_made_again_with_a_warning(
    copy: tuple[Path, Summary], caplog: pytest.LogCaptureFixture
) -> None:
    root, _ = copy
    shard = sorted((root / "artifacts" / "activations").rglob("shard-0000.parquet"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="storage.artifacts.store"):
        assert made(experiment(small())) == {"activations": 1}
    assert any("damaged artifact" in record.message for record in caplog.records)


def test_one_failed_shard_neither_loses_nor_repeats_the_others(
    copy: tuple[Path, Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = LOCALIZERS["random"]
    works = random.localize

    def fails_in_layer_2(self: Any, data: Any, seed: int) -> Any:
        if data.modules[0].layer == 2 and seed == 5:
            raise RuntimeError("the device fell off the bus")
        return works(self, data, seed)

    monkeypatch.setattr(random, "localize", fails_in_layer_2)
    config = small("seeds=[5]", "execution.retries=0", "data.n_folds=2", "baselines=[random]")
    named = "random-head-fold-0-seed-5-layer-2.*fell off the bus"
    with pytest.raises(ShardsFailedError, match=named):
        experiment(config)
    failed = rows(copy[0], "FROM runs ORDER BY started_at")[-1]
    assert failed["status"] == "failed"
    with pytest.raises(StorageError, match="has no results to report"):
        write_report(Home(copy[0]), failed["run_id"])
    monkeypatch.setattr(random, "localize", works)
    assert made(experiment(config))["scores"] == 2


def test_a_task_that_fails_once_is_retried(
    copy: tuple[Path, Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = LOCALIZERS["random"]
    works, calls = random.localize, []

    def fails_once(self: Any, data: Any, seed: int) -> Any:
        calls.append(data.modules[0].layer)
        if calls.count(3) == 1 and data.modules[0].layer == 3:
            raise OSError("no space left on device")
        return works(self, data, seed)

    monkeypatch.setattr(random, "localize", fails_once)
    methods = ["methods=[unsteered, random]", "baselines=[random]"]
    experiment(small("seeds=[9]", "execution.retries=1", *methods))
    assert calls.count(3) == 3  # two folds, one of them twice
