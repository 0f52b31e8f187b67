"""What metrics are called, which of them say most, and in which order they come."""

from collections.abc import Iterable

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


def metric_label(metric: str) -> str:
    """Return the name that people read, the metric's own name if there is no other."""
    return METRIC_LABELS.get(metric, metric.replace("_", " "))


def headline_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return which of the metrics say most: those of headlines and pictures, at most three."""
    present = set(metrics)
    return tuple(name for name in _HEADLINES if name in present)[:3]
