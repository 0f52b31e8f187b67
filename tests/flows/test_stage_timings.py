"""What `stage_timings` says of shards that ran, that came from the cache, and that failed."""

import os
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from flows.running.fan_out import ShardsFailedError, fan_out
from real_tasks.experiment.yaml_files import load_config
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.records.run import running
from real_tasks.vocabulary.config import ExecutionConfig
from storage.paths import Home
from storage.sql.catalog import Catalog

pytestmark = pytest.mark.usefixtures("prefect_server", "home")


@stage("probe")
def probe(out: Path, *, number: int, execution: ExecutionConfig) -> dict[str, Any]:
    """Do nothing, or fail."""
    if number < 0:
        raise RuntimeError("no luck")
    (out / "number").write_text(str(number))
    return {"device": "cpu"}


@flow(name="probing")
def probing(numbers: list[int]) -> str:
    """Fan out over numbers as an experiment does over layers."""
    execution = ExecutionConfig(retries=0)
    with running("experiment", load_config(None, []), "demo_truth") as run:
        shards = [(f"n{n}", {"number": n, "execution": execution}) for n in numbers]
        fan_out(run, probe, shards)
    return run.run_id


def timings(run_id: str | None = None) -> list[dict[str, Any]]:
    sql = (
        "SELECT stage, shard, cached, worker, device, seconds, status "
        "FROM stage_timings JOIN runs USING (run_id) "
        "WHERE coalesce(run_id = $run_id, true) ORDER BY shard"
    )
    found: list[dict[str, Any]] = (
        Catalog(Home.current()).query(sql, parameters={"run_id": run_id}).to_pylist()
    )
    return found


def test_a_shard_is_timed_where_it_ran_and_marked_where_it_was_cached() -> None:
    first = timings(probing([1, 2]))
    assert [(r["shard"], r["cached"]) for r in first] == [("n1", False), ("n2", False)]
    assert {r["stage"] for r in first} == {"probe"}
    assert {r["device"] for r in first} == {"cpu"}
    assert {r["worker"].rpartition(":")[2] for r in first} == {str(os.getpid())}
    second = timings(probing([2, 3]))
    assert [(r["shard"], r["cached"]) for r in second] == [("n2", True), ("n3", False)]
    assert second[0]["seconds"] == first[1]["seconds"]


def test_a_run_that_fails_keeps_the_times_of_the_shards_that_are_done() -> None:
    with pytest.raises(ShardsFailedError):
        probing([4, -1])
    assert [(r["shard"], r["status"]) for r in timings()] == [("n4", "failed")]
