"""Ways of steering to compare: who chooses modules, how strengths follow, in which direction."""

from typing import Literal

from real_tasks.config import ExperimentConfig, Frozen
from real_tasks.errors import UserInputError
from real_tasks.localizers import LOCALIZERS

EQUAL_WEIGHTS = "_equal_weights"


class Method(Frozen):
    """A way of steering.

    Attributes:
        name: as in the tables.
        localizer: who ranks the modules; None where all are steered, or none.
        weighting: whether strengths follow the scores.
        direction: entry of `directions.DIRECTIONS`; None where nothing is steered.
    """

    name: str
    localizer: str | None
    weighting: Literal["score", "equal"]
    direction: str | None

    @property
    def seeded(self) -> bool:
        """Whether the localizer's seed, or that of the direction, changes the outcome."""
        stochastic = self.localizer is not None and LOCALIZERS[self.localizer].stochastic
        return stochastic or self.direction == "random"


def known_methods(config: ExperimentConfig) -> dict[str, Method]:
    """Return the methods that this experiment's localizers make possible, by name."""
    methods = {
        "unsteered": _method("unsteered", None, "equal", None),
        "all": _method("all", None, "equal", "mean_difference"),
    }
    for localizer in (config.localizer, *config.baselines):
        weighting = LOCALIZERS[localizer.name].weighting
        name = localizer.name
        methods[name] = _method(name, name, weighting, "mean_difference")
        if weighting == "score":
            equal = name + EQUAL_WEIGHTS
            methods[equal] = _method(equal, name, "equal", "mean_difference")
    primary = methods[config.localizer.name]
    methods["random_direction"] = _method(
        "random_direction", primary.localizer, primary.weighting, "random"
    )
    return methods


def methods_of(config: ExperimentConfig) -> list[Method]:
    """Return the methods that the configuration asks for, in its order.

    Raises:
        UserInputError: an unknown name; the known ones are listed.
    """
    known = known_methods(config)
    for name in config.methods:
        if name not in known:
            raise UserInputError(
                f"unknown method {name!r} in methods; with these localizers there are: "
                + ", ".join(sorted(known))
            )
    return [known[name] for name in config.methods]


def _method(
    name: str, localizer: str | None, weighting: Literal["score", "equal"], direction: str | None
) -> Method:
    return Method(name=name, localizer=localizer, weighting=weighting, direction=direction)
