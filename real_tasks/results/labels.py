"""What methods and metrics are called, which metrics say most, and in which order they come."""

from collections.abc import Iterable

from real_tasks.localizers import EQUAL_WEIGHTS, entry_of
from real_tasks.vocabulary.method_config import EXPERIMENT
from real_tasks.vocabulary.methods.library import library

METRIC_LABELS = {
    "kl": "KL",
    "mc1": "MC1",
    "mc2": "MC2",
    "option_accuracy": "option accuracy",
    "option_probability": "option probability",
    "true_share": "true generations",
    "info_share": "informative generations",
    "true_info_share": "true and informative",
    "false_share": "false generations",
    "context_share": "answers from the context",
    "memory_share": "answers from memory",
    "other_share": "other answers",
    "neither_share": "neither",
    "objective": "mean of the metrics tuned for",
    "mc0": "MC0",
    "mc3": "MC3",
    "cross_entropy": "cross-entropy",
    "perplexity": "perplexity",
    "generation_perplexity": "perplexity of answers under the unsteered model",
    "generation_rep3": "repeated trigrams in answers (rep-3)",
    "generation_tokens": "tokens of answers",
    "refusals": "refusals",
    "n_questions": "questions measured",
    "n_texts": "neutral texts measured",
}
"""In the order of the tables: the cost, then the effects that matter most."""
_HEADLINES = (
    "mc1",
    "mc2",
    "option_accuracy",
    "option_probability",
    "true_share",
    "context_share",
    "memory_share",
    "true_info_share",
)
BASIS_LABELS = {"tuned": "each at its tuned setting", "matched_kl": "at equal KL"}


def method_label(method: str, main: str | None = None) -> str:
    """Return the name that people read; that of a localizer's method comes from its entry.

    ``main`` is the run's own localizer, in whose modules the directions of other kinds stand.
    """
    said = library().get(method)
    if said is not None and said.label:
        if main and said.localizer == EXPERIMENT:
            return f"{method_label(main)} with {said.label}"
        return said.label
    localizer = method.removesuffix(EQUAL_WEIGHTS)
    label = entry_of(localizer).label or localizer.replace("_", " ")
    return label if localizer == method else f"{label} with equal weights"


def metric_label(metric: str) -> str:
    """Return the name that people read, the metric's own name if there is no other."""
    return METRIC_LABELS.get(metric, metric.replace("_", " "))


def basis_label(basis: str) -> str:
    """Return in words on what footing two methods are compared."""
    return BASIS_LABELS.get(basis, basis.replace("_", " "))


def duration(seconds: float) -> str:
    """Format a duration: 0.4 s, 12 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def headline_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return which of the metrics say most: those of headlines and pictures, at most three."""
    present = set(metrics)
    return tuple(name for name in _HEADLINES if name in present)[:3]


def ordered_methods(methods: Iterable[str]) -> list[str]:
    """Return each method once, by the places that localizers' entries name."""
    return sorted(dict.fromkeys(methods), key=_place)


def _place(method: str) -> tuple[int, str]:
    said = library().get(method)
    place = said.place if said else entry_of(method.removesuffix(EQUAL_WEIGHTS)).place
    return (place, method)
