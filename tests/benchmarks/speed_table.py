"""The table of speed: in full in deployments/docs/measured.md, its bold rows in the README."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.benchmarks.common import Options, Row

ROOT = Path(__file__).parents[2]
FULL, SHORT = ROOT / "deployments/docs/measured.md", ROOT / "README.md"
MARKS = ("<!-- speed: make bench -->", "<!-- end of speed -->")
HEAD = ("| what | ours | instead | times |", "|---|---:|---:|---:|")


def measured(name: str, options: Options) -> list[Row]:
    """Run a benchmark, in this process."""
    if options.threads:
        torch.set_num_threads(options.threads)
    found = importlib.import_module(f"tests.benchmarks.bench_{name}").rows(options)
    rows: list[Row] = []
    for row in found:
        rows.append(row)
        sys.stderr.write(f"{table([row])[-1]}\n")
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of the full table."""
    return [*HEAD, *map(_line, rows)]


def short(full: Sequence[str]) -> list[str]:
    """Return what the README shows of the block: no rows but bold ones."""
    dull = [line for line in full if line.startswith("| ") and not line.startswith("| **")]
    return [line.replace("**", "") for line in full if line == HEAD[0] or line not in dull]


def shown(page: Path) -> list[str]:
    """Return the block that a page shows: when it was measured, and the table."""
    lines = page.read_text().splitlines()
    return lines[lines.index(MARKS[0]) + 1 : lines.index(MARKS[1])]


def write(full: Sequence[str]) -> None:
    """Put the block into both pages."""
    for page, lines in ((FULL, full), (SHORT, short(full))):
        before, _, rest = page.read_text().partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        page.write_text("\n".join([before + MARKS[0], *lines, MARKS[1] + after]))


def _line(row: Row) -> str:
    what = f"**{row.what}**" if row.short else row.what
    least = "" if row.least is None else f" (at least {row.least:g})"
    instead = f"{_number(row.instead)}: {row.baseline}"
    return f"| {what} | {_number(row.ours)} | {instead} | {_number(row.ratio)}{least} |"


def _number(value: float) -> str:
    if value >= 1e7:
        return f"{value:.2e}"
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}"
