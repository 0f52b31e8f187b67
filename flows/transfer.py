"""Zero-shot transfer: what was found on each behaviour, tried on every other."""

from collections.abc import Sequence
from itertools import product

from prefect import flow

from flows.experiment import Summary
from flows.pipeline import folds_of, outcome_of
from flows.running.fan_out import fan_out
from flows.running.runners import ConfiguredTaskRunner, check_runner
from real_tasks.experiment.prepared import Prepared
from real_tasks.experiment.transfer import behaviour_labels, prepared_transfer_for
from real_tasks.tasks.records import tracked
from real_tasks.tasks.records.run import Run, running
from real_tasks.tasks.records.transfer import (
    fill_transfer_folder,
    publish_transfer,
    record_transfer_in_mlflow,
)
from real_tasks.tasks.stages.measured import measured
from real_tasks.tasks.stages.outcome import Outcome, Transferred
from real_tasks.vocabulary.experiment_config import DEMO_TRANSFER, TransferConfig
from storage.artifacts.store import prepare_home
from storage.paths import Home


@flow(
    name="transfer",
    description="Steer every behaviour by what was found on every other; a matrix of gains.",
    flow_run_name="transfer {config.label}",
    task_runner=ConfiguredTaskRunner(),
)
def transfer(config: TransferConfig = DEMO_TRANSFER) -> Summary:
    """Run the pipeline on every behaviour, then measure each with the specs of each.

    Args:
        config: the behaviours and what they share. Sent as a whole: what is left out of it takes
            the project's default. As it is, two behaviours of the demo are taken
    """
    config, sources = prepared_transfer_for(config)
    check_runner(config.experiment.execution)
    prepare_home(Home.current())
    with running("transfer", config, ", ".join(behaviour_labels(config.behaviours))) as run:
        run.tracking = tracked.start_tracking.submit(dict(run.row), config)
        outcomes = [outcome_of(run, source) for source in sources]
        cells = carry_over(run, config, sources, outcomes)
        run.note(mlflow_run_id=run.tracking.result())
        objectives = [source.config.evaluation.objective for source in sources]
        warnings = publish_transfer(run.run_id, config, objectives, cells)
        path = fill_transfer_folder(run.run_id, run.stages, warnings)
        record_transfer_in_mlflow(run.run_id, run.row["mlflow_run_id"])
        return Summary(run_id=run.run_id, report=path, stages=run.stages, warnings=warnings)


def carry_over(
    run: Run, config: TransferConfig, sources: Sequence[Prepared], outcomes: Sequence[Outcome]
) -> tuple[Transferred, ...]:
    """Measure every target with every source's specs, a task for each fold and seed."""
    labels = behaviour_labels(config.behaviours)
    settings = [
        (source, target, item)
        for source, target in product(range(len(outcomes)), repeat=2)
        for item in outcomes[source].evaluations
        if item.method == config.method
    ]
    shards = []
    for source, target, item in settings:
        folds = [folds_of(outcomes[i].dataset, config.experiment) for i in (source, target)]
        shards.append(
            (
                f"{labels[source]}-to-{labels[target]}-fold-{item.fold}-seed-{item.seed}",
                {
                    "model": outcomes[source].model(config.experiment.model),
                    "evaluation": item.evaluation,
                    "source": folds[0][item.fold],
                    "target": folds[1][item.fold],
                    "config": sources[target].config.evaluation,
                    "execution": config.experiment.execution,
                },
            )
        )
    refs = fan_out(run, measured, shards)
    return tuple(
        Transferred(
            source=labels[source],
            target=labels[target],
            fold=item.fold,
            seed=item.seed,
            measured=ref,
        )
        for (source, target, item), ref in zip(settings, refs, strict=True)
    )
