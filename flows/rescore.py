"""Recurring re-scoring: is what was found still what carries the behaviour?"""

from prefect import flow
from prefect.runtime import flow_run

from flows.experiment import Summary
from flows.pipeline import outcome_of
from flows.running.fan_out import fan_out
from flows.running.runners import ConfiguredTaskRunner, check_runner
from real_tasks.experiment.prepared import Prepared
from real_tasks.tasks.records import tracked
from real_tasks.tasks.records.run import Run, running
from real_tasks.tasks.rescoring.plan import (
    Measured,
    Rescored,
    Rescoring,
    baseline_label,
    deployed_steering,
    rescoring_for,
)
from real_tasks.tasks.rescoring.record import (
    publish_drift,
    publish_unchanged,
    record_drift_in_mlflow,
    warn_of_drift,
)
from real_tasks.tasks.stages.measured import measured
from real_tasks.tasks.stages.outcome import Outcome
from real_tasks.vocabulary.rescore_config import RescoreConfig
from storage.artifacts.store import prepare_home
from storage.paths import Home

LAST = RescoreConfig()


class RescoreSummary(Summary):
    """Where the result of a re-scoring is, and what it says.

    Attributes:
        baseline_run_id: the run whose steering is in use.
        compared_run_id: the scoring that this one is compared with.
        changed: what is new since then: data, model, code; empty where nothing was scored again.
        exceeded: the thresholds that were passed.
        sentences: the result in words.
    """

    baseline_run_id: str
    compared_run_id: str
    changed: list[str]
    exceeded: list[str]
    sentences: list[str]


def flow_run_name() -> str:
    """Return the name of the present flow run: that of its baseline, as an experiment has it."""
    return f"rescore {baseline_label(RescoreConfig.model_validate(flow_run.parameters['config']))}"


@flow(
    name="rescore",
    description="Score a run's modules again if data, model or code are new, and report drift.",
    flow_run_name=flow_run_name,
    task_runner=ConfiguredTaskRunner(),
)
def rescore(config: RescoreConfig = LAST) -> RescoreSummary:
    """Score again if anything is new, compare with the last scoring, and say if it has drifted.

    Args:
        config: the run whose steering is in use, and what is new. As it is, the last completed
            experiment is scored again if its data, its model or the code have changed since
    """
    prepare_home(Home.current())
    plan, prepared = rescoring_for(config)
    check_runner(plan.experiment.execution)
    with running("rescore", plan.experiment, prepared.data.name) as run:
        if not plan.changed:
            run.note(**plan.compared.outcome.model(plan.experiment.model).columns)
            found = publish_unchanged(run.run_id, plan)
        else:
            run.tracking = tracked.start_tracking.submit(dict(run.row), plan.experiment)
            outcome = score_again(run, plan, prepared)
            run.note(mlflow_run_id=run.tracking.result())
            found = publish_drift(run.run_id, plan, outcome, run.stages)
            record_drift_in_mlflow(run.run_id, run.row["mlflow_run_id"])
            warn_of_drift(run.run_id, plan, found)
        return RescoreSummary(
            run_id=run.run_id,
            report=found.report,
            stages=run.stages,
            warnings=[],
            baseline_run_id=plan.baseline_run_id,
            compared_run_id=plan.compared_run_id,
            changed=list(plan.changed),
            exceeded=list(found.exceeded),
            sentences=list(found.sentences),
        )


def score_again(run: Run, plan: Rescoring, prepared: Prepared) -> Rescored:
    """Extract what is new, score all of it, and measure the steering in use."""
    outcome = outcome_of(run, prepared, evaluating=False)
    return Rescored(outcome=outcome, measured=measure_deployed(run, plan, outcome))


def measure_deployed(run: Run, plan: Rescoring, outcome: Outcome) -> tuple[Measured, ...]:
    """Measure what the baseline steers with on the questions that it never saw."""
    deployed, model = deployed_steering(plan), outcome.model(plan.experiment.model)
    shards = [
        (
            f"{plan.method}-fold-{item.fold}-seed-{item.seed}",
            plan.measuring(model, outcome.dataset, item) | {"execution": plan.experiment.execution},
        )
        for item in deployed
    ]
    refs = fan_out(run, measured, shards)
    return tuple(
        Measured(fold=item.fold, seed=item.seed, measured=ref)
        for item, ref in zip(deployed, refs, strict=True)
    )
