"""What a person sees in the terminal: progress bars, the table of results, errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from real_tasks.results import Row, table_cells
from real_tasks.tasks.progress import listening

out = Console()
err = Console(stderr=True)

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


def show_results(results: list[Row]) -> None:
    """Print the table of results."""
    headers, lines = table_cells(results)
    table = Table(title="Test questions: mean (SD) over folds and seeds", title_justify="left")
    for place, header in enumerate(headers):
        table.add_column(header, justify="right" if place else "left")
    for line in lines:
        table.add_row(*line)
    out.print(table)


def show_paths(paths: dict[str, str]) -> None:
    """Print what lies where, a line each."""
    width = max(map(len, paths))
    for what, where in paths.items():
        out.print(f"{what:<{width}}  {where}", soft_wrap=True, highlight=False)


def show_error(message: str) -> None:
    """Print what went wrong and how to mend it."""
    err.print(Panel(message, title="error", title_align="left", border_style="red", highlight=False))
