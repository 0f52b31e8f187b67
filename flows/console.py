"""What a person sees in the terminal: progress bars, the table of results, errors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from real_tasks.results import Row
from real_tasks.tasks.progress import listening

out = Console()
err = Console(stderr=True)

COLUMNS = {
    "top_k": "K",
    "alpha": "alpha",
    "mc1": "MC1",
    "mc2": "MC2",
    "true_share": "true",
    "kl": "KL",
}
STAGES = {
    "dataset": "questions and answers",
    "checkpoint": "model (training steps, if embedded)",
    "activations": "activations to Parquet",
    "scores": "scores of modules",
    "directions": "directions",
    "evaluation": "tuning and tests of methods",
    "pictures": "pictures",
}


@contextmanager
def progress_bars() -> Iterator[None]:
    """Show a bar for every stage while the context lasts."""
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


def show_results(results: Sequence[Row]) -> None:
    """Print the results on test questions; the report has all columns."""
    table = Table(title="On test questions: mean (SD) over folds and seeds", box=box.SIMPLE_HEAD)
    table.add_column("method")
    for header in COLUMNS.values():
        table.add_column(header, justify="right", no_wrap=True)
    for row in results:
        table.add_row(row["method"], *(_cell(row, name) for name in COLUMNS))
    out.print(table)


def _cell(row: Row, name: str) -> str:
    value, spread = row.get(name), row.get(f"{name}_sd")
    if value is None:
        return "-"
    decimals = {"top_k": 1, "kl": 3}.get(name, 2)
    text = f"{value:.{decimals}f}"
    shown = spread is not None and name in ("mc1", "mc2", "true_share")
    return f"{text} ({spread:.{decimals}f})" if shown else text


def show_paths(paths: dict[str, str]) -> None:
    """Print what lies where, a line each."""
    width = max(map(len, paths))
    for what, where in paths.items():
        out.print(f"{what:<{width}}  {where}", soft_wrap=True, highlight=False)


def show_error(message: str) -> None:
    """Print what went wrong and how to mend it."""
    err.print(
        Panel(message, title="error", title_align="left", border_style="red", highlight=False)
    )
