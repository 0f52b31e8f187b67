"""What came out, in sentences that are computed from the numbers; a tie is called a tie."""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from real_tasks.evaluation.labels import METRIC_LABELS, headline_metrics, metric_label
from real_tasks.localizers.labels import MODULE_NOUNS, method_label, ordered_methods
from real_tasks.results.comparing.agreement import LocalizerAgreement, localizer_agreement
from real_tasks.results.labels import basis_label
from real_tasks.results.scores import mean_scores, scores_by_run
from real_tasks.results.summary import Row

Outcome = Literal["ahead", "tie", "behind", "unknown", "more", "less"]
Verdict = Outcome | Literal["mixed"]

LOWER_IS_BETTER = frozenset(
    ("false_share", "cross_entropy", "perplexity", "kl", "generation_perplexity", "generation_rep3")
)
NEITHER_IS_BETTER = frozenset(
    ("context_share", "memory_share", "neither_share", "other_share")
    + ("generation_tokens", "refusals")
)
"""Or it depends on the behaviour, as whether answers are to come from context or memory."""
CAUSAL = "causal"
"""The localizer whose scores are the modules' own effects."""
SHORT_BASES = {"tuned": "each tuned", "matched_kl": "equal KL"}
VERBS: dict[Verdict, str] = {
    "ahead": "{} is ahead of {}",
    "tie": "{} and {} tie",
    "behind": "{} is behind {}",
    "unknown": "{} against {} has no interval",
    "mixed": "{} against {} is mixed",
    "more": "{} has more than {}",
    "less": "{} has less than {}",
}
MANY = 12
"""From so many baselines on, those of one verdict share a sentence."""


def outcome(comparison: Row) -> Outcome:
    """Say how a method fares against its baseline: a tie where the interval includes 0.

    Less is better for false generations, cross-entropy and KL; where neither is, as for the length
    of answers, it says whether the method has more or less.
    """
    low, high = comparison["low"], comparison["high"]
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "unknown"
    if low <= 0 <= high:
        return "tie"
    if comparison["metric"] in NEITHER_IS_BETTER:
        return "more" if low > 0 else "less"
    return "ahead" if (low > 0) != (comparison["metric"] in LOWER_IS_BETTER) else "behind"


def headlines(
    results: Sequence[Row], comparisons: Sequence[Row], method: str = "real"
) -> list[str]:
    """Put the result into sentences, each computed from the numbers given.

    First what steering does to the unsteered model, then a sentence for each baseline, at equal KL
    where there is such a comparison. Differences whose interval includes 0 are called ties. Many
    baselines are named by verdict, without their numbers.
    """
    by_method = {row["method"]: row for row in results}
    sentences = []
    if method in by_method and "unsteered" in by_method:
        sentences.append(_effect_sentence(by_method[method], by_method["unsteered"]))
    shown = headline_metrics(row["metric"] for row in comparisons)
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in comparisons:
        if row["method"] == method and row["metric"] in shown:
            groups[row["baseline"]][row["basis"]].append(row)
    compared = []
    for baseline in ordered_methods(groups):
        bases = groups[baseline]
        # The unsteered model has a KL of 0: nothing matches it.
        preferred = "tuned" if baseline == "unsteered" else "matched_kl"
        compared.append(bases[preferred if preferred in bases else next(iter(bases))])
    if len(compared) < MANY:
        return sentences + [comparison_sentence(rows) for rows in compared]
    alone = [comparison_sentence(rows) for rows in compared if rows[0]["baseline"] == "unsteered"]
    return sentences + alone + _verdict_sentences(compared, method)


def _verdict_sentences(compared: Sequence[Sequence[Row]], method: str) -> list[str]:
    """Name the baselines by basis and by what all headline metrics say of them."""
    named: dict[tuple[str, Verdict], list[str]] = defaultdict(list)
    for rows in compared:
        if rows[0]["baseline"] != "unsteered":
            label = method_label(rows[0]["baseline"], method)
            named[rows[0]["basis"], _verdict(rows)].append(label)
    order = list(VERBS)
    return [
        _sentence(basis, verdict, method_label(method), _listed(labels))
        for (basis, verdict), labels in sorted(
            named.items(), key=lambda item: (item[0][0], order.index(item[0][1]))
        )
    ]


def _verdict(comparisons: Sequence[Row]) -> Verdict:
    outcomes = {outcome(row) for row in comparisons}
    return outcomes.pop() if len(outcomes) == 1 else "mixed"


def _sentence(basis: str, verdict: Verdict, method: str, baseline: str, numbers: str = "") -> str:
    sentence = f"{basis_label(basis)}, {VERBS[verdict].format(method, baseline)}{numbers}."
    return sentence[0].upper() + sentence[1:]


def _effect_sentence(steered: Row, unsteered: Row) -> str:
    measured = (n for n in steered if steered[n] is not None and unsteered.get(n) is not None)
    changes = [
        f"{metric_label(name)} from {unsteered[name]:.2f} to {steered[name]:.2f}"
        for name in headline_metrics(measured)
    ]
    if not changes:
        return f"{method_label(steered['method'])} has no headline metric in common with unsteered."
    cost = f", at a KL of {steered['kl']:.3f} nats/token" if steered.get("kl") is not None else ""
    return (
        f"{method_label(steered['method'])} takes {_listed(changes)} on test questions{cost} "
        f"(means over {steered['n']} folds and seeds)."
    )


def transfer_sentences(rows: Sequence[Row]) -> list[str]:
    """Say how far what was found on one behaviour carries over to others.

    ``rows`` are those of the view ``transfer`` over all folds and seeds.
    """
    sentences = []
    for metric in headline_metrics(row["metric"] for row in rows):
        mine = [row for row in rows if row["metric"] == metric]
        for where, alike in (("on the behaviour itself", True), ("on another behaviour", False)):
            found = [row for row in mine if (row["source"] == row["target"]) == alike]
            if found:
                sentences.append(f"{metric_label(metric)}, {where}: {_gains(found)}.")
    return sentences


def _gains(rows: Sequence[Row]) -> str:
    above = sum(row["low"] is not None and row["low"] > 0 for row in rows)
    below = sum(row["high"] is not None and row["high"] < 0 for row in rows)
    gains = [row["gain"] for row in rows]
    if len(gains) == 1:
        return f"a gain of {signed(gains[0])} [{signed(rows[0]['low'])}, {signed(rows[0]['high'])}]"
    return (
        f"gains from {signed(min(gains))} to {signed(max(gains))}; {above} of {len(rows)} clearly "
        f"above 0, {below} clearly below"
    )


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def comparison_sentence(comparisons: Sequence[Row]) -> str:
    """Put the metrics of one method against one baseline, on one basis, into a sentence."""
    first = comparisons[0]
    names = (method_label(first["method"]), method_label(first["baseline"], first["method"]))
    verdict = _verdict(comparisons)
    clauses = []
    for row in comparisons:
        difference, interval = _difference(row)
        text = " ".join([metric_label(row["metric"]), difference, *interval])
        clauses.append(f"{text} ({outcome(row)})" if verdict == "mixed" else text)
    return _sentence(first["basis"], verdict, *names, f": {'; '.join(clauses)}")


def _difference(row: Row) -> tuple[str, list[str]]:
    """Return a difference, and its interval if it has one."""
    known = outcome(row) != "unknown"
    interval = [f"[{signed(row['low'])}, {signed(row['high'])}]"] if known else []
    return signed(row["difference"]), interval


def causal_agreement(module_scores: Sequence[Row], method: str = "real") -> str | None:
    """Say how far what is read out of modules ranks them as what they do when steered alone.

    None where the view ``module_scores`` has no causal scores of the same modules, or no ranking.
    """
    if method == CAUSAL:
        return None
    found = localizer_agreement(module_scores, (method, CAUSAL))
    if found is None or math.isnan(found.mean.spearman):
        return None
    mean, kind = found.mean, next(iter(found.first)).kind
    return (
        f"Read-out and causal relevance: over {mean.n_modules} {MODULE_NOUNS[kind]}, "
        f"{method_label(method)}'s scores and the effects of steering each alone have a rank "
        f"correlation (Spearman) of {_two_decimals(mean.spearman)} "
        f"[{_two_decimals(mean.low)}, {_two_decimals(mean.high)}]{_within_runs(found)}; of the "
        f"best {mean.top_k} of each, {mean.shared} are the same (by chance: {mean.by_chance:.1f})."
    )


def wording(
    text_scores: Sequence[Row], module_scores: Sequence[Row], method: str = "real"
) -> str | None:
    """Say what a bag of words tells on held-out questions, and what modules tell.

    None where the views ``text_scores`` or ``module_scores`` have nothing of it.
    """
    runs = scores_by_run(module_scores, method, "roc_auc").values()
    modules = mean_scores(runs)
    by_split = defaultdict(list)
    for row in text_scores:
        by_split[row["split"]].append(row["roc_auc"])
    if not modules or not by_split:
        return None
    words = {name: _two_decimals(fmean(aucs)) for name, aucs in by_split.items()}
    kind = MODULE_NOUNS[next(iter(modules)).kind]
    return (
        f"Words alone: a bag of words tells aligned from violating answers with an AUC of "
        f"{words['validation']} on validation and {words['test']} on test questions (0.5: chance). "
        f"The {kind}, by {method_label(method)}, have held-out AUCs of "
        f"{_two_decimals(fmean(modules.values()))} on average and "
        f"{_two_decimals(max(modules.values()))} at best."
    )


def _within_runs(found: LocalizerAgreement) -> str:
    values = [run.spearman for run in found.runs.values() if math.isfinite(run.spearman)]
    if len(values) < 2:
        return ""
    ends = f"{_two_decimals(min(values))} to {_two_decimals(max(values))}"
    return f" for averages over folds and seeds ({ends} within a fold and seed)"


def _two_decimals(value: float) -> str:
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def signed(value: float) -> str:
    """Format a difference with its sign, three decimals and a true minus; -0.000 is 0.000.

    One that three decimals would show as nothing has a fourth, lest a clear gain look like a tie.
    """
    decimals = 3 if abs(value) >= 5e-4 or round(value, 4) == 0 else 4
    text = f"{value:+.{decimals}f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")


def comparison_table(comparisons: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Format comparisons: a row for two methods on one basis, a column a metric.

    A cell is the difference with its outcome and, on a second line, its interval; empty where
    nothing was compared.
    """
    metrics = [name for name in METRIC_LABELS if any(row["metric"] == name for row in comparisons)]
    order = ordered_methods(row[side] for side in ("method", "baseline") for row in comparisons)
    by_key: dict[tuple[str, str, str], dict[str, Row]] = defaultdict(dict)
    for row in comparisons:
        by_key[row["method"], row["baseline"], row["basis"]][row["metric"]] = row
    lines = [
        [
            f"{method_label(method)} − {method_label(baseline, method)}",
            SHORT_BASES.get(basis, basis_label(basis)),
            *(_difference_cell(by_key[method, baseline, basis].get(name)) for name in metrics),
        ]
        for method, baseline, basis in sorted(
            by_key, key=lambda key: (order.index(key[0]), order.index(key[1]), key[2])
        )
    ]
    return ["difference", "basis", *map(metric_label, metrics)], lines


def _difference_cell(row: Row | None) -> str:
    if row is None:
        return ""
    difference, interval = _difference(row)
    return f"{difference} {outcome(row)}\n{interval[0]}" if interval else difference
