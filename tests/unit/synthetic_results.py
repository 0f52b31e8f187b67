"""Rows as an experiment writes them, with effects that are known."""

from typing import Any

import numpy as np

METHODS = ("real", "iti", "random")
ALPHAS = (0.6, 1.2, 2.4, 4.9)
UNSTEERED = {"mc1": 0.4, "mc2": 0.42, "true_share": 0.38, "kl": 0.0}


def score_rows(n_layers: int, n_heads: int, folds: int = 2, seeds: int = 2) -> list[dict[str, Any]]:
    """Return module scores of `real`, `iti` (of seed 0 only) and `random`."""
    truth = np.linspace(0.45, 0.9, n_layers * n_heads).reshape(n_layers, n_heads)
    rows = []
    for localizer, used in (("real", seeds), ("iti", 1), ("random", seeds)):
        for fold in range(folds):
            for seed in range(used):
                noise = np.random.default_rng((fold, seed)).normal(0, 0.01, truth.shape)
                scores = noise if localizer == "random" else truth + noise
                order = np.argsort(np.argsort(-scores, axis=None)).reshape(scores.shape)
                for (layer, head), score in np.ndenumerate(scores):
                    rows.append(
                        {
                            "localizer": localizer,
                            "fold": fold,
                            "seed": seed,
                            "layer": layer,
                            "head": head,
                            "score": float(score),
                            "roc_auc": float(score) if localizer == "real" else None,
                            "rank": int(order[layer, head]) + 1,
                        }
                    )
    return rows


def selected_rows(scores: list[dict[str, Any]], top_k: int) -> list[dict[str, Any]]:
    """Return the modules ranked up to ``top_k``; the method is named as the localizer."""
    return [row | {"method": row["localizer"]} for row in scores if row["rank"] <= top_k]


def curve_rows() -> list[dict[str, Any]]:
    """Return wide rows over alpha, K = 4, two folds and two seeds, noise included."""
    rows = []
    for i, method in enumerate(METHODS):
        for fold in range(2):
            for seed in range(2):
                rng = np.random.default_rng((i, fold, seed))
                for alpha in ALPHAS:
                    gain = (1 - np.exp(-alpha)) / (1 + i)
                    rows.append(
                        {
                            "method": method,
                            "fold": fold,
                            "seed": seed,
                            "split": "validation",
                            "top_k": 4,
                            "alpha": alpha,
                            "kl": 0.005 * alpha**2 * (1 + 0.1 * rng.random()),
                            "mc1": 0.4 + 0.5 * gain + 0.01 * rng.random(),
                            "mc2": 0.42 + 0.3 * gain + 0.01 * rng.random(),
                            "true_share": 0.38 + 0.5 * gain + 0.01 * rng.random(),
                        }
                    )
    return rows


def evaluation_rows(wide: list[dict[str, Any]], split: str = "test") -> list[dict[str, Any]]:
    """Return the rows of the view ``evaluations``, one a metric, and the unsteered ones."""
    keys = ("method", "fold", "seed", "top_k", "alpha")
    rows = [
        {key: row[key] for key in keys} | {"split": split, "metric": metric, "value": row[metric]}
        for row in wide
        for metric in UNSTEERED
    ]
    nothing = {"method": "unsteered", "seed": 0, "top_k": None, "alpha": None, "split": split}
    return rows + [
        nothing | {"fold": fold, "metric": metric, "value": value}
        for fold in range(2)
        for metric, value in UNSTEERED.items()
    ]


def comparison(baseline: str, difference: float, half: float, **other: str) -> dict[str, Any]:
    """Return a comparison of `real` with ``baseline`` whose interval is +- ``half``."""
    return {
        "method": "real",
        "baseline": baseline,
        "basis": "matched_kl",
        "metric": "mc1",
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
    } | other


def planted_cloud(d: int, apart: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values ``[n, d]`` and labels whose means are ``apart`` standard deviations apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    values = rng.normal(size=(n, d))
    values[:, : d // 2] += apart * labels[:, None]
    return values.astype(np.float32), labels
