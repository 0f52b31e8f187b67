"""The report of a run: one self-contained HTML file, from plain values."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from real_tasks.localizers import entry_of
from real_tasks.localizers.labels import method_label
from real_tasks.report.contents import AnswerPair
from real_tasks.report.figures.picture import Picture
from real_tasks.results.findings import comparison_table, headlines, signed
from real_tasks.results.labels import duration
from real_tasks.results.leaderboard import READING
from real_tasks.results.summary import Row, table_cells

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class ReportContent:
    """What a report says; parts that are empty are left out of it.

    Attributes:
        facts: of the run, in order: id, times, model, device, commit and the like.
        results: rows of `summary.result_table`.
        comparisons: rows of the view ``comparisons``.
        leaderboard: headers and lines of `leaderboard.leaderboard_cells`.
        top_modules: rows of `contents.top_modules`.
        answers: a sample of answers, unsteered and steered.
        verdict_changes: numbers of answers by (verdict unsteered, verdict steered), over all.
        stage_seconds: wall seconds of each stage.
        queries: SQL to go on with, by what it answers.
        paths: where things lie, by what they are.
        warnings: what the reader must know before trusting the numbers.
        findings: sentences on what else was found, after those on the results.
        max_kl: cap on KL under which alpha is chosen, nats/token.
        matched_kl: KL at which methods are compared like for like, nats/token.
        token_scope: positions that were steered.
    """

    title: str
    facts: Mapping[str, str]
    results: Sequence[Row]
    max_kl: float
    matched_kl: float
    token_scope: str
    comparisons: Sequence[Row] = ()
    leaderboard: tuple[Sequence[str], Sequence[Sequence[str]]] = ((), ())
    pictures: Sequence[Picture] = ()
    top_modules: Sequence[Row] = ()
    answers: Sequence[AnswerPair] = ()
    verdict_changes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    config_yaml: str = ""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    queries: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    findings: Sequence[str] = ()
    method: str = "real"


def render_report(content: ReportContent) -> str:
    """Return the page: no script and no request, style and pictures inside, all text escaped."""
    return render_page(TEMPLATE, _values(content))


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """Return a page made from one of the package's templates."""
    environment = Environment(
        loader=PackageLoader("real_tasks.report.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    environment.filters["duration"] = duration
    environment.filters["signed"] = signed
    return environment.get_template(template).render(values)


def _values(content: ReportContent) -> dict[str, Any]:
    result_headers, result_lines = table_cells(content.results, content.method)
    comparison_headers, comparison_lines = comparison_table(
        [row for row in content.comparisons if row["method"] == content.method]
    )
    return {
        "content": content,
        "method_name": method_label(content.method),
        "localizer": entry_of(content.method),
        "headlines": [
            *headlines(content.results, content.comparisons, content.method),
            *content.findings,
        ],
        "result_headers": result_headers,
        # On two lines all metrics stand beside each other in the page's width.
        "result_lines": [[cell.replace(" (", "\n(") for cell in line] for line in result_lines],
        "reading": READING,
        "comparison_headers": comparison_headers,
        "comparison_lines": comparison_lines,
        "total_seconds": sum(content.stage_seconds.values()),
    }


def data_uri(png: bytes) -> str:
    """Return a PNG as a URI that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
