"""What `real plan` predicts against what the demo's stages take: bytes, tasks, FLOPs.

The stages run one after another on one thread,
with every matrix product counted, on the embedded model after a few steps of training.
"""

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode, baddbmm_flop

from flows.terminal.environment import use_home
from storage.artifacts.store import prepare_home
from tests.benchmarks.common import Options, Row

SMALL = (
    "model.params.steps=3",
    "seeds=[0]",
    "baselines=[{name: iti}]",
    "methods=[unsteered, real]",
    "evaluation.top_k=[8]",
    "evaluation.alphas=[0.6, 1.2]",
    "evaluation.max_kl=100",
    "evaluation.max_new_tokens=12",
    "localizer.params.epochs=8",
    "localizer.params.prior_epochs=4",
    "execution.device=cpu",
    # A thread for each task.
    f"execution.max_workers={os.cpu_count()}",
)
SHOWN = ("activations", "scores", "evaluation")


class Measured:
    """FLOPs and tasks by stage, as the stages ran."""

    def __init__(self) -> None:
        self.flops: defaultdict[str, float] = defaultdict(float)
        self.tasks: defaultdict[str, int] = defaultdict(int)

    def fan_out(
        self,
        _run: Any,
        stage: Any,
        shards: Sequence[tuple[str, Mapping[str, Any]]],
        _shape: Any = None,
    ) -> list[Any]:
        """Run a stage's tasks here, one after another."""
        refs = []
        # Localizers that steer have a stage of their own, which the plan counts among the scores.
        kind = "scores" if stage.kind == "effects" else stage.kind
        for _, inputs in shards:
            with _counter() as counter:
                refs.append(stage.without_prefect(**inputs))
            self.flops[kind] += counter.get_total_flops()
            self.tasks[kind] += 1
        return refs

    def alone(self, run: Any, stage: Any, **inputs: Any) -> Any:
        """Run a stage once."""
        return self.fan_out(run, stage, [(stage.kind, inputs)])[0]


def rows(options: Options) -> Iterator[Row]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        counted, config = run_stages(Path(folder))
        written = stored_bytes(Path(folder))
        plan = predict(config, Path(folder))
    yield _row("activations, bytes", written, plan.activation_bytes)
    for stage in plan.stages:
        if stage.stage in SHOWN:
            yield _row(f"{stage.stage}, tasks", counted.tasks[stage.stage], stage.tasks)
            yield _row(f"{stage.stage}, FLOPs", counted.flops[stage.stage], stage.flops)


def _row(what: str, measured: float, predicted: float) -> Row:
    return Row(f"the small demo's {what}", measured, predicted, "predicted by `real plan`")


def run_stages(home: Path) -> tuple[Measured, Any]:
    """Run every stage up to the evaluation in a home of its own."""
    use_home(home)
    prepare_home(use_home(home))
    os.environ["REAL_HOME"] = str(home)
    from flows import pipeline
    from real_tasks.experiment.prepared import prepare
    from real_tasks.experiment.yaml_files import load_config

    prepared, measured = prepare(load_config(None, SMALL)), Measured()
    run = mock.Mock(run_id="bench", stages=[])
    with (
        mock.patch.object(pipeline, "fan_out", measured.fan_out),
        mock.patch.object(pipeline, "alone", measured.alone),
    ):
        pipeline.outcome_of(run, prepared)
    return measured, prepared.config


def predict(config: Any, home: Path) -> Any:
    """Plan with the made checkpoint's own size and tokenizer."""
    from real_tasks.experiment.planning.data_size import size_of_behaviour
    from real_tasks.experiment.planning.plan import plan_experiment

    (folder,) = (home / "artifacts" / "checkpoint").glob("*/config.json")
    model = config.model.model_copy(update={"path": str(folder.parent), "params": {}})
    known = config.model_copy(update={"model": model})
    return plan_experiment(known, size_of_behaviour(known))


def stored_bytes(home: Path) -> int:
    """Return the bytes of the activations in all Parquet columns but the keys."""
    import pyarrow.parquet as pq

    return sum(
        column.num_values * 2
        for file in (home / "artifacts" / "activations").glob("**/*.parquet")
        for group in [pq.ParquetFile(file).metadata.row_group(0)]
        for column in map(group.column, range(group.num_columns))
        if column.physical_type == "FIXED_LEN_BYTE_ARRAY"
    )


@contextmanager
def _counter() -> Iterator[Any]:
    in_place = {torch.ops.aten.baddbmm_: lambda *shapes, **_: baddbmm_flop(*shapes)}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        yield counter
