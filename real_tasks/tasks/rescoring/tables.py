"""From what a re-scoring made to rows of the tables ``score_drift`` and its neighbours."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from real_tasks.results.drift.change import (
    GainDrift,
    compared_top_k,
    gain_drift,
    question_gains,
    question_key,
    ranking_drift,
)
from real_tasks.results.drift.rows import drift_row, exceeded
from real_tasks.results.rows import Row
from real_tasks.results.scores import RunKey, rows_of
from real_tasks.tasks.rescoring.plan import Rescored, Rescoring, deployed_steering
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.outcome import module_score_rows
from storage.artifacts.store import ArtifactRef
from storage.paths import Home
from storage.tables.parquet import read_run

UNSTEERED = "unsteered"


def drift_rows(home: Home, plan: Rescoring, scored: Rescored) -> list[Row]:
    """Return the rows of ``score_drift``, without what is the same in all of them.

    The first row of a localizer is the one over all folds and seeds.
    """
    after = module_score_rows(scored.outcome.scores)
    before = read_run(home, "module_scores", plan.compared_run_id)
    gains = measured_gains(plan, scored)
    steered = (plan.steered.localizer or plan.experiment.localizer.name, plan.steered.kind)
    rows: list[Row] = []
    for which in dict.fromkeys((item.localizer, item.kind) for item in scored.outcome.scores):
        pair = rows_of(before, *which), rows_of(after, *which)
        rows += _rows_of_localizer(plan, pair, gains if which == steered else None)
    return rows


def question_counts(plan: Rescoring, scored: Rescored) -> dict[str, int]:
    """Return how many questions the data have, how many are new, and how many are gone."""
    now, then = (
        {question_key(data, i) for i in range(len(data.questions))}
        for data in map(
            references.load_dataset, (scored.outcome.dataset, plan.compared.outcome.dataset)
        )
    )
    gone = len(then - now)
    return {"data_questions": len(now), "new_questions": len(now - then), "gone_questions": gone}


@dataclass(frozen=True)
class MeasuredGains:
    """Gains of the deployed steering by question, of the baseline and now, for folds and seeds.

    `before` is empty where the baseline did not measure the unsteered model; the data now have
    `n_questions`.
    """

    before: Mapping[RunKey, Mapping[str, float]]
    after: Mapping[RunKey, Mapping[str, float]]
    n_questions: int

    def drift(self, run: RunKey | None, n_resamples: int) -> GainDrift | None:
        """Return the change in one fold and seed, or over all of them."""
        before, after = (
            [gains for key, gains in side.items() if run in (None, key)]
            for side in (self.before, self.after)
        )
        return gain_drift(before, after, n_resamples)


def measured_gains(plan: Rescoring, scored: Rescored) -> MeasuredGains:
    """Return what the deployed steering gained at the baseline, and gains now."""
    then = references.load_dataset(plan.baseline.dataset)
    now = references.load_dataset(scored.outcome.dataset)
    objective = plan.experiment.evaluation.objective
    plain: dict[int, ArtifactRef] = {}
    for item in plan.baseline.evaluations:
        if item.method == UNSTEERED:
            plain.setdefault(item.fold, item.evaluation)
    before, after = {}, {}
    for item in deployed_steering(plan):
        if item.fold in plain:
            both = (item.evaluation, plain[item.fold])
            ours, theirs = (references.load_evaluation(one)["test"] for one in both)
            before[item.fold, item.seed] = question_gains(ours, theirs, objective, then)
    for done in scored.measured:
        found = references.load_measured(done.measured)
        if found["steered"]:
            after[done.fold, done.seed] = question_gains(
                found["steered"], found["unsteered"], objective, now
            )
    return MeasuredGains(before, after, len(now.questions))


def evaluation_rows(plan: Rescoring, scored: Rescored) -> Iterator[Row]:
    """Yield the rows of ``evaluations``, without run, model and behaviour: all that was measured.

    The unsteered model is the same whatever the seed, so that it has one row a fold.
    """
    told: set[int] = set()
    for done in scored.measured:
        found = references.load_measured(done.measured)
        settings = {"top_k": found.get("top_k"), "alpha": found.get("alpha")}
        sides = [(plan.method, found["steered"], settings)]
        if done.fold not in told:
            sides.append((UNSTEERED, found["unsteered"], {"top_k": None, "alpha": None}))
        told.add(done.fold)
        for method, measurement, setting in sides:
            for metric, value in (measurement or {"metrics": {}})["metrics"].items():
                if math.isfinite(value):
                    yield {
                        "method": method,
                        "fold": done.fold,
                        "seed": done.seed,
                        "split": "test",
                        **setting,
                        "token_scope": plan.experiment.evaluation.token_scope,
                        "metric": metric,
                        "value": value,
                    }


def _rows_of_localizer(
    plan: Rescoring, pair: tuple[list[Row], list[Row]], gains: MeasuredGains | None
) -> Iterator[Row]:
    n_resamples, first = plan.config.bootstrap_samples, pair[1][0]
    steered = [references.load_evaluation(i.evaluation)["top_k"] for i in deployed_steering(plan)]
    n_modules = len({(row["layer"], row["head"]) for row in pair[1]})
    top_k = plan.config.top_k or compared_top_k(steered, n_modules)
    runs = sorted({(int(row["fold"]), int(row["seed"])) for row in pair[1]})
    for run in (None, *runs):
        before, after = (
            [row for row in rows if run in (None, (row["fold"], row["seed"]))] for rows in pair
        )
        gain = gains.drift(run, n_resamples) if gains else None
        fold, seed = run or (None, None)
        which = {name: first[name] for name in ("localizer", "module_kind")}
        row = drift_row(
            which | {"fold": fold, "seed": seed},
            ranking_drift(before, after, top_k, n_resamples),
            gain,
            n_excluded=gains.n_questions - gain.n_questions if gains and gain else 0,
        )
        passed = exceeded(row, plan.config.thresholds) if run is None else ()
        yield row | {"exceeded": ", ".join(passed)}
