"""A home with thousands of finished runs, as years of use would leave it: every file a run's part.

Scores have the shape of real ones: a head has a merit of its own in each model and behaviour, and a
run sees it with noise. Written without the checks of `storage.tables.rows`, which rows of a loop do
not need.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.paths import Home
from storage.tables.schemas import TABLES

START = datetime(2024, 1, 1, tzinfo=UTC)
BEHAVIOURS = ("truthfulqa", "nq_swap", "refusal", "sycophancy", "corrigible", "survival")
METHODS = ("unsteered", "real", "real_equal_weights", "iti", "random")
METRICS = ("mc1", "mc2", "mc3", "true_share", "cross_entropy", "kl")
ALPHAS = (1.0, 2.0, 4.0, 8.0, 15.0)
STAGES = ("checkpoint", "activations", "scores", "directions", "evaluation", "pictures")


@dataclass(frozen=True)
class Shape:
    """A model's heads, and how often each is scored in a run: 2,000 rows in all."""

    model: str
    layers: int
    heads: int
    folds: int
    localizers: tuple[str, ...]


SHAPES = (
    Shape("large-chat", 40, 50, 1, ("real",)),
    Shape("medium", 40, 25, 2, ("real",)),
    Shape("medium-chat", 40, 25, 1, ("real", "iti")),
    Shape("small", 20, 25, 2, ("real", "iti")),
    Shape("demo", 20, 25, 2, ("real", "iti")),
)
Columns = dict[str, Any]


def write_runs(home: Home, count: int, seed: int = 0) -> None:
    """Write ``count`` runs of 2,000 scores, 270 metrics, 400 steered heads and 60 timings each."""
    rng = np.random.default_rng(seed)
    for name in ("runs", "module_scores", "evaluations", "selected_modules", "stage_timings"):
        (home.tables / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        shape = SHAPES[number % len(SHAPES)]
        behaviour = BEHAVIOURS[number // len(SHAPES) % len(BEHAVIOURS)]
        started = START + timedelta(hours=3 * number)
        run_id = f"{started:%Y%m%d-%H%M%S}-{number % 65_536:04x}"
        for name, columns in _tables(shape, behaviour, run_id, started, rng):
            table = _table(name, columns)
            pq.write_table(table, home.tables / name / f"{run_id}.parquet", compression="zstd")


def _table(name: str, columns: Columns) -> pa.Table:
    schema = TABLES[name].schema
    length = max(len(v) for v in columns.values() if isinstance(v, np.ndarray | list))
    arrays = []
    for field in schema:
        value = columns[field.name]
        if not isinstance(value, np.ndarray | list):
            value = [value] * length
        arrays.append(pa.array(value, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _tables(
    shape: Shape, behaviour: str, run_id: str, started: datetime, rng: np.random.Generator
) -> Iterator[tuple[str, Columns]]:
    shared = {"run_id": run_id, "model": shape.model, "model_id": "0", "behaviour": behaviour}
    yield (
        "runs",
        shared
        | {
            "flow": "experiment",
            "started_at": [started],
            "finished_at": started + timedelta(hours=1),
            "status": "failed" if rng.random() < 0.05 else "completed",
            "seed": 42,
            "config_digest": run_id,
            "git_commit": None,
            "mlflow_run_id": None,
        },
    )
    scores = _scores(shape, behaviour, rng)
    yield "module_scores", shared | scores
    yield "selected_modules", {"run_id": run_id} | _selected(shape, scores)
    yield "evaluations", shared | _evaluations(shape, rng)
    yield "stage_timings", {"run_id": run_id} | _timings(rng)


def _scores(shape: Shape, behaviour: str, rng: np.random.Generator) -> Columns:
    n = shape.layers * shape.heads
    merit_of = np.random.default_rng([len(shape.model), BEHAVIOURS.index(behaviour)])
    merit = 0.5 + 0.45 * merit_of.beta(1, 6, n)
    blocks: dict[str, list[Any]] = {"localizer": [], "fold": [], "roc_auc": [], "rank": []}
    for localizer in shape.localizers:
        for fold in range(shape.folds):
            auc = np.clip(merit + rng.normal(0, 0.03, n), 0, 1)
            rank = np.empty(n, np.int32)
            rank[np.argsort(-auc, kind="stable")] = np.arange(1, n + 1)
            blocks["localizer"] += [localizer] * n
            blocks["fold"] += [fold] * n
            blocks["roc_auc"].append(auc)
            blocks["rank"].append(rank)
    auc = np.concatenate(blocks["roc_auc"])
    copies = len(shape.localizers) * shape.folds
    layer, head = np.divmod(np.arange(n, dtype=np.int32), shape.heads)
    return {
        "localizer": blocks["localizer"],
        "protocol": "cross_fit",
        "fold": blocks["fold"],
        "seed": int(rng.integers(3)),
        "module_kind": "head",
        "layer": np.tile(layer, copies),
        "head": np.tile(head, copies),
        "roc_auc": auc,
        "roc_auc_low": auc - 0.04,
        "roc_auc_high": auc + 0.04,
        "aupr": auc - rng.random(len(auc)) / 20,
        "f1": auc - rng.random(len(auc)) / 10,
        "perplexity": 20 + 5 * rng.random(len(auc)),
        "reconstruction_loss": rng.random(len(auc)),
        "collapsed": rng.random(len(auc)) < 0.01,
        "rank": np.concatenate(blocks["rank"]),
        "score": auc,
    }


def _selected(shape: Shape, scores: Columns, top: int = 48) -> Columns:
    chosen = np.flatnonzero(scores["rank"] <= top)
    return {
        "method": [scores["localizer"][place] for place in chosen],
        "fold": [scores["fold"][place] for place in chosen],
        "seed": scores["seed"],
        "module_kind": "head",
        **{name: scores[name][chosen] for name in ("layer", "head", "rank", "score")},
        "strength": scores["score"][chosen],
    }


def _evaluations(shape: Shape, rng: np.random.Generator) -> Columns:
    rows = [
        (method, fold, split, None if method == "unsteered" else alpha, metric)
        for method in METHODS
        for fold in range(shape.folds)
        for split, alphas in (("validation", ALPHAS), ("test", ALPHAS[2:3]))
        for alpha in (alphas[:1] if method == "unsteered" else alphas)
        for metric in METRICS
    ]
    method, fold, split, alpha, metric = (list(column) for column in zip(*rows, strict=True))
    return {
        "method": method,
        "fold": fold,
        "seed": 0,
        "split": split,
        "top_k": [None if value is None else 48 for value in alpha],
        "alpha": alpha,
        "token_scope": "all",
        "metric": metric,
        "value": rng.random(len(rows)),
    }


def _timings(rng: np.random.Generator) -> Columns:
    rows = [(stage, f"{stage}-{shard}") for stage in STAGES for shard in range(10)]
    stage, shard = (list(column) for column in zip(*rows, strict=True))
    return {
        "stage": stage,
        "shard": shard,
        "seconds": rng.exponential(30, len(rows)),
        "cached": rng.random(len(rows)) < 0.3,
        "worker": "machine:1",
        "device": "cpu",
    }
