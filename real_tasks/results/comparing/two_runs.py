"""Two runs side by side: how far their rankings of modules agree, how their metrics differ."""

from collections.abc import Sequence
from dataclasses import dataclass

from real_tasks.evaluation.labels import headline_metrics, metric_label
from real_tasks.localizers.labels import method_label
from real_tasks.results.comparing.agreement import RankAgreement, rank_agreement, usual_top_k
from real_tasks.results.scores import mean_scores, scores_by_run
from real_tasks.results.summary import Row, result_table
from real_tasks.vocabulary.errors import UserInputError, first_of


@dataclass(frozen=True)
class MetricDifference:
    """A test metric of a method in two runs: means over folds and seeds."""

    method: str
    metric: str
    first: float
    second: float

    @property
    def difference(self) -> float:
        """Second minus first, in the metric's unit."""
        return self.second - self.first


@dataclass(frozen=True)
class RunComparison:
    """From a first run to a second one: agreement of mean scores, differences of test metrics."""

    agreement: RankAgreement
    differences: tuple[MetricDifference, ...]


def compare_runs(
    scores: tuple[Sequence[Row], Sequence[Row]],
    evaluations: tuple[Sequence[Row], Sequence[Row]],
    top_k: int | None = None,
) -> RunComparison:
    """Compare a first run with a second one.

    For each the rows of the views ``module_scores``, of one localizer, and ``evaluations``; of the
    best modules ``top_k`` are compared, as many as `usual_top_k` says without.

    Raises:
        UserInputError: the runs scored no module in common.
    """
    first, second = (mean_scores(scores_by_run(rows).values()) for rows in scores)
    common = first.keys() & second.keys()
    if not common:
        raise UserInputError(
            "the two runs scored no module in common; expected runs of the same model and "
            "module_kind"
        )
    return RunComparison(
        agreement=rank_agreement(first, second, top_k or usual_top_k(len(common))),
        differences=tuple(_differences(*(result_table(rows) for rows in evaluations))),
    )


def run_comparison_sentences(comparison: RunComparison) -> list[str]:
    """Put the comparison into sentences, each computed from the numbers given."""
    mean = comparison.agreement
    sentences = [
        f"Over {mean.n_modules} modules, the scores of the two runs have a rank correlation "
        f"(Spearman) of {mean.spearman:.2f} [{mean.low:.2f}, {mean.high:.2f}]; of the best "
        f"{mean.top_k} of each, {mean.shared} are the same (by chance: {mean.by_chance:.1f})."
    ]
    for what, modules in (("entered", mean.entered), ("left", mean.left)):
        if modules:
            names = first_of([module.label for module in modules], 10, "; ")
            sentences.append(f"{len(modules)} {what} the best {mean.top_k}: {names}.")
    shown = headline_metrics(one.metric for one in comparison.differences)
    largest = max(
        (one for one in comparison.differences if one.metric in shown),
        key=lambda one: abs(one.difference),
        default=None,
    )
    if largest is not None:
        sentences.append(
            f"The largest difference on test questions: {metric_label(largest.metric)} of "
            f"{method_label(largest.method)}, from {largest.first:.3f} to {largest.second:.3f}."
        )
    return sentences


def difference_rows(comparison: RunComparison) -> list[dict[str, str | float]]:
    """Return the differences as rows that people read."""
    numbers = ("first", "second", "difference")
    return [
        {
            "method": method_label(one.method),
            "metric": metric_label(one.metric),
            **{name: round(getattr(one, name), 4) for name in numbers},
        }
        for one in comparison.differences
    ]


def _differences(first: Sequence[Row], second: Sequence[Row]) -> list[MetricDifference]:
    others = {row["method"]: row for row in second}
    return [
        MetricDifference(row["method"], metric, row[metric], others[row["method"]][metric])
        for row in first
        if row["method"] in others
        for metric in row
        if isinstance(row[metric], float)
        and not metric.endswith("_sd")
        and isinstance(others[row["method"]].get(metric), float)
    ]
