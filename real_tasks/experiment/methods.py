"""Ways of steering to compare: who chooses modules, how strengths follow, in which direction."""

from typing import Literal

from real_tasks.localizers import EQUAL_WEIGHTS, LOCALIZERS
from real_tasks.vocabulary.config import Frozen, PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import ModuleKind

CAA = "caa"
CAA_LOCALIZER = "causal"


class Method(Frozen):
    """A way of steering.

    Attributes:
        name: as in the tables.
        kind: of the modules that are steered.
        localizer: who ranks the modules; None where all are steered, or none.
        weighting: whether strengths follow the scores.
        direction: entry of `directions.DIRECTIONS`; None where nothing is steered.
        top_k: the numbers of modules to choose from; none where no localizer ranks them.
    """

    name: str
    kind: ModuleKind = "head"
    localizer: str | None = None
    weighting: Literal["score", "equal"] = "equal"
    direction: str | None = None
    top_k: tuple[int, ...] = ()

    @property
    def seeded(self) -> bool:
        """Whether the localizer's seed, or that of the direction, changes the outcome."""
        stochastic = self.localizer is not None and LOCALIZERS[self.localizer].stochastic
        return stochastic or self.direction == "random"


class Ranking(Frozen):
    """Modules of one kind, to be scored by one localizer."""

    localizer: PlugIn
    kind: ModuleKind


def known_methods(config: ExperimentConfig) -> dict[str, Method]:
    """Return the methods that this experiment's localizers make possible, by name.

    ``caa`` is the residual-stream mean difference at the one layer that has the largest effect on
    validation questions (CAA, section 3); the directions of other kinds stand in the primary
    localizer's modules.
    """
    kind = config.module_kind
    methods = {"unsteered": Method(name="unsteered", kind=kind)}
    for localizer in (config.localizer, *config.baselines):
        name, weighting = localizer.name, LOCALIZERS[localizer.name].weighting
        ranked = Method(
            name=name,
            kind=kind,
            localizer=name,
            weighting=weighting,
            direction="mean_difference",
            top_k=config.evaluation.top_k,
        )
        methods[name] = ranked
        if weighting == "score":
            equal = name + EQUAL_WEIGHTS
            methods[equal] = ranked.model_copy(update={"name": equal, "weighting": "equal"})
    methods[CAA] = Method(
        name=CAA,
        kind="layer",
        localizer=CAA_LOCALIZER,
        direction="mean_difference",
        top_k=(1,),
    )
    methods["all"] = Method(name="all", kind=kind, direction="mean_difference")
    primary = methods[config.localizer.name]
    for direction in ("random", "pca", "probe"):
        name = f"{direction}_direction"
        methods[name] = primary.model_copy(update={"name": name, "direction": direction})
    return methods


def with_methods(config: ExperimentConfig) -> ExperimentConfig:
    """Return the configuration with its methods named: where it names none, all that there are.

    ``caa``, which steers with every layer alone to choose one, is among them where effects are
    measured anyway.

    Raises:
        UserInputError: an unknown name; the known ones are listed.
    """
    known = known_methods(config)
    if not config.methods:
        with_effects = CAA_LOCALIZER in (one.name for one in config.baselines)
        names = tuple(name for name in known if name != CAA or with_effects)
        return config.model_copy(update={"methods": names})
    for name in config.methods:
        if name not in known:
            raise UserInputError(
                f"unknown method {name!r} in methods; with these localizers there are: "
                + ", ".join(sorted(known))
                + ". A localizer's own method needs it in localizer or baselines; methods=[] "
                "stands for all that there are"
            )
    return config


def methods_of(config: ExperimentConfig) -> list[Method]:
    """Return the methods of a configuration that names them (`with_methods`), in its order."""
    assert config.methods, "a configuration without methods is not complete"
    known = known_methods(config)
    return [known[name] for name in config.methods]


def rankings_of(config: ExperimentConfig) -> list[Ranking]:
    """Return what has to be ranked: by every localizer, and what a method needs besides."""
    own = {one.name: one for one in (config.localizer, *config.baselines)}
    rankings = [Ranking(localizer=one, kind=config.module_kind) for one in own.values()]
    ranked = {(ranking.localizer.name, ranking.kind) for ranking in rankings}
    for method in methods_of(config):
        name = method.localizer
        if name is None or (name, method.kind) in ranked:
            continue
        defaults = LOCALIZERS[name].Params().model_dump(mode="json")
        localizer = own.get(name, PlugIn(name=name, params=defaults))
        rankings.append(Ranking(localizer=localizer, kind=method.kind))
    return rankings
