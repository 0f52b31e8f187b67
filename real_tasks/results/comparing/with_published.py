"""A run's scores of attention heads beside a published ranking of the same model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

from real_tasks.results.comparing.agreement import RESAMPLES, RankAgreement, rank_agreement
from real_tasks.results.comparing.published import SCORE
from real_tasks.results.scores import RunKey, Scores, best_modules, mean_scores, scores_by_run
from real_tasks.results.summary import Row
from real_tasks.vocabulary.errors import UserInputError

RunPairs = Mapping[tuple[RunKey, RunKey], RankAgreement]
"""Agreement of the scores of one fold and seed with those of another."""


class HeadRanks(NamedTuple):
    """A head in both rankings: scores averaged over folds and seeds, and places from 1, the best.

    Equal scores are ranked in the order of heads.
    """

    layer: int
    head: int
    published: float
    ours: float
    published_rank: int
    our_rank: int


@dataclass(frozen=True)
class RankingComparison:
    """How far a run's ranking of heads agrees with a published one.

    Attributes:
        n_layers: layers of the model, of ``n_heads`` heads each.
        column: the column of `module_scores` that is compared: ``roc_auc`` where there is one.
        mean: agreement of the scores averaged over folds and seeds.
        runs: of every published fold and seed (first) with every one of the run (second).
        published_runs: of the published folds and seeds with each other. More than that cannot be
            expected of any comparison with them.
        own_runs: of the run's own folds and seeds with each other.
        heads: best published first.
    """

    n_layers: int
    n_heads: int
    column: str
    mean: RankAgreement
    runs: RunPairs
    published_runs: RunPairs
    own_runs: RunPairs
    heads: tuple[HeadRanks, ...]


def compare_rankings(
    published: Sequence[Row], ours: Sequence[Row], top_k: int, n_resamples: int = RESAMPLES
) -> RankingComparison:
    """Compare a run's scores with a published ranking, on average and fold by fold.

    The published rows are of one model (see `published.rows_of_model`), ours of the view
    ``module_scores``, of one run and one localizer.

    Raises:
        UserInputError: the run scored no heads, or a model of another shape.
    """
    heads = [row for row in ours if row.get("module_kind", "head") == "head"]
    assert len({row.get("localizer") for row in heads}) <= 1, "rows of several localizers"
    column = SCORE if all(row.get(SCORE) is not None for row in heads) else "score"
    theirs, own = scores_by_run(published, column=SCORE), scores_by_run(heads, column=column)
    if not own:
        raise UserInputError(
            "the run has no scores of attention heads; expected a run with module_kind=head"
        )
    n_layers, n_heads = _common_shape(theirs, own)
    means = mean_scores(theirs.values()), mean_scores(own.values())
    return RankingComparison(
        n_layers=n_layers,
        n_heads=n_heads,
        column=column,
        mean=rank_agreement(*means, top_k, n_resamples),
        runs={
            (first, second): rank_agreement(theirs[first], own[second], top_k, n_resamples)
            for first, second in product(theirs, own)
        },
        published_runs=run_agreement(theirs, top_k, n_resamples),
        own_runs=run_agreement(own, top_k, n_resamples),
        heads=tuple(_head_ranks(*means)),
    )


def run_agreement(
    runs: Mapping[RunKey, Scores], top_k: int, n_resamples: int = RESAMPLES
) -> RunPairs:
    """Compare each two folds and seeds of one ranking."""
    return {
        (first, second): rank_agreement(runs[first], runs[second], top_k, n_resamples)
        for first, second in combinations(runs, 2)
    }


def comparison_sentences(comparison: RankingComparison) -> list[str]:
    """Put the comparison into sentences, each computed from the numbers given."""
    mean = comparison.mean
    sentences = [
        f"Over {mean.n_modules} heads ({comparison.n_layers} layers of {comparison.n_heads}), the "
        f"published scores and ours ({comparison.column}), averaged over folds and seeds, have a "
        f"rank correlation (Spearman) of {mean.spearman:.2f} [{mean.low:.2f}, {mean.high:.2f}] and "
        f"a linear one (Pearson) of {mean.pearson:.2f}.",
        f"Of the best {mean.top_k} of each, {mean.shared} are the same (by chance: "
        f"{mean.by_chance:.1f}).",
    ]
    for pairs, what in (
        (comparison.runs, "A published fold and one of ours"),
        (comparison.published_runs, "Two published folds"),
        (comparison.own_runs, "Two folds or seeds of ours"),
    ):
        if pairs:
            sentences.append(_range_sentence(what, [*pairs.values()]))
    return sentences


def head_table(comparison: RankingComparison, count: int) -> tuple[list[str], list[list[str]]]:
    """Format the heads that either ranking has among its best ``count``, best published first."""
    headers = [name.replace("_", " ") for name in HeadRanks._fields]
    shown = [row for row in comparison.heads if min(row.published_rank, row.our_rank) <= count]
    return headers, [
        [f"{value:.3f}" if isinstance(value, float) else str(value) for value in row]
        for row in shown
    ]


def _range_sentence(what: str, found: Sequence[RankAgreement]) -> str:
    rho = sorted(one.spearman for one in found)
    shared = sorted(one.shared for one in found)
    if len(found) == 1:
        return f"{what}: Spearman {rho[0]:.2f}, {shared[0]} of {found[0].top_k} the same."
    return (
        f"{what}: Spearman {rho[0]:.2f} to {rho[-1]:.2f}, {shared[0]} to {shared[-1]} of "
        f"{found[0].top_k} the same, over {len(found)} pairs."
    )


def _common_shape(theirs: Mapping[RunKey, Scores], own: Mapping[RunKey, Scores]) -> tuple[int, int]:
    modules = ([module for scores in runs.values() for module in scores] for runs in (theirs, own))
    shapes = [(max(m.layer for m in both) + 1, max(m.head for m in both) + 1) for both in modules]
    if shapes[0] != shapes[1]:
        sizes = [f"{n_layers} layers of {n_heads} heads" for n_layers, n_heads in shapes]
        raise UserInputError(
            f"the published ranking is of {sizes[0]}, the run's model has {sizes[1]}; expected "
            "rankings of the same model"
        )
    return shapes[0]


def _head_ranks(theirs: Scores, own: Scores) -> Iterator[HeadRanks]:
    places, our_places = (
        {module: place for place, module in enumerate(best_modules(scores), start=1)}
        for scores in (theirs, own)
    )
    for module, place in places.items():
        if module in own:
            scores = theirs[module], own[module]
            yield HeadRanks(module.layer, module.head, *scores, place, our_places[module])
