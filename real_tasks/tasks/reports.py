"""The report of a run written again, whatever kind of run it is."""

from pathlib import Path

from real_tasks.report.page import render_report
from real_tasks.tasks.records.experiment_report import report_content
from real_tasks.tasks.records.run import write_page
from real_tasks.tasks.records.transfer import write_transfer_report
from real_tasks.tasks.rescoring.record import write_drift_report
from storage.paths import Home
from storage.runs.run import find_run


def write_report(home: Home, run_id: str | None) -> Path:
    """Write the HTML report of a run, the last completed one without a name; return its path.

    Raises:
        StorageError: there is no such run, or it did not get as far as results.
    """
    run = find_run(home, run_id)
    if run["flow"] == "transfer":
        return write_transfer_report(home, run["run_id"])
    if run["flow"] == "rescore":
        return write_drift_report(home, run["run_id"])
    return write_page(home, run["run_id"], render_report(report_content(home, run)))
