"""The experiment: from questions to a steered model, a report and rows to query."""

from prefect import flow

from flows.pipeline import outcome_of
from flows.running.fan_out import alone
from flows.running.runners import ConfiguredTaskRunner, check_runner
from real_tasks.experiment.prepared import prepared_for
from real_tasks.tasks.records import run as records
from real_tasks.tasks.records import tracked
from real_tasks.tasks.records.experiment_report import report
from real_tasks.tasks.records.run import Run, running
from real_tasks.tasks.stages.outcome import Outcome
from real_tasks.tasks.stages.pictures import pictures
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from storage.artifacts.store import ArtifactRef, prepare_home
from storage.paths import Home

DEMO = ExperimentConfig()


class Summary(Frozen):
    """Where the result of a flow is."""

    run_id: str
    report: str
    stages: list[dict[str, str | int | float]]
    warnings: list[str]

    def lines(self) -> dict[str, str]:
        """Return what there is to say at the end, by what it is."""
        cached = sum(int(stage["cached"]) for stage in self.stages)
        total = sum(int(stage["shards"]) for stage in self.stages)
        return {
            "run": self.run_id,
            "tasks": f"{total}, of them {cached} from the cache",
            "report": self.report,
        }


@flow(
    name="experiment",
    description="Find the modules that carry a behaviour, steer through them, and measure.",
    flow_run_name="{config.label}",
    task_runner=ConfiguredTaskRunner(),
)
def experiment(config: ExperimentConfig = DEMO) -> Summary:
    """Run the whole pipeline; stages done before are taken from the cache.

    Args:
        config: model, behaviour and all else. Sent as a whole: what is left out of it takes the
            project's default. As it is, the demo runs
    """
    prepared = prepared_for(config)
    config = prepared.config
    check_runner(config.execution)
    prepare_home(Home.current())
    with running("experiment", config, prepared.data.name) as run:
        run.tracking = tracked.start_tracking.submit(dict(run.row), config)
        outcome = outcome_of(run, prepared)
        drawn = alone(
            run,
            pictures,
            config=config.without_execution(),
            outcome=outcome,
            execution=config.execution,
        )
        run.note(mlflow_run_id=run.tracking.result())
        return publish(run, config, outcome, drawn)


def publish(run: Run, config: ExperimentConfig, outcome: Outcome, drawn: ArtifactRef) -> Summary:
    """Write tables, run folder and report, and record all of it in MLflow."""
    warnings = records.publish_tables(run.run_id, config, outcome)
    records.fill_run_folder(run.run_id, outcome, drawn, run.stages, warnings)
    path = report(run.run_id)
    tracked.record_in_mlflow(run.run_id, run.row["mlflow_run_id"], config, outcome)
    return Summary(run_id=run.run_id, report=path, stages=run.stages, warnings=warnings)
