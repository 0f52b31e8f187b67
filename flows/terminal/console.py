"""What a person sees in the terminal: progress bars, the table of results, errors."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from real_tasks.evaluation.labels import headline_metrics, metric_label
from real_tasks.results.leaderboard import READING
from real_tasks.results.summary import Row
from real_tasks.tasks.cache.progress import listening
from real_tasks.vocabulary.errors import without_long_words
from storage.repeating import repeating
from storage.sql.drawing import escaped

if TYPE_CHECKING:  # who asks for help waits for no orchestrator
    from real_tasks.tasks.records.leaderboards import Leaderboard

out = Console()
err = Console(stderr=True)

STAGES = {
    "dataset": "questions and answers",
    "checkpoint": "model (training steps, if embedded)",
    "activations": "activations to Parquet",
    "scores": "scores of modules",
    "effects": "effects of single modules",
    "fits": "directions and other tensors",
    "model_fits": "tensors found with the model",
    "evaluation": "tuning and tests of methods",
    "measured": "measurements of what was found, on other questions",
    "pictures": "pictures",
}


SECONDS_BETWEEN = 15.0
"""The longest silence where progress is told in lines."""


@contextmanager
def progress_shown() -> Iterator[None]:
    """Show the progress of every stage while the context lasts: bars, or lines for a log."""
    with _bars() if err.is_terminal else _lines():
        yield


@contextmanager
def _bars() -> Iterator[None]:
    columns = (
        TextColumn("{task.description:<36}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err) as bars:
        tasks = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(STAGES.get(stage, stage), total=total)
            bars.update(tasks[stage], completed=done, total=total)

        with listening(show):
            yield


@contextmanager
def _lines() -> Iterator[None]:
    lines = ProgressLines()
    with repeating(lines.tell, 1.0), listening(lines.show):
        yield


class ProgressLines:
    """A line when a stage starts, when it ends, and whenever nothing was said for a while."""

    def __init__(self) -> None:
        """Say that it begins: a server is started before the first stage."""
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._since: dict[str, float] = {}
        self._open: dict[str, str] = {}
        self._say("starting")

    def show(self, stage: str, done: int, total: int) -> None:
        """Take note that ``done`` of ``total`` units are done; see `progress.Listener`."""
        with self._lock:
            begins = stage not in self._since
            if not begins and stage not in self._open:  # its end has been told
                return
            since = self._since.setdefault(stage, time.monotonic())
            self._open[stage] = f"{STAGES.get(stage, stage)}: {done} of {total}"
            if done >= total:
                self._say(f"{self._open.pop(stage)}, done in {time.monotonic() - since:.0f} s")
            elif begins:
                self._say(self._open[stage])

    def tell(self) -> None:
        """Say what is going on, if nothing was said for a while."""
        with self._lock:
            if time.monotonic() - self._said >= SECONDS_BETWEEN:
                self._say("; ".join(self._open.values()) or "working")

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        text = f"{self._said - self._begun:4.0f} s  {line}"
        err.print(text, soft_wrap=True, highlight=False, markup=False)


def show_results(results: Sequence[Row]) -> None:
    """Print the results on test questions; the report has all columns."""
    table = Table(
        title="On test questions: mean (SD) over folds and seeds",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("method", no_wrap=True)
    metrics = headline_metrics(name for row in results for name in row)
    for header in ("K", "alpha", *map(metric_label, metrics), "KL"):
        table.add_column(header.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in results:
        cells = (_cell(row, name, name in metrics) for name in ("top_k", "alpha", *metrics, "kl"))
        table.add_row(row["method"], *cells)
    out.print(table)


def show_leaderboard(board: "Leaderboard") -> None:
    """Print a leaderboard, how to read it, and where its picture is."""
    run = board.run
    console = out if out.is_terminal else Console(width=max(out.width, 140))
    shown = len(board.headers) - (3 if console.width < 100 else 0)  # what each takes comes last
    table = Table(
        title=f"{run['behaviour']} in {run['model']}, run {run['run_id']} "
        f"({run['started_at']:%Y-%m-%d}); equal KL: {board.matched_kl:g} nats/token",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for place, header in enumerate(board.headers[:shown]):
        folded = header.replace(" − ", "\n− ").replace(" generations", "")
        table.add_column(folded, justify="right" if place else "left", min_width=0 if place else 14)
    for line in board.lines:
        table.add_row(*map(escape, line[:shown]))
    console.print(table)
    console.print(READING, style="dim", highlight=False)
    if shown < len(board.headers):
        console.print("A wider terminal, or a pipe, shows what each takes.", style="dim")
    if board.absent:
        absent = ", ".join(board.absent)
        console.print(f"Not in this run: {absent}.", style="dim", highlight=False)
    if board.picture.is_file():
        show_paths({"picture": str(board.picture)})


def show_transfer(rows: Sequence[Row]) -> None:
    """Print what each behaviour gains from what was found on each."""
    table = Table(
        title="Gain on test questions, with 95 % intervals",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("found on\n→ measured on", overflow="fold")
    table.add_column("metric", overflow="fold")
    table.add_column("unsteered\n→ steered", justify="right", no_wrap=True)
    table.add_column("gain", justify="right", no_wrap=True)
    for row in rows:
        target = (other["metric"] for other in rows if other["target"] == row["target"])
        if row["metric"] in headline_metrics(target):
            table.add_row(
                escape(f"{row['source']} → {row['target']}"),
                metric_label(row["metric"]),
                f"{row['unsteered']:.2f} → {row['steered']:.2f}",
                escape(f"{row['gain']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"),
            )
    out.print(table)


def _cell(row: Row, name: str, with_spread: bool) -> str:
    value, spread = row.get(name), row.get(f"{name}_sd")
    if value is None:
        return "-"
    decimals = {"top_k": 1, "kl": 3}.get(name, 2)
    text = f"{value:.{decimals}f}"
    if not with_spread or spread is None:
        return text
    return f"{text} ({spread:.{decimals}f})".replace("(0.", "(.")


def show_grid(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table of numbers."""
    table = Table(box=box.SIMPLE_HEAD)
    for header in headers:
        table.add_column(header, justify="right")
    for line in lines:
        table.add_row(*line)
    out.print(table)


def show_paths(paths: dict[str, str]) -> None:
    """Print what lies where, a line each."""
    width = max(map(len, paths))
    for what, where in paths.items():
        out.print(f"{what:<{width}}  {where}", soft_wrap=True, highlight=False, markup=False)


def show_warning(message: str) -> None:
    """Print what the reader must know before trusting the result."""
    out.print(Text("warning ", style="yellow").append(message, style="default"), soft_wrap=True)


def show_error(message: str) -> None:
    """Print what went wrong and how to mend it."""
    words = escaped(without_long_words(message))
    err.print(Panel(Text(words), title="error", title_align="left", border_style="red"))
