"""What methods and modules are called, and in which order methods come."""

from collections.abc import Iterable

from real_tasks.localizers import EQUAL_WEIGHTS, entry_of
from real_tasks.vocabulary.method_config import EXPERIMENT
from real_tasks.vocabulary.methods.library import library

MODULE_NOUNS = {
    "head": "heads",
    "attention": "attention blocks",
    "mlp": "MLPs",
    "neuron": "neurons",
    "residual_in": "inputs of layers",
    "residual_mid": "middles of layers",
    "layer": "layers",
    "final": "outputs of the last norm",
}


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


def ordered_methods(methods: Iterable[str]) -> list[str]:
    """Return each method once, by the places that localizers' entries name."""
    return sorted(dict.fromkeys(methods), key=_place)


def _place(method: str) -> tuple[int, str]:
    said = library().get(method)
    place = said.place if said else entry_of(method.removesuffix(EQUAL_WEIGHTS)).place
    return (place, method)
