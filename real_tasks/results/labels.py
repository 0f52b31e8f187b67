"""What methods and metrics are called, which metrics say most, and in which order they come."""

from collections.abc import Iterable

METHOD_LABELS = {
    "unsteered": "unsteered",
    "real": "REAL",
    "real_equal_weights": "REAL with equal weights",
    "iti": "ITI",
    "causal": "causal effect",
    "caa": "CAA (one layer)",
    "random": "random modules",
    "all": "all modules",
    "random_direction": "REAL with random direction",
    "pca_direction": "REAL with PCA direction",
    "probe_direction": "REAL with probe direction",
}
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


def method_label(method: str) -> str:
    """Return the name that people read, the method's own name if there is no other."""
    return METHOD_LABELS.get(method, method.replace("_", " "))


def metric_label(metric: str) -> str:
    """Return the name that people read, the metric's own name if there is no other."""
    return METRIC_LABELS.get(metric, metric.replace("_", " "))


def basis_label(basis: str) -> str:
    """Return in words on what footing two methods are compared."""
    return BASIS_LABELS.get(basis, basis.replace("_", " "))


def headline_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return which of the metrics say most: those of headlines and pictures, at most three."""
    present = set(metrics)
    return tuple(name for name in _HEADLINES if name in present)[:3]


def ordered_methods(methods: Iterable[str]) -> list[str]:
    """Return each method once: the known ones in the order of METHOD_LABELS, then the others."""
    found = list(dict.fromkeys(methods))
    known = [method for method in METHOD_LABELS if method in found]
    return known + [method for method in found if method not in METHOD_LABELS]
