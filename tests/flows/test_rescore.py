"""Re-scoring of a hardly trained demo model on a file of questions that grows and changes."""

import asyncio
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore
from prefect.server.events.actions import RunDeployment
from prefect.server.events.schemas.automations import Automation, TriggeredAction
from prefect.server.events.schemas.events import ReceivedEvent
from typer.testing import CliRunner

from flows.cli import app
from flows.experiment import Summary, experiment
from flows.rescore import rescore
from real_tasks.evaluation.measuring import Evaluator, Measurement
from real_tasks.experiment.yaml_files import load_config
from real_tasks.questions.behaviours.demo_truth import DemoTruth
from real_tasks.tasks.cache import stage
from real_tasks.tasks.reports import write_report
from real_tasks.tasks.rescoring import record
from real_tasks.tasks.rescoring.plan import baseline_label, plan_rescoring
from real_tasks.vocabulary.errors import OverflowedError, UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.rescore_config import DriftThresholds, RescoreConfig
from storage.errors import StorageError
from storage.paths import Home
from storage.runs.run import find_run
from storage.sql.catalog import Catalog
from storage.tracking.tracker import Tracker
from tests.flows.test_experiment import SMALL, made

pytestmark = pytest.mark.usefixtures("prefect_server")

AUTOMATIONS = Path(__file__).parents[2] / "deployments/automations"
DATA = DemoTruth(DemoTruth.Params()).load()
N_QUESTIONS = 22
PER_SHARD = 30
LENIENT = DriftThresholds(min_spearman=-1, min_overlap=0, max_auc_drop=1, max_gain_drop=9)
STRICT = DriftThresholds(min_spearman=0.999, min_overlap=1, max_auc_drop=0, max_gain_drop=9)


def lines(start: int, stop: int, turned: bool = False) -> str:
    rows = []
    for question in DATA.questions[start:stop]:
        texts = [[a.text for a in question.answers if a.label == label][:3] for label in (0, 1)]
        violating, aligned = texts[::-1] if turned else texts
        row = {"question": question.text, "aligned": aligned, "violating": violating}
        rows.append(json.dumps(row) + "\n")
    return "".join(rows)


def small() -> ExperimentConfig:
    own = [
        "behaviour={name: jsonl, params: {path: questions.jsonl, name: own}}",
        "evaluation.neutral=neutral.txt",
        f"extraction.samples_per_shard={PER_SHARD}",
        "evaluation.measures=[multiple_choice]",
        "evaluation.max_kl=100",
        "methods=[unsteered, real, iti]",
        "baselines=[iti]",
        "data.limit=null",
    ]
    return load_config(None, [*SMALL, *own])


@pytest.fixture(scope="module")
def first_run(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: None
) -> tuple[Path, Summary]:
    """A folder with a home, a file of 22 questions, and an experiment on them."""
    root = tmp_path_factory.mktemp("rescore")
    (root / "neutral.txt").write_text("\n\n".join(DATA.neutral_texts[:4]))
    (root / "questions.jsonl").write_text(lines(0, N_QUESTIONS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REAL_HOME", str(root / "home"))
        patch.chdir(root)
        return root, experiment(small())


@pytest.fixture
def folder(
    first_run: tuple[Path, Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The present folder: one of the test's own, as it was after the experiment."""
    copy = tmp_path / "folder"
    shutil.copytree(first_run[0], copy, ignore=shutil.ignore_patterns("mlflow"))
    monkeypatch.setenv("REAL_HOME", str(copy / "home"))
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is emitted, instead of emitting it."""
    emitted: list[dict[str, Any]] = []
    monkeypatch.setattr(record, "emit_event", lambda **event: emitted.append(event))
    return emitted


def rows(folder: Path, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Catalog(Home(folder / "home")).query(sql).to_pylist()
    return found


def lenient(**changes: Any) -> RescoreConfig:
    return RescoreConfig(thresholds=LENIENT, bootstrap_samples=50, **changes)


def test_with_nothing_new_nothing_runs_and_a_trace_is_left(
    folder: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads(*_: Any) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("real_tasks.tasks.stages.models.load_model", loads)
    summary = rescore()
    assert (summary.changed, summary.stages, events) == ([], [], [])
    assert "Nothing is new" in summary.sentences[0]
    (row,) = rows(folder, "FROM score_drift")
    assert (row["run_id"], row["changed"], row["spearman"]) == (summary.run_id, False, None)
    assert row["baseline_run_id"] == row["compared_run_id"] == summary.compared_run_id
    assert row["data_questions"] == N_QUESTIONS
    found = rows(folder, "FROM runs WHERE flow = 'rescore'")
    assert [(r["status"], r["mlflow_run_id"]) for r in found] == [("completed", None)]
    assert rows(folder, f"FROM module_scores WHERE run_id = '{summary.run_id}'") == []


def test_appended_questions_extract_only_the_last_and_new_shards_and_are_measured(
    folder: Path, events: list[dict[str, Any]]
) -> None:
    (folder / "questions.jsonl").write_text(lines(0, N_QUESTIONS + 5))
    summary = rescore(lenient())
    assert (summary.changed, summary.exceeded, events) == (["data"], [], [])
    # Six answers a question: 132 were five shards, the last one not full; now they are 162.
    extraction = next(one for one in summary.stages if one["stage"] == "activations")
    assert (extraction["shards"], extraction["cached"]) == (6, 4)
    assert "checkpoint" not in made(summary)

    overall, *folds = rows(folder, "FROM score_drift ORDER BY fold NULLS FIRST")
    assert [(row["localizer"], row["fold"], row["seed"]) for row in folds] == [
        ("real", 0, 0),
        ("real", 1, 0),
    ]
    assert (overall["what_changed"], overall["fold"]) == ("data", None)
    assert (overall["data_questions"], overall["new_questions"]) == (N_QUESTIONS + 5, 5)
    assert overall["gone_questions"] == 0 and overall["n_modules"] == 40
    assert overall["spearman_low"] <= overall["spearman"] <= overall["spearman_high"]
    assert overall["top_k"] == 2
    # A fold's steering never saw its own test questions, nor the new ones.
    for row in folds:
        assert (row["n_questions"], row["n_excluded"]) == (N_QUESTIONS // 2 + 5, N_QUESTIONS // 2)
    assert (overall["n_questions"], overall["n_excluded"]) == (N_QUESTIONS + 5, 0)


def test_the_gain_before_is_what_the_baseline_measured_and_its_steering_stays(
    folder: Path, first_run: tuple[Path, Summary]
) -> None:
    specs = folder / "home/runs" / first_run[1].run_id / "specs"
    before = {path: path.read_bytes() for path in specs.rglob("*.*")}
    (folder / "questions.jsonl").write_text(lines(0, N_QUESTIONS + 3))
    summary = rescore(lenient())
    assert before == {path: path.read_bytes() for path in specs.rglob("*.*")}
    where = f"run_id = '{first_run[1].run_id}' AND split = 'test' AND metric IN ('mc1', 'mc2')"
    means = rows(
        folder, f"SELECT method, avg(value) AS v FROM evaluations WHERE {where} GROUP BY 1"
    )
    by_method = {row["method"]: row["v"] for row in means}
    (overall,) = rows(folder, "FROM score_drift WHERE fold IS NULL")
    assert overall["gain_before"] == pytest.approx(by_method["real"] - by_method["unsteered"])
    assert overall["gain_change"] == pytest.approx(overall["gain"] - overall["gain_before"])
    # The questions of the file as it was have the gains that they had.
    measured = rows(folder, f"FROM evaluations WHERE run_id = '{summary.run_id}'")
    assert {row["method"] for row in measured} == {"real", "unsteered"}
    assert {row["split"] for row in measured} == {"test"}
    steered = [row for row in measured if row["method"] == "real"]
    assert {(row["top_k"], row["alpha"]) for row in steered} == {(2, 1.0)}


def test_a_run_leaves_pictures_a_report_and_an_mlflow_run_and_is_compared_with_next(
    folder: Path,
) -> None:
    (folder / "questions.jsonl").write_text(lines(0, N_QUESTIONS + 2))
    first = rescore(lenient())
    run_folder = folder / "home/runs" / first.run_id
    assert (run_folder / "figures/drift_real.png").read_bytes().startswith(b"\x89PNG")
    page = Path(first.report).read_text()
    assert "Spearman" in page and "data:image/png" in page
    assert write_report(Home(folder / "home"), first.run_id).read_text() == page
    client = Tracker(Home(folder / "home"))._client
    (row,) = rows(folder, f"FROM runs WHERE run_id = '{first.run_id}'")
    run = client.get_run(row["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    (overall,) = rows(folder, "FROM score_drift WHERE fold IS NULL")
    assert run.data.metrics["drift/real/spearman"] == pytest.approx(overall["spearman"])

    second = rescore(lenient())
    assert (second.changed, second.compared_run_id) == ([], first.run_id)
    assert "Nothing is new" in Path(second.report).read_text()
    third = rescore(lenient(against="baseline"))
    assert (third.changed, made(third)) == (["data"], {})
    assert third.compared_run_id == third.baseline_run_id == first.baseline_run_id
    drift = rows(folder, "SELECT run_id, spearman FROM score_drift WHERE fold IS NULL AND changed")
    assert len(drift) == 2 and drift[0]["spearman"] == drift[1]["spearman"]


def test_steering_that_overflows_on_the_new_questions_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflows(self: Evaluator, part: Any, spec: Any) -> Measurement:
        if spec is not None:
            raise OverflowedError("logits with NaN")
        return measure(self, part, spec)

    measure = Evaluator.measure
    monkeypatch.setattr(Evaluator, "measure", overflows)
    (folder / "questions.jsonl").write_text(lines(0, N_QUESTIONS + 2))
    summary = rescore(lenient())
    said = [text for text in summary.sentences if "overflows float32" in text]
    assert len(said) == 2 and "alpha 1," in said[0]
    assert all(text in Path(summary.report).read_text() for text in said)
    (overall,) = rows(folder, "FROM score_drift WHERE fold IS NULL")
    assert overall["gain"] is None and overall["spearman"] is not None


def test_turned_answers_are_drift_and_emit_one_event_with_its_numbers(
    folder: Path, events: list[dict[str, Any]]
) -> None:
    (folder / "turned.jsonl").write_text(lines(0, N_QUESTIONS, turned=True))
    changes = (f"behaviour.params.path={folder / 'turned.jsonl'}", "execution.max_workers=1")
    summary = rescore(RescoreConfig(thresholds=STRICT, changes=changes, bootstrap_samples=50))
    assert set(summary.exceeded) <= {"min_spearman", "min_overlap", "max_auc_drop"}
    assert summary.exceeded
    (event,) = events
    assert event["event"] == "real.rescore.drift"
    assert event["resource"]["prefect.resource.id"] == f"real.run.{summary.run_id}"
    (overall,) = rows(folder, "FROM score_drift WHERE fold IS NULL")
    assert overall["exceeded"] == ", ".join(summary.exceeded)
    for name in ("spearman", "overlap", "gain_change", "entered", "left"):
        assert event["payload"][name] == overall[name]
    json.dumps(event)
    assert (folder / "questions.jsonl").read_text() == lines(0, N_QUESTIONS)


def test_a_newer_model_is_measured_with_the_steering_of_the_older_one(
    folder: Path, events: list[dict[str, Any]]
) -> None:
    summary = rescore(lenient(changes=("model.params.steps=4",), method="iti"))
    assert summary.changed == ["model"]
    assert made(summary)["activations"] == 5 and made(summary)["checkpoint"] == 1
    overall = rows(folder, "FROM score_drift WHERE fold IS NULL ORDER BY localizer")
    assert [row["localizer"] for row in overall] == ["iti", "real"]
    assert overall[0]["n_questions"] == N_QUESTIONS and overall[1]["gain"] is None
    assert {row["method"] for row in overall} == {"iti"}


def test_new_code_is_noticed_without_new_data_or_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan_rescoring(lenient())[0].changed == ()
    real = stage.code_version
    for place in ("dataset", "checkpoint", "activations", "scores"):

        def edited(*modules: str, place: str = place) -> str:
            return real(*modules) + ("edited" if modules[0].endswith(f".{place}") else "")

        monkeypatch.setattr(stage, "code_version", edited)
        assert plan_rescoring(lenient())[0].changed == ("code",), place


def test_what_cannot_be_scored_again_is_refused_with_the_mend(
    folder: Path, first_run: tuple[Path, Summary]
) -> None:
    trace = rescore(lenient())
    with pytest.raises(UserInputError, match="of the flow 'rescore'"):
        plan_rescoring(lenient(baseline=trace.run_id))
    with pytest.raises(StorageError, match="no run 'nothing'"):
        plan_rescoring(lenient(baseline="nothing"))
    with pytest.raises(UserInputError, match="did not evaluate the method 'caa'; it has unsteered"):
        plan_rescoring(lenient(method="caa"))
    with pytest.raises(UserInputError, match="steers nothing"):
        plan_rescoring(lenient(method="unsteered"))
    with pytest.raises(UserInputError, match="nowhere.jsonl"):
        plan_rescoring(lenient(changes=("behaviour.params.path=nowhere.jsonl",)))
    assert baseline_label(lenient()) == "demo own seed 0"
    assert baseline_label(lenient(baseline="nothing")) == "nothing"
    assert find_run(Home(folder / "home"), None, "experiment")["run_id"] == first_run[1].run_id
    shutil.rmtree(folder / "home/artifacts/dataset")
    with pytest.raises(StorageError, match="is gone, so that nothing can be compared"):
        plan_rescoring(lenient())


def test_the_command_says_what_it_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    result = CliRunner().invoke(app, ["rescore", "--strict", "--home", str(folder / "home")])
    assert result.exit_code == 0, result.output
    assert "Nothing is new since the run" in result.output
    (folder / "mine.yaml").write_text("thresholds: {min_spearman: 2}")
    refused = CliRunner().invoke(app, ["rescore", "--config", str(folder / "mine.yaml")])
    assert isinstance(refused.exception, UserInputError)
    assert "thresholds.min_spearman" in str(refused.exception)


def test_the_automation_runs_an_experiment_that_the_suggestion_describes() -> None:
    tree = yaml.safe_load((AUTOMATIONS / "on-score-drift.yaml").read_text())
    automation = AutomationCore.model_validate(tree)
    assert not automation.enabled
    assert tree["trigger"]["expect"] == [record.SUGGESTION_EVENT]
    config = load_config(None, ["seeds=[3]", "evaluation.neutral=a 'b' <c>.txt"])
    event = ReceivedEvent(
        occurred=datetime.now(UTC),
        event=record.SUGGESTION_EVENT,
        resource={"prefect.resource.id": "real.run.r"},
        payload={"config": config.model_dump(mode="json")},
        id=uuid4(),
    )
    server = Automation.model_validate(tree | {"id": uuid4()})
    (action,) = server.actions
    assert isinstance(action, RunDeployment)
    triggered = TriggeredAction(
        automation=server,
        triggered=datetime.now(UTC),
        triggering_labels={},
        triggering_event=event,
        action=action,
    )
    filled = asyncio.run(action.render_parameters(triggered))
    assert ExperimentConfig.model_validate(filled["config"]) == config


def test_the_suggestion_names_the_deployment_of_experiments_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert record._experiment_deployment() is None
    deployed = experiment.to_deployment("experiment")
    identifier = deployed.apply()
    named = record._experiment_deployment()
    assert named is not None
    assert named["prefect.resource.id"] == f"prefect.deployment.{identifier}"
