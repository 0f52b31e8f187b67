"""Ray and Dask, really run on this machine: the bits of threads, and what a dead worker costs."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fragile_stages import fragile
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName

from flows.experiment import experiment
from flows.pipeline import outcome_of
from flows.running.clusters import CLUSTERS
from flows.running.fan_out import ShardsFailedError, fan_out
from flows.running.runners import ConfiguredTaskRunner
from real_tasks.experiment.prepared import prepare
from real_tasks.experiment.yaml_files import load_config
from real_tasks.tasks.cache.stage import store
from real_tasks.tasks.records.run import running
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from storage.paths import Home

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.drill]
pytest.importorskip("prefect_ray", reason="extra ray is not installed")
pytest.importorskip("prefect_dask", reason="extra dask is not installed")

SMALL = [
    "model.params.steps=1",
    "seeds=[0]",
    "data.limit=40",
    "methods=[unsteered, real, causal]",
    "evaluation.top_k=[2]",
    "evaluation.alphas=[1.0]",
    "evaluation.max_new_tokens=4",
    "evaluation.neutral_texts=4",
    "evaluation.bootstrap_samples=50",
    "localizer.params.epochs=1",
    "localizer.params.prior_epochs=1",
    "localizer.params.cross_folds=2",
    "localizer.params.bootstrap_samples=50",
    "execution.device=cpu",
]
ON_THE_CLUSTER = {"activations", "scores", "effects", "fits", "evaluation"}


def small(runner: str) -> ExperimentConfig:
    # A task on a cluster has one thread, and so has one of as many tasks as there are cores.
    workers = f"execution.max_workers={os.cpu_count()}"
    return load_config(None, [*SMALL, workers, f"execution.runner={runner}"])


def digests(home: Path) -> dict[tuple[str, str], str]:
    """The digest of every artifact of a home, by kind and key, those of `work` alone."""
    manifests = [json.loads(path.read_text()) for path in home.glob("artifacts/*/*/manifest.json")]
    others = {"pictures", fragile.kind}
    return {(m["kind"], m["key"]): m["digest"] for m in manifests if m["kind"] not in others}


@flow(task_runner=ConfiguredTaskRunner())
def work(config: ExperimentConfig) -> None:
    """The experiment without its pictures and records."""
    prepared = prepare(config)
    with running("experiment", prepared.config, prepared.data.name) as run:
        outcome_of(run, prepared)


@pytest.fixture(scope="module")
def threaded(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: None
) -> dict[tuple[str, str], str]:
    root = tmp_path_factory.mktemp("threaded") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REAL_HOME", str(root))
        work(small("thread"))
    return digests(root)


@pytest.fixture(scope="module")
def ray_home(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[Path]:
    """One cluster, found and used by all flows of this module, and the home of its workers."""
    home = tmp_path_factory.mktemp("ray") / "home"
    execution = ExecutionConfig(runner="ray", max_workers=2, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        # Workers import what the tests do: this checkout, and the stage of this folder.
        folder = Path(__file__).parent
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (folder, folder.parents[1]))))
        patch.setenv("REAL_HOME", str(home))
        with CLUSTERS["ray"].start(execution, {}):
            yield home


def test_an_experiment_on_ray_gives_the_same_bits_as_on_threads(
    threaded: dict[tuple[str, str], str], ray_home: Path
) -> None:
    summary = experiment(small("ray"))
    assert {kind for kind, _ in threaded} >= ON_THE_CLUSTER
    assert digests(ray_home) == threaded
    assert not any(stage["cached"] for stage in summary.stages)


def test_an_experiment_on_dask_gives_the_same_bits_as_on_threads(
    threaded: dict[tuple[str, str], str], home: Path
) -> None:
    work(small("dask"))
    assert digests(home) == threaded


@flow(task_runner=ConfiguredTaskRunner())
def squares(config: ExperimentConfig, orders: str, count: int) -> tuple[list[str], int]:
    """Return the squares, and how many were in the cache."""
    with running("experiment", config, "fragile") as run:
        inputs = {"orders": orders, "execution": config.execution}
        shards = [(f"square-of-{n}", {"number": n, **inputs}) for n in range(count)]
        refs = fan_out(run, fragile, shards)
        found = [(store().open(ref) / "square").read_text() for ref in refs]
        return found, run.stages[-1]["cached"]


def on_ray(retries: int) -> ExperimentConfig:
    return load_config(None, ["execution.runner=ray", f"execution.retries={retries}"])


def tries(orders: Path) -> dict[int, int]:
    return {int(p.stem): len(p.read_text().splitlines()) for p in orders.glob("*.tries")}


@pytest.fixture
def orders(ray_home: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "orders"
    folder.mkdir()
    return folder


def test_the_shard_of_a_killed_worker_is_tried_again_and_nothing_else_is(orders: Path) -> None:
    (orders / "2").write_text("x")
    found, cached = squares(on_ray(retries=1), str(orders), 6)
    assert (found, cached) == (["0", "1", "4", "9", "16", "25"], 0)
    assert tries(orders) == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1, 5: 1}


def test_a_shard_that_kills_every_worker_fails_alone_and_is_named(orders: Path) -> None:
    (orders / "1").write_text("xx")
    with pytest.raises(ShardsFailedError, match=r"1 of 4 shards of fragile failed: square-of-1\. "):
        squares(on_ray(retries=1), str(orders), 4)
    assert tries(orders) == {0: 1, 1: 2, 2: 1, 3: 1}
    found, cached = squares(on_ray(retries=0), str(orders), 4)
    assert (found, cached) == (["0", "1", "4", "9"], 3)
    assert tries(orders)[1] == 3


def test_an_error_of_the_users_keeps_its_kind_and_words_and_is_not_tried_again(
    orders: Path,
) -> None:
    (orders / "1.wrong").touch()
    with pytest.raises(UserInputError, match="1 is no number to square; give another"):
        squares(on_ray(retries=2), str(orders), 2)
    assert tries(orders) == {0: 1, 1: 1}


def test_what_is_in_the_cache_is_not_sent_to_the_cluster(orders: Path) -> None:
    squares(on_ray(retries=0), str(orders), 3)
    lost = fragile.key({"number": 1, "orders": str(orders)})
    shutil.rmtree(Home.current().artifacts / fragile.kind / lost)
    found, cached = squares(on_ray(retries=0), str(orders), 3)
    assert (found, cached) == (["0", "1", "4"], 2)
    assert tries(orders) == {0: 1, 1: 2, 2: 1}
    pids = [path.read_text().splitlines() for path in orders.glob("*.tries")]
    assert str(os.getpid()) not in sum(pids, [])


def test_the_task_runs_of_workers_are_recorded_by_the_flows_server(orders: Path) -> None:
    squares(on_ray(retries=0), str(orders), 8)
    with get_client(sync_client=True) as client:
        names = FlowFilter(name=FlowFilterName(any_=[squares.name]))
        for _ in range(50):
            runs = client.read_task_runs(flow_filter=names)
            done = {run.name for run in runs if run.state_name == "Completed"}
            if {"square-of-6", "square-of-7"} <= done:  # of this test alone
                break
            time.sleep(0.2)
    assert {"square-of-6", "square-of-7"} <= done
