"""Drift as rows of ``score_drift``, which of its numbers pass a threshold, and in words."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from real_tasks.evaluation.bootstrap import Estimate
from real_tasks.localizers.labels import MODULE_NOUNS, method_label
from real_tasks.results.drift.change import GainDrift, RankingDrift
from real_tasks.results.findings import signed
from real_tasks.results.summary import Row
from real_tasks.vocabulary.errors import first_of
from real_tasks.vocabulary.rescore_config import DriftThresholds
from real_tasks.vocabulary.types import ModuleId

DRIFT_METRICS = (
    "spearman",
    "overlap",
    "auc_mean",
    "auc_change",
    "auc_best_change",
    "auc_largest_change",
    "gain",
    "gain_change",
)
"""The columns that are numbers of drift, for MLflow and events."""
_WITH_INTERVAL = tuple(name for name in DRIFT_METRICS if name != "auc_mean")
_LISTED = 8


def drift_row(
    which: Mapping[str, Any], found: RankingDrift, gain: GainDrift | None, n_excluded: int
) -> dict[str, Any]:
    """Return the columns of the table of one localizer, in a fold and seed or over all.

    ``which`` says so: localizer, module_kind, fold, seed. There is no gain where the localizer does
    not rank what is steered, or nothing was measured; ``n_excluded`` questions of the data were
    left out of it.
    """
    auc, agreement = found.auc, found.agreement
    nothing = Estimate(math.nan, math.nan, math.nan)
    estimates = {
        "spearman": Estimate(agreement.spearman, agreement.low, agreement.high),
        "overlap": found.overlap,
        "auc_change": auc.change if auc else nothing,
        "auc_best_change": auc.best_change if auc else nothing,
        "auc_largest_change": auc.largest if auc else nothing,
        "gain": gain.after if gain else nothing,
        "gain_change": gain.change if gain and gain.change else nothing,
    }
    row: dict[str, Any] = {
        **which,
        "n_modules": agreement.n_modules,
        "top_k": agreement.top_k,
        "shared": agreement.shared,
        "entered": _names(agreement.entered),
        "left": _names(agreement.left),
        "auc_mean": auc.mean if auc else None,
        "auc_largest_module": auc.largest_module.short_name if auc else None,
        "gain_before": gain.before if gain else None,
        "n_questions": gain.n_questions if gain else None,
        "n_excluded": n_excluded if gain else None,
    }
    for name, one in estimates.items():
        ends = {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        row |= {column: _finite(value) for column, value in ends.items()}
    return row


def empty_drift_row(localizer: str, module_kind: str) -> dict[str, Any]:
    """Return the row of a re-scoring that found nothing new: no number in it."""
    names = ("fold", "seed", "n_modules", "top_k", "shared", "entered", "left", "auc_mean")
    further = ("auc_largest_module", "gain_before", "n_questions", "n_excluded")
    ends = [f"{name}{end}" for name in _WITH_INTERVAL for end in ("", "_low", "_high")]
    which = {"localizer": localizer, "module_kind": module_kind}
    return which | dict.fromkeys((*names, *further, *ends))


def exceeded(row: Row, thresholds: DriftThresholds) -> tuple[str, ...]:
    """Return the names of the thresholds that a row passes; what is not known passes none."""
    falls = {
        "min_spearman": _below(row["spearman"], thresholds.min_spearman),
        "min_overlap": _below(row["overlap"], thresholds.min_overlap),
        "max_auc_drop": _below(row["auc_best_change"], -thresholds.max_auc_drop),
        "max_gain_drop": _below(row["gain_change"], -thresholds.max_gain_drop),
    }
    return tuple(name for name, passed in falls.items() if passed)


def drift_sentences(row: Row, method: str) -> list[str]:
    """Put a row over all folds and seeds into sentences."""
    who = method_label(row["localizer"])
    nouns = MODULE_NOUNS[row["module_kind"]]
    sentences = [
        f"{who}'s scores of {row['n_modules']} {nouns} before and now have a rank correlation "
        f"(Spearman) of {_plain(row, 'spearman')}; {row['shared']} of the best {row['top_k']} are "
        f"the same, a share of {_plain(row, 'overlap')}.",
        _moves(row),
    ]
    if row["auc_change"] is not None:
        sentences.append(
            f"The mean ROC-AUC is {row['auc_mean']:.3f}, a change of {_signed(row, 'auc_change')} "
            f"over all {nouns} and of {_signed(row, 'auc_best_change')} over what were the best "
            f"{row['top_k']}; the largest change is {_signed(row, 'auc_largest_change')}, of "
            f"{row['auc_largest_module']}."
        )
    if row["gain"] is not None:
        sentences.append(_gain_sentence(row, method))
    return sentences


def drift_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Format rows of the table: the headers, and a line for all folds and seeds and for each."""
    headers = ["fold and seed", "Spearman", "same of the best", "ROC-AUC of the best", "gain"]
    headers = ["localizer", *headers, "change of gain", "questions", "left out"]
    return headers, [
        [
            method_label(row["localizer"]),
            "all" if row["fold"] is None else f"{row['fold']}, {row['seed']}",
            _plain(row, "spearman"),
            f"{row['shared']} of {row['top_k']}",
            *(_signed(row, name) for name in ("auc_best_change", "gain", "gain_change")),
            *("–" if row[n] is None else str(row[n]) for n in ("n_questions", "n_excluded")),
        ]
        for row in rows
    ]


def threshold_sentence(names: Sequence[str], thresholds: DriftThresholds) -> str:
    """Say which thresholds were passed."""
    if not names:
        return "No threshold is passed: this does not count as drift."
    limits = ", ".join(f"{name} ({getattr(thresholds, name):g})" for name in names)
    return f"This counts as drift: passed {limits}."


def event_numbers(row: Row) -> Mapping[str, Any]:
    """Return what an event says of a row: numbers and names."""
    names = ("localizer", "module_kind", "top_k", "shared", "entered", "left", "gain_before")
    return {name: row[name] for name in (*names, *DRIFT_METRICS)}


def _names(modules: Sequence[ModuleId]) -> str:
    return ", ".join(module.short_name for module in modules)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _below(value: float | None, limit: float) -> bool:
    return value is not None and value < limit


def _moves(row: Row) -> str:
    if not row["entered"] and not row["left"]:
        return f"The best {row['top_k']} are the same as before."
    entered, left = (first_of(row[name].split(", "), _LISTED) for name in ("entered", "left"))
    return f"Entered the best {row['top_k']}: {entered}. Left: {left}."


def _gain_sentence(row: Row, method: str) -> str:
    before = row["gain_before"]
    was = "" if before is None else f"; at the baseline it was {signed(before)}"
    change = "" if row["gain_change"] is None else f", a change of {_signed(row, 'gain_change')}"
    who = method_label(method, row["localizer"])
    return (
        f"The deployed steering ({who}) gains {_signed(row, 'gain')} on "
        f"{row['n_questions']} questions that it was neither found nor tuned on{was}{change}."
    )


def _plain(row: Row, name: str) -> str:
    return _signed(row, name, lambda value: f"{value:.2f}".replace("-", "−"))


def _signed(row: Row, name: str, form: Callable[[float], str] = signed) -> str:
    if row[name] is None:
        return "–"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = "" if low is None or high is None else f" [{form(low)}, {form(high)}]"
    return f"{form(row[name])}{ends}"
