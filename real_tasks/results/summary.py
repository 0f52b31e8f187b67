"""From evaluation rows to the table of results that people read.

Rows are mappings with the columns of the view ``evaluations``: one metric of one setting each.
"""

import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from real_tasks.evaluation.labels import METRIC_LABELS, metric_label
from real_tasks.localizers.labels import method_label, ordered_methods

Row = Mapping[str, Any]

RUN_KEY = ("method", "fold", "seed")
SETTING_KEY = (*RUN_KEY, "split", "top_k", "alpha")
DECIMALS = {"top_k": 0, "alpha": 2, "cross_entropy": 3, "kl": 3}


def counted_kl(found: Row) -> float:
    """Return the KL that is compared: on neutral text, or on prompts behind a gate, if larger."""
    return float(max(found["kl"], found.get("kl_open") or 0.0))


def wide_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Turn rows of ``(metric, value)`` into one row a setting with a column a metric.

    A setting is a method, fold, seed, split, K and alpha.

    Raises:
        ValueError: a setting has a metric twice (rows of several runs, say).
    """
    wide: dict[tuple[Hashable, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in SETTING_KEY)
        setting = wide.setdefault(key, dict(zip(SETTING_KEY, key, strict=True)))
        if row["metric"] in setting:
            raise ValueError(
                f"metric {row['metric']!r} is there twice for {setting}; expected the rows "
                "of one run and one token scope: filter by run_id"
            )
        setting[row["metric"]] = row["value"]
    return list(wide.values())


def at_tuned(
    grid: Iterable[Row], tuned: Iterable[Row], on: Sequence[str] = ("top_k",)
) -> list[Row]:
    """Keep the rows of a grid that agree with what their method, fold and seed is tuned to.

    Both are wide rows, ``tuned`` of any split. On ``("top_k",)`` a curve over alpha is left, on
    ``("top_k", "alpha")`` the tuned point.
    """
    columns = (*RUN_KEY, *on)
    chosen = {tuple(row[name] for name in columns) for row in tuned}
    return [row for row in grid if tuple(row[name] for name in columns) in chosen]


def result_table(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Summarise evaluation rows of the test: one row a method, means and SDs over folds and seeds.

    Columns: ``method``, ``n`` (folds times seeds), then ``top_k``, ``alpha`` and every metric, each
    with its sample standard deviation under ``<name>_sd`` (None where n is 1).

    Raises:
        ValueError: a method has several settings in one fold and seed; expected the tuned one only.
    """
    settings = wide_rows(row for row in rows if row["split"] == "test")
    by_method: dict[str, list[dict[str, Any]]] = defaultdict(list)
    seen = set()
    for setting in settings:
        run = tuple(setting[name] for name in RUN_KEY)
        if run in seen:
            raise ValueError(
                f"several settings of {setting['method']!r} in fold {setting['fold']}, seed "
                f"{setting['seed']}, split 'test'; expected one: keep the tuned K and alpha"
            )
        seen.add(run)
        by_method[setting["method"]].append(setting)
    return [_summary(method, by_method[method]) for method in ordered_methods(by_method)]


def _summary(method: str, settings: Sequence[Row]) -> dict[str, Any]:
    summary: dict[str, Any] = {"method": method, "n": len(settings)}
    present = [name for name in METRIC_LABELS if any(name in row for row in settings)]
    others = {name for row in settings for name in row} - {*SETTING_KEY, *present}
    for name in ("top_k", "alpha", *present, *sorted(others)):
        values = [float(row[name]) for row in settings if row.get(name) is not None]
        summary[name] = statistics.fmean(values) if values else None
        summary[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
    return summary


def table_cells(
    results: Sequence[Row], main: str | None = None
) -> tuple[list[str], list[list[str]]]:
    """Format a result table: the headers, and for each method the cells "mean (SD)".

    ``main`` is the run's own localizer, as in `method_label`.
    """
    every = dict.fromkeys(name for row in results for name in row)
    columns = [name for name in every if name not in ("method", "n") and not name.endswith("_sd")]
    units = dict.fromkeys(("kl", "cross_entropy"), " [nats/token]")
    names = ("K" if n == "top_k" else f"{metric_label(n)}{units.get(n, '')}" for n in columns)
    headers = ["method", *names, "n"]
    cells = [
        [method_label(row["method"], main), *(_cell(row, name) for name in columns), str(row["n"])]
        for row in results
    ]
    return headers, cells


def _cell(row: Row, name: str) -> str:
    value, spread = row.get(name), row.get(f"{name}_sd")
    if value is None:
        return "–"
    decimals = 1 if name == "top_k" and spread else DECIMALS.get(name, 2)
    mean = f"{value:.{decimals}f}"
    alone = spread is None or (name == "top_k" and not spread)
    return mean if alone else f"{mean} ({spread:.{decimals}f})"


def whole_or_mean(value: float | None) -> str:
    """Format a K, which is a mean where folds and seeds chose different ones."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


def markdown_table(results: Sequence[Row], main: str | None = None) -> str:
    """Format a result table as Markdown; "no results" where there is none."""
    if not results:
        return "no results\n"
    headers, cells = table_cells(results, main)
    return markdown_grid(headers, cells) + "\n"


def markdown_grid(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Format a table as Markdown: names in the first column, numbers in the others."""
    rule = ["---", *["---:"] * (len(headers) - 1)]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in (headers, rule, *escaped))
