"""Fan-out over shards: all of them are tried, and the ones that failed are named together."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import nullcontext
from typing import Any

from prefect.futures import PrefectFuture, as_completed

from flows.running.runners import here
from flows.running.stage_progress import shown_progress
from real_tasks.tasks.cache import progress
from real_tasks.tasks.cache.stage import Stage, store
from real_tasks.tasks.cache.timings import timing
from real_tasks.tasks.records.run import Run
from real_tasks.vocabulary.errors import UserInputError, WorkFailedError, first_of
from real_tasks.vocabulary.types import ModelShape
from storage.artifacts.store import ArtifactRef


class ShardsFailedError(WorkFailedError):
    """Some shards failed; the others are done and will not be done again."""


def fan_out(
    run: Run,
    stage: Stage,
    shards: Sequence[tuple[str, Mapping[str, Any]]],
    shape: ModelShape | None = None,
) -> list[ArtifactRef]:
    """Run the stage once for each (name, inputs), and return the references in that order.

    Args:
        run: what it is done for.
        stage: what is done.
        shards: names of task runs, and the stage's inputs.
        shape: of the model, where a shard scores the modules of a layer: progress counts them.

    Raises:
        UserInputError: a shard found the user's input wrong.
        ShardsFailedError: shards failed for another reason, after their retries.
    """
    start = time.perf_counter()
    sizes = [shape.modules_per_layer(one["kind"]) if shape else 0 for _, one in shards]
    kinds = {inputs.get("kind") for _, inputs in shards}
    noun = "heads" if kinds == {"head"} else "modules"
    with shown_progress(stage.kind, sum(sizes), noun) as page:
        progress.report(stage.kind, 0, len(shards))
        futures: list[PrefectFuture[ArtifactRef]] = [
            _submitted(stage, name, inputs) for name, inputs in shards
        ]
        modules = {id(future): size for future, size in zip(futures, sizes, strict=True)}
        for done, future in enumerate(as_completed(futures), start=1):
            future.wait()  # it is done; a future on a cluster fetches its state only now
            page.modules_done += modules[id(future)]
            progress.report(stage.kind, done, len(shards))
    run.use([future.result() for future in futures if future.state.is_completed()])
    timings = _timings(stage, [name for name, _ in shards], futures)
    run.timings += timings
    _raise_failures(stage, [name for name, _ in shards], futures)
    run.stages.append(
        {
            "stage": stage.kind,
            "shards": len(shards),
            "cached": sum(row["cached"] for row in timings),
            "seconds": round(time.perf_counter() - start, 2),
        }
    )
    return [future.result() for future in futures]


def alone(run: Run, stage: Stage, **inputs: Any) -> ArtifactRef:
    """Run the stage once, in the flow's own process, whose cores and progress are its."""
    with here():
        return fan_out(run, stage, [(stage.kind, inputs)])[0]


def _submitted(stage: Stage, name: str, inputs: Mapping[str, Any]) -> PrefectFuture[ArtifactRef]:
    # What is there already is sooner looked up than sent to another process.
    with here() if stage.made(inputs) else nullcontext():
        return stage.submit(name, **inputs)


def _timings(
    stage: Stage, names: Sequence[str], futures: Sequence[PrefectFuture[ArtifactRef]]
) -> list[dict[str, Any]]:
    return [
        timing(stage.kind, name, store().facts(future.result()), future.task_run_id)
        for name, future in zip(names, futures, strict=True)
        if future.state.is_completed()
    ]


def _raise_failures(
    stage: Stage, names: Sequence[str], futures: Sequence[PrefectFuture[ArtifactRef]]
) -> None:
    failures: dict[str, BaseException] = {}
    for name, future in zip(names, futures, strict=True):
        try:
            future.result()
        except (Exception, CancelledError) as error:
            failures[name] = error
    for failure in failures.values():
        if isinstance(failure, UserInputError):
            raise failure
    if failures:
        first = next(iter(failures.values()))
        raise ShardsFailedError(
            f"{len(failures)} of {len(names)} shards of {stage.kind} failed: "
            f"{first_of([*failures], 6)}. The first says: {type(first).__name__}: {first}. "
            "The others are kept: mend the cause and run again with the same configuration"
        ) from first
