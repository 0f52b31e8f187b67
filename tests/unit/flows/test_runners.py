"""Where tasks go, what a cluster is asked for, and what is refused before any work."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import cloudpickle
import pytest
import torch
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from flows.commands.run import assigned
from flows.experiment import experiment
from flows.running import clusters, own_server, runners
from flows.running.clusters import CLUSTERS, check_reachable
from flows.running.runners import ConfiguredTaskRunner, check_runner, here
from flows.running.signals import INTERRUPTED, TERMINATED, StoppedError
from flows.transfer import transfer
from real_tasks.experiment.yaml_files import load_config, load_transfer_config
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stopping import stoppable
from real_tasks.tasks.stages import (
    activations,
    checkpoint,
    dataset,
    effects,
    evaluation,
    fits,
    measured,
    pictures,
    scores,
)
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.errors import UserInputError, WorkFailedError
from storage.paths import Home

STAGES = (
    dataset.dataset,
    checkpoint.checkpoint,
    activations.activations,
    scores.scores,
    effects.effects,
    fits.fits,
    evaluation.evaluation,
    measured.measured,
    pictures.pictures,
)
LOOPBACK = "http://127.0.0.1:4200/api"


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.kind)
def test_a_stage_that_travels_is_the_workers_own(stage: Any) -> None:
    assert cloudpickle.loads(cloudpickle.dumps(stage)) is stage
    task = cloudpickle.loads(cloudpickle.dumps(stage._task))
    assert task.name == stage.kind
    assert task.cache_policy.stage is stage
    assert len(cloudpickle.dumps(stage._task)) < 20_000


@pytest.mark.parametrize("flow", [experiment, transfer], ids=lambda flow: flow.name)
def test_a_flow_travels_with_its_tasks_and_brings_no_threads(flow: Any) -> None:
    copy = cloudpickle.loads(cloudpickle.dumps(flow))
    with copy.task_runner.duplicate() as runner:
        assert isinstance(runner, ConfiguredTaskRunner)
        assert not runner._pools and not runner._clusters


class Recorder:
    """A task runner that notes what it is given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception: Any) -> None:
        pass

    def submit(self, task: str, *_: Any) -> str:
        self.given.append(task)
        return task


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[int, Recorder], Recorder]:
    """Thread pools by their width, and a cluster."""
    pools: dict[int, Recorder] = {}
    cluster = Recorder()
    monkeypatch.setattr(
        runners,
        "ThreadPoolTaskRunner",
        lambda max_workers: pools.setdefault(max_workers, Recorder()),
    )
    monkeypatch.setattr(runners, "_api_url", lambda: LOOPBACK)

    class Started:
        def __enter__(self) -> clusters.Cluster:
            return clusters.Cluster(cluster, ("127.0.0.1",), lambda _: here())

        def __exit__(self, *exception: Any) -> None:
            pass

    kind = clusters.ClusterKind("ray", "prefect_ray", lambda *_: Started())
    monkeypatch.setitem(CLUSTERS, "ray", kind)
    return pools, cluster


def submitted(runner: ConfiguredTaskRunner, name: str, **parameters: Any) -> None:
    task: Any = name
    runner.submit(task, parameters)


def test_shards_go_to_the_cluster_and_all_else_stays_in_the_flows_process(
    recorders: tuple[dict[int, Recorder], Recorder],
) -> None:
    pools, cluster = recorders
    on_ray = ExecutionConfig(runner="ray", max_workers=3)
    with ConfiguredTaskRunner() as runner:
        submitted(runner, "shard", execution=on_ray)
        with here():
            submitted(runner, "alone", execution=on_ray)
        submitted(runner, "bookkeeping", row={})
        submitted(runner, "another shard", execution=on_ray)
    assert cluster.given == ["shard", "another shard"]
    assert pools[3].given == ["alone"]
    assert pools[os.cpu_count() or 1].given == ["bookkeeping"]


def test_the_number_of_threads_is_the_configurations_however_the_flow_is_started(
    recorders: tuple[dict[int, Recorder], Recorder],
) -> None:
    pools, _ = recorders
    with ConfiguredTaskRunner() as runner:
        submitted(runner, "shard", execution=ExecutionConfig(max_workers=5))
    assert pools[5].given == ["shard"]


def test_a_cluster_that_does_not_answer_is_told_of_before_any_work(
    recorders: tuple[dict[int, Recorder], Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        def __enter__(self) -> clusters.Cluster:
            raise ConnectionError("connection refused")

        def __exit__(self, *exception: Any) -> None:
            pass

    kind = clusters.ClusterKind("dask", "prefect_dask", lambda *_: Silent())
    monkeypatch.setitem(CLUSTERS, "dask", kind)
    execution = ExecutionConfig(runner="dask", address="tcp://127.0.0.1:8786")
    with ConfiguredTaskRunner() as runner, here():
        expected = r"no dask cluster answers at tcp://127.0.0.1:8786 \(connection refused\)"
        with pytest.raises(UserInputError, match=expected):
            submitted(runner, "training", execution=execution)
    assert recorders[0] == {}


def test_the_runs_server_is_named_until_the_run_ends_gets_none_of_its_signals_and_tells_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    says = ["sh", "-c", "echo Traceback: a lock >&2; kill -KILL $$"]
    monkeypatch.setattr(own_server, "_command", lambda _: says)
    monkeypatch.setattr(own_server, "owning", lambda _: nullcontext())
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        own_server.serving(Home(tmp_path)) as own,
        own_server.serving(Home(tmp_path)) as same,
    ):
        assert own is not None and same is own
        assert os.environ["PREFECT_API_URL"] == own.url
        assert os.getsid(own.process.pid) == own.process.pid
        own.process.wait()
        with pytest.raises(WorkFailedError, match="did not start .it ended with -9.*log says more"):
            own.wait()
    assert capfd.readouterr() == ("", "")
    assert "a lock" in (Home(tmp_path).logs / "prefect-of-runs.log").read_text()
    assert "PREFECT_API_URL" not in os.environ


@pytest.mark.parametrize("error", [StoppedError(TERMINATED), TerminationSignal(signal.SIGTERM)])
def test_sigterm_ends_tasks_and_does_not_wait_for_those_that_cannot_be_ended(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "_PATIENCE_S", 0.5)
    left: list[str] = []
    begun, done, let_go = Barrier(3), Event(), Event()

    def loops() -> None:
        with stoppable():
            try:
                begun.wait()
                while not done.wait(0.01):
                    pass
            finally:
                left.append("loops")

    def waits() -> None:
        with stoppable():
            begun.wait()
            let_go.wait()
            left.append("waits")

    @contextmanager
    def pool() -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor() as threads:
            yield threads
        left.append("pool")

    with pytest.raises(type(error)), ConfiguredTaskRunner() as runner:
        threads = runner._enter(pool())
        tasks = [threads.submit(loops), threads.submit(waits)]
        begun.wait()
        while not let_go._cond._waiters:  # Only from there on can it not be ended.
            time.sleep(0.001)
        raise error
    assert left == ["loops"]
    done.set()
    let_go.set()
    wait(tasks)
    assert isinstance(tasks[0].exception(), SystemExit)


def test_ctrl_c_waits_for_the_tasks_of_this_process() -> None:
    left: list[str] = []
    with pytest.raises(StoppedError), ConfiguredTaskRunner() as runner:
        threads = runner._enter(ThreadPoolExecutor())
        threads.submit(time.sleep, 0.2).add_done_callback(lambda _: left.append("done"))
        raise StoppedError(INTERRUPTED)
    assert left == ["done"]


def test_a_runner_takes_no_task_before_it_is_started() -> None:
    with pytest.raises(AssertionError, match="between enter and exit"):
        submitted(ConfiguredTaskRunner(), "shard", execution=ExecutionConfig())


def test_the_environment_of_workers_names_the_home_the_store_and_the_server(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAL_STORE", "s3://bucket/prefix")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    environment = runners._environment("http://head:4200/api")
    assert environment["REAL_HOME"] == str(home)
    assert environment["REAL_STORE"] == "s3://bucket/prefix"
    assert environment["PREFECT_API_URL"] == "http://head:4200/api"
    assert "secret" not in environment.values()


@pytest.mark.parametrize("name", ["ray", "dask"])
def test_a_missing_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"prefect_{name}", None)
    with pytest.raises(UserInputError, match=rf"pip install real-steering\[{name}\]"):
        check_runner(ExecutionConfig(runner=name))


def test_an_address_without_a_cluster_is_refused() -> None:
    with pytest.raises(UserInputError, match="runner is thread, which uses no cluster"):
        check_runner(ExecutionConfig(address="ray://head:10001"))


def test_a_device_by_number_is_refused_on_a_cluster() -> None:
    with pytest.raises(UserInputError, match="ray chooses the GPU of each task"):
        check_runner(ExecutionConfig(runner="ray", device="cuda:1"))


@pytest.mark.parametrize(
    "address", ["ray://192.0.2.7:10001", "192.0.2.7:6379", "tcp://no-such-host.invalid:8786"]
)
def test_a_cluster_elsewhere_needs_a_server_that_it_reaches(address: str) -> None:
    for api_url in (LOOPBACK, "http://localhost:4200/api", "http://[::1]:4200/api"):
        with pytest.raises(UserInputError, match="set PREFECT_API_URL to it"):
            check_reachable(api_url, address)
    check_reachable("http://head:4200/api", address)


@pytest.mark.parametrize(
    "address",
    ["auto", "ray://127.0.0.1:10001", "localhost:6379", "tcp://[::1]:8786", socket.gethostname()],
)
def test_a_cluster_of_this_machine_reaches_any_server_of_it(address: str) -> None:
    check_reachable(LOOPBACK, address, None)


def needs(available: dict[str, float], **execution: Any) -> dict[str, Any]:
    return clusters._ray_needs(ExecutionConfig(runner="ray", **execution), available)


def test_a_task_gets_one_gpu_where_there_are_some_and_keeps_its_process() -> None:
    with_gpu = needs({"CPU": 8, "GPU": 2}, retries=1, cpus_per_task=4)
    assert with_gpu == {"num_cpus": 4, "max_retries": 1, "num_gpus": 1, "max_calls": 0}
    assert needs({"CPU": 8, "GPU": 2}, gpus_per_task=0.5)["num_gpus"] == 0.5


def test_a_task_without_a_gpu_asks_for_none() -> None:
    without = {"num_cpus": 1, "max_retries": 2}
    assert needs({"CPU": 8}) == without
    assert needs({"CPU": 8, "GPU": 2}, device="cpu") == without
    assert needs({"CPU": 8, "GPU": 2}, gpus_per_task=0) == without


def test_more_gpus_than_this_machine_has_are_refused_not_waited_for() -> None:
    with pytest.raises(UserInputError, match="asks for 2 GPUs .* this machine has 1"):
        needs({"CPU": 8, "GPU": 1}, gpus_per_task=2)
    # A cluster may grow.
    assert needs({"CPU": 8}, gpus_per_task=2, address="ray://head:10001")["num_gpus"] == 2


def test_a_task_on_a_cluster_has_as_many_threads_as_it_asked_for_cores() -> None:
    before = torch.get_num_threads()
    try:
        use_threads(ExecutionConfig(runner="ray", cpus_per_task=2, max_workers=64))
        assert torch.get_num_threads() == 2
        use_threads(ExecutionConfig(max_workers=64, cpus_per_task=2))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_option_is_short_for_the_assignment() -> None:
    assert assigned(None, None) == []
    given = assigned(["seeds=[0]"], "ray")
    assert load_config(None, given).execution.runner == "ray"
    behaviours = "behaviours=[demo_truth, demo_options]"
    config = load_transfer_config(None, assigned([behaviours], "dask"))
    assert config.experiment.execution.runner == "dask"


def test_the_command_line_knows_the_runners() -> None:
    from flows.cli import app

    help_text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output
    assert "--runner" in help_text and "thread|ray|dask" in help_text
    assert CliRunner().invoke(app, ["run", "--runner", "slurm"]).exit_code == 2
