"""All methods of a run in one table: each tuned, at equal side effects, and what it takes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from real_tasks.evaluation.labels import headline_metrics, metric_label
from real_tasks.localizers.labels import method_label
from real_tasks.results.labels import duration
from real_tasks.results.summary import Row, whole_or_mean

UNSTEERED = "unsteered"
NOTHING = "–"
BOUNDED = "bounded"
READING = (
    "K, alpha, the metrics and KL (nats/token): each method at its tuned setting. Differences: at "
    "equal KL, with 95 % intervals over questions; bounded: no strength of it costs that KL. What "
    "tuning and equal KL count is neutral text's, behind a gate that of prompts if larger. fit: "
    "ranking and fitting, without reading activations. token: time of a generated token, steered "
    "over bare. bakes: whether weights of a checkpoint can do it. Order: by the difference from "
    "the unsteered model, then by the tuned setting where there is none."
)


def leaderboard(
    results: Sequence[Row], comparisons: Sequence[Row], methods: Sequence[Row], metric: str
) -> list[dict[str, Any]]:
    """Return a row a method, the best first by what it gains in a metric at equal KL.

    Results are rows of `summary.result_table`, the others the run's rows of the views of their
    names.

    Returns:
        Rows of ``results`` with, further, ``gain`` over the unsteered model and ``difference`` from
        the run's own method, both at equal KL (a row of ``comparisons`` or None), ``factor`` of the
        time of a token, ``bounded``, ``fit_seconds`` and ``bakes``.
    """
    equal = [r for r in comparisons if (r["basis"], r["metric"]) == ("matched_kl", metric)]
    gains = {row["method"]: row for row in equal if row["baseline"] == UNSTEERED}
    own = {row["baseline"]: _turned(row) for row in equal if row["baseline"] != UNSTEERED}
    about = {row["method"]: row for row in methods}
    rows = [
        {
            **row,
            "gain": gains.get(row["method"]),
            "difference": own.get(row["method"]),
            **_costs(about.get(row["method"], {})),
        }
        for row in results
    ]
    base = next((row.get(metric) for row in rows if row["method"] == UNSTEERED), None) or 0.0
    return sorted(rows, key=lambda row: _place(row, metric, base))


def _turned(row: Row) -> dict[str, Any]:
    """Return a comparison seen from the other side."""
    ends = {"low": row["high"], "high": row["low"]}
    return {
        "method": row["baseline"],
        "baseline": row["method"],
        **{name: None if end is None else -end for name, end in ends.items()},
        "difference": -row["difference"],
    }


def _costs(about: Mapping[str, Any]) -> dict[str, Any]:
    bare, steered = about.get("bare_token_seconds"), about.get("token_seconds")
    said = {name: about.get(name) for name in ("bounded", "fit_seconds", "bakes")}
    return {**said, "factor": steered / bare if bare and steered else None}


def _place(row: Row, metric: str, base: float) -> tuple[bool, float, str]:
    if row["gain"] is not None or row["method"] == UNSTEERED:
        return False, -row["gain"]["difference"] if row["gain"] else 0.0, row["method"]
    value = row.get(metric)
    return True, math.inf if value is None else base - value, row["method"]


def leaderboard_cells(
    rows: Sequence[Row], metric: str, main: str
) -> tuple[list[str], list[list[str]]]:
    """Format a leaderboard: headers, and for each method its cells.

    ``main`` is the run's own method.
    """
    metrics = headline_metrics(name for row in rows for name in row if row[name] is not None)
    shown = metrics if metric in metrics else (metric, *metrics[:2])
    said = metric_label(metric)
    headers = [
        *("method", "K", "alpha", *map(metric_label, shown), "KL"),
        *(f"{said} − unsteered", f"{said} − {method_label(main)}", "fit", "token", "bakes"),
    ]
    return headers, [_cells(row, shown, main) for row in rows]


def _cells(row: Row, metrics: Sequence[str], main: str) -> list[str]:
    bakes = {True: "yes", False: "no", None: NOTHING}[row["bakes"]]
    steers = row["method"] != UNSTEERED
    factor = row["factor"]
    return [
        method_label(row["method"], main),
        whole_or_mean(row.get("top_k")),
        _number(row.get("alpha"), 2),
        *(_number(row.get(name), 2) for name in metrics),
        _number(row.get("kl"), 3),
        _interval(row["gain"], bool(steers and row["bounded"])),
        _interval(row["difference"], bool(steers and row["bounded"])),
        duration(row["fit_seconds"]) if steers and row["fit_seconds"] is not None else NOTHING,
        NOTHING if factor is None else f"×{factor:.2f}",
        bakes,
    ]


def _number(value: float | None, decimals: int) -> str:
    return NOTHING if value is None else short(f"{value:.{decimals}f}")


def _interval(found: Row | None, bounded: bool) -> str:
    if found is None:
        return BOUNDED if bounded else NOTHING
    value, low, high = (found[name] for name in ("difference", "low", "high"))
    ends = "" if low is None else f" [{_signed(low)}, {_signed(high)}]"
    return f"{_signed(value, plus=True)}{ends}"


def _signed(value: float, plus: bool = False) -> str:
    text = f"{value:+.2f}" if plus else f"{value:.2f}"
    text = text if float(text) else "0.00"
    return short(text).replace("-", "−")


def short(text: str) -> str:
    """Return a number without the zero before its point."""
    sign = text[0] if text[0] in "+-" else ""
    rest = text.removeprefix(sign)
    return sign + (rest[1:] if rest.startswith("0.") else rest)
