"""What a run shows on its page in Prefect: results, pictures, links to MLflow and the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from real_tasks.report.figures.picture import Picture
from real_tasks.report.page import data_uri, render_page
from real_tasks.tasks.records.run import write_page
from real_tasks.tasks.stages.pictures import FIGURES, write_pictures
from storage.paths import Home
from storage.runs.run import find_run, run_folder
from storage.stack_state import live_stack
from storage.tracking.tracker import Tracker


def publish_page(run_id: str, template: str, page: Mapping[str, Any], text: str) -> Path:
    """Write a page and its pictures into the run's folder; show them, and a text, in Prefect."""
    home = Home.current()
    write_pictures(run_folder(home, run_id) / FIGURES, page["pictures"])
    path = write_page(home, run_id, render_page(template, page))
    show_in_prefect(run_id, text, page["pictures"], path)
    return path


def show_in_prefect(
    run_id: str,
    text: str,
    pictures: Sequence[Picture],
    report: Path,
    table: Sequence[Mapping[str, str | float]] = (),
) -> None:
    """Show a run's results, table, pictures and report on the page of the present task."""
    create_markdown_artifact(text, key="results", description=f"test results of {run_id}")
    if table:
        rows = [dict(row) for row in table]
        create_table_artifact(rows, key="result-table", description=f"test results of {run_id}")
    for picture in pictures:
        key = picture.name.replace("_", "-").lower()
        image = f"![{picture.title}]({data_uri(picture.png)})\n"  # an image artifact shows its URI
        create_markdown_artifact(image, key=key, description=picture.caption)
    home = Home.current()
    mlflow_run_id = find_run(home, run_id)["mlflow_run_id"]
    page = mlflow_page(home, mlflow_run_id)
    if page is None:
        text = f"- report: `{report}`\n- MLflow: `{home.mlflow_place}`, run `{mlflow_run_id}`\n"
        create_markdown_artifact(text, key="places", description=f"where {run_id} is")
        return
    create_link_artifact(page, "MLflow run", key="mlflow", description=f"MLflow run of {run_id}")
    create_link_artifact(
        f"{page}/artifacts/{report.name}",
        "report",
        key="report",
        description=f"report of {run_id}, also in {report}",
    )


def mlflow_page(home: Home, mlflow_run_id: str | None) -> str | None:
    """Return the address of a run's page in MLflow, None where no server shows the record."""
    if home.owns_mlflow:
        stack = live_stack(home)
        server = stack.mlflow_url if stack else ""
    else:
        server = home.mlflow_place
    if mlflow_run_id is None or not server.startswith(("http://", "https://")):
        return None
    return server + Tracker(home).page_of(mlflow_run_id)
