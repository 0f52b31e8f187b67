"""The report of a run written again, whatever kind of run it is."""

from pathlib import Path

from real_tasks.report.page import render_page, render_report
from real_tasks.tasks.records import transfer
from real_tasks.tasks.records.experiment_report import report_content
from real_tasks.tasks.records.run import write_page
from real_tasks.tasks.rescoring import record
from storage.paths import Home
from storage.runs.run import find_run

PAGES = {
    "transfer": (transfer.TEMPLATE, transfer.transfer_page),
    "rescore": (record.TEMPLATE, record.drift_page),
}


def write_report(home: Home, run_id: str | None) -> Path:
    """Write the HTML report of a run, the last completed one without a name; return its path.

    Raises:
        StorageError: there is no such run, or it did not get as far as results.
    """
    run = find_run(home, run_id)
    if run["flow"] in PAGES:
        template, page_of = PAGES[run["flow"]]
        page = render_page(template, page_of(home, run["run_id"]))
    else:
        page = render_report(report_content(home, run))
    return write_page(home, run["run_id"], page)
