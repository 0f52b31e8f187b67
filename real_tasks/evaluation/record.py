"""A method's result as JSON has it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from real_tasks.evaluation.search.setting import Setting
from real_tasks.evaluation.tuning import MethodResult
from real_tasks.vocabulary.types import SelectedModule

OVERFLOWS = "overflows"
"""The only metric, 1, of a setting whose numbers leave the range of their type."""


def evaluation_record(result: MethodResult, selected: Sequence[SelectedModule]) -> dict[str, Any]:
    """Return a method's result as JSON has it; `results.rows` makes rows of it."""
    rows = [_validation_row(setting) for setting in result.settings]
    for alpha, measured in result.curve:
        for row in rows:
            if (row["top_k"], row["alpha"]) == (result.chosen.top_k, alpha):
                row["metrics"] |= measured.metrics()
                row["n_questions"] = len(measured.questions)
    return {
        "top_k": result.chosen.top_k,
        "alpha": result.chosen.alpha,
        "fits_cap": result.fits_cap,
        "bounded": result.bounded,
        "matched_alpha": result.matched_alpha,
        "validation": rows,
        "test": asdict(result.test) | {"metrics": result.test.metrics()},
        "matched": asdict(result.matched) if result.matched else None,
        "selected": [asdict(item) for item in selected],
    }


def _validation_row(setting: Setting) -> dict[str, Any]:
    effects = {"cross_entropy": setting.cross_entropy, "kl": setting.kl}
    if setting.kl_open:
        effects["kl_open"] = setting.kl_open
    metrics = {OVERFLOWS: 1.0} if setting.overflows else {**setting.metrics, **effects}
    return {
        "top_k": setting.top_k,
        "alpha": setting.alpha,
        "n_questions": setting.n_questions,
        "n_texts": setting.n_texts,
        "metrics": metrics,
    }
