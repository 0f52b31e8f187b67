"""What the report tells beside the results: top modules, answers, queries to go on with."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from real_tasks.results.summary import Row

UNSTEERED = "unsteered"


@dataclass(frozen=True)
class AnswerPair:
    """What the model says to one question without and with steering, and the judge's verdicts."""

    question: str
    before: str
    before_verdict: str
    after: str
    after_verdict: str


def answer_pairs(answers: Sequence[Row], method: str) -> list[AnswerPair]:
    """Pair each answer of ``method`` with the unsteered model's answer to the same question.

    ``answers`` are rows of the view of that name. The unsteered ones may lack seeds: those of the
    same fold are taken then.
    """
    before: dict[tuple[Any, ...], Row] = {}
    for row in answers:
        if row["method"] == UNSTEERED:
            before[row["fold"], row["seed"], row["question_id"]] = row
            before.setdefault((row["fold"], row["question_id"]), row)
    pairs = []
    for row in sorted(answers, key=lambda row: (row["seed"], row["fold"])):
        if row["method"] == method:
            fold, seed, question = row["fold"], row["seed"], row["question_id"]
            other = before.get((fold, seed, question), before.get((fold, question)))
            if other is not None:
                sides = (one[name] for one in (other, row) for name in ("generation", "verdict"))
                pairs.append(AnswerPair(row["question"], *sides))
    return pairs


def verdict_changes(pairs: Sequence[AnswerPair]) -> dict[tuple[str, str], int]:
    """Count pairs by (verdict unsteered, verdict steered), the most frequent first."""
    return dict(Counter((pair.before_verdict, pair.after_verdict) for pair in pairs).most_common())


def answer_sample(pairs: Sequence[AnswerPair], count: int = 12, seed: int = 0) -> list[AnswerPair]:
    """Draw ``count`` pairs at random, each question at most once, ordered by their verdicts."""
    first_of = {pair.question: pair for pair in reversed(pairs)}
    unique = list(reversed(first_of.values()))
    drawn = np.random.default_rng(seed).permutation(len(unique))[:count]
    chosen = [unique[i] for i in sorted(drawn)]
    return sorted(chosen, key=lambda pair: (pair.before_verdict, pair.after_verdict))


def race_in_words(evaluations: Sequence[Row]) -> str:
    """Say how much of the grid a race measured; nothing where there was no race.

    ``evaluations`` are rows of the view of that name.
    """
    measured = (row for row in evaluations if row["metric"] == "n_questions")
    asked = [row["value"] for row in measured if row["alpha"] is not None]
    over = sum(value == 0 for value in asked)
    if not asked or not max(asked):
        return ""
    share = sum(asked) / (len(asked) - over) / max(asked)
    return (
        f"race: of {len(asked)} settings {over} were ruled out before a question was asked; the "
        f"others were asked {share:.0%} of the validation questions, and what is said of those not "
        "measured on all is an estimate (metrics n_questions and n_texts in evaluations)"
    )


def top_modules(
    scores: Sequence[Row], selected: Sequence[Row], localizer: str, count: int = 10
) -> list[dict[str, Any]]:
    """Return the modules that ``localizer`` scores highest, means over folds and seeds.

    Scores and selected are rows of the views ``module_scores`` and ``selected_modules``; of the
    latter the method named as the localizer counts.

    Returns:
        Rows of ``layer``, ``head``, ``score``, ``score_sd`` (None for one run), ``best_rank``,
        ``worst_rank``, ``n_selected`` and ``n`` (folds times seeds).
    """
    by_module: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in scores:
        if row["localizer"] == localizer:
            by_module[row["layer"], row["head"]].append(row)
    chosen = Counter((row["layer"], row["head"]) for row in selected if row["method"] == localizer)
    modules = [_module_row(key, rows, chosen[key]) for key, rows in by_module.items()]
    return sorted(modules, key=lambda row: (-row["score"], row["layer"]))[:count]


def _module_row(key: tuple[Any, ...], rows: Sequence[Row], n_selected: int) -> dict[str, Any]:
    values = [float(row["score"]) for row in rows]
    ranks = [int(row["rank"]) for row in rows]
    return {
        "layer": key[0],
        "head": key[1],
        "score": statistics.fmean(values),
        "score_sd": statistics.stdev(values) if len(values) > 1 else None,
        "best_rank": min(ranks),
        "worst_rank": max(ranks),
        "n_selected": n_selected,
        "n": len(rows),
    }


def default_queries(run_id: str, method: str = "real", rival: str = "iti") -> dict[str, str]:
    """Return SQL to go on with, by what it answers."""
    run, ours, theirs = ("'" + one.replace("'", "''") + "'" for one in (run_id, method, rival))
    return {
        "Test metrics of every method": (
            "SELECT method, metric, avg(value) AS mean, stddev_samp(value) AS sd FROM evaluations "
            f"WHERE run_id = {run} AND split = 'test' GROUP BY ALL ORDER BY metric, mean DESC"
        ),
        "Heads by mean score, and how much it varies": (
            "SELECT layer, head, avg(score) AS score, stddev_samp(score) AS sd, min(rank) AS best, "
            f"max(rank) AS worst FROM module_scores WHERE run_id = {run} AND localizer = {ours} "
            "GROUP BY ALL ORDER BY score DESC LIMIT 10"
        ),
        "Heads that both methods select": (
            "SELECT layer, head, count(*) AS times FROM selected_modules AS a JOIN "
            "selected_modules AS b USING (run_id, fold, layer, head) WHERE a.method = "
            f"{ours} AND b.method = {theirs} AND run_id = {run} GROUP BY ALL ORDER BY times DESC"
        ),
        "Questions that steering gets wrong": (
            "SELECT question, generation, verdict, count(*) AS times FROM answers WHERE "
            f"run_id = {run} AND method = {ours} AND verdict <> 'true' GROUP BY ALL "
            "ORDER BY times DESC"
        ),
        "The same number over all runs": (
            "SELECT started_at, run_id, avg(value) AS mc1 FROM evaluations JOIN runs USING "
            f"(run_id) WHERE method = {ours} AND split = 'test' AND metric = 'mc1' "
            "GROUP BY ALL ORDER BY started_at"
        ),
    }
