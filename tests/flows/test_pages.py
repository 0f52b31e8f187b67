"""What a run shows on its page in Prefect while it goes on and when it is done."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.artifacts import Artifact

from flows.running.stage_progress import shown_progress
from real_tasks.report.figures.picture import Picture
from real_tasks.tasks.cache import progress
from real_tasks.tasks.records.pages import show_in_prefect
from storage.paths import Home
from storage.runs.run import run_folder, write_run
from storage.stack_state import ProcessMark, StackState, only_stack, write_state
from storage.tracking.tracker import Tracker

pytestmark = pytest.mark.usefixtures("prefect_server")


def artifact(key: str) -> Artifact:
    found = Artifact.get(key)
    assert found is not None, key
    return found


def run(home: Path) -> str:
    """A run with an MLflow run; returns the id of that."""
    place = Home(home)
    mlflow_run_id = Tracker(place).start_run("pages", "a run", {})
    run_folder(place, "r1").mkdir(parents=True)
    row: dict[str, Any] = {
        "run_id": "r1",
        "flow": "experiment",
        "finished_at": None,
        "model": "m",
        "model_id": "0",
    }
    row |= {"started_at": datetime.now(UTC), "status": "running", "behaviour": "b", "seed": 0}
    write_run(
        place, row | {"config_digest": "0", "git_commit": None, "mlflow_run_id": mlflow_run_id}
    )
    return mlflow_run_id


def shown(home: Path) -> None:
    """Show a run with a table and a picture."""
    picture = Picture("scores_real", "Scores", "How to read it.", "A map.", b"png")
    report = run_folder(Home(home), "r1") / "report.html"

    @flow
    def showing() -> None:
        show_in_prefect("r1", "# Result", [picture], report, [{"method": "REAL", "MC2": "0.5"}])

    showing()


def test_results_are_a_text_a_table_and_pictures(home: Path) -> None:
    run(home)
    shown(home)
    assert artifact("results").data == "# Result"
    table = artifact("result-table")
    assert table.type == "table" and '"MC2": "0.5"' in str(table.data)
    picture = artifact("scores-real")
    assert "![Scores](data:image/png;base64," in str(picture.data)
    assert picture.description == "How to read it."


def test_without_a_stack_the_page_says_where_report_and_record_are(home: Path) -> None:
    mlflow_run_id = run(home)
    shown(home)
    text = str(artifact("places").data)
    assert str(home / "runs" / "r1" / "report.html") in text
    assert mlflow_run_id in text and "mlflow.db" in text


def test_with_a_stack_it_links_to_the_mlflow_run_and_the_report_in_it(home: Path) -> None:
    mlflow_run_id = run(home)
    place = Home(home)
    with only_stack(place):
        mark = ProcessMark(name="supervisor", pid=1, birth="0")
        state = StackState(
            supervisor=mark,
            started_at=datetime.now(UTC),
            prefect_url="http://127.0.0.1:1",
            mlflow_url="http://127.0.0.1:2",
        )
        write_state(place, state)
        shown(home)
    page = f"http://127.0.0.1:2/#/experiments/1/runs/{mlflow_run_id}"
    assert artifact("mlflow").data == f"[MLflow run]({page})"
    assert artifact("report").data == f"[report]({page}/artifacts/report.html)"


def test_progress_says_how_many_heads_are_done_of_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.running.stage_progress.SECONDS_BETWEEN", 0.0)
    seen = []

    @flow
    def scoring() -> None:
        with shown_progress("scores", 24, "heads") as page:
            progress.report("scores", 0, 3)
            page.modules_done += 8
            progress.report("scores", 1, 3)
            seen.append((artifact("progress-scores").data, artifact("progress-scores").description))
            page.modules_done += 16
            progress.report("scores", 3, 3)
            progress.report("evaluation", 1, 2)  # another stage's

    scoring()
    assert float(str(seen[0][0])) == pytest.approx(100 / 3)
    assert seen[0][1] == "scores of modules: 8 of 24 heads, 1 of 3 shards"
    done = artifact("progress-scores")
    assert float(str(done.data)) == 100
    assert done.description == "scores of modules: 24 of 24 heads, 3 of 3 shards"


def test_updates_between_are_spared_but_never_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.running.stage_progress.SECONDS_BETWEEN", 3600.0)
    calls: list[float] = []
    monkeypatch.setattr(
        "flows.running.stage_progress.create_progress_artifact",
        lambda percent, *_: calls.append(percent),
    )
    with shown_progress("directions", 0, "heads"):
        for done in range(11):
            progress.report("directions", done, 10)
    assert calls == [0.0, 100.0]


def test_a_server_that_takes_no_progress_does_not_stop_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> None:
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr("flows.running.stage_progress.create_progress_artifact", fails)
    with shown_progress("directions", 0, "heads"):
        progress.report("directions", 1, 1)
    assert "the progress of directions is not shown: connection refused" in caplog.text
