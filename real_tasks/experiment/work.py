"""The units of work of an experiment, as the flow submits them and the planner counts them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from real_tasks.experiment.methods.known import Ranking, methods_of, rankings_of
from real_tasks.experiment.methods.method import Method
from real_tasks.localizers import LOCALIZERS, Localizer
from real_tasks.steering.fitters import FITTERS, Fitter
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import ModuleKind, Reading


class Scoring(NamedTuple):
    """Modules to be scored on a fold with a seed, a task a layer."""

    ranking: Ranking
    fold: int
    seed: int

    @property
    def reading(self) -> Reading:
        """The tokens at which its localizer has activations read."""
        return LOCALIZERS[self.ranking.localizer.name].reading

    @property
    def beside(self) -> ModuleKind | None:
        """The part that its localizer sees too."""
        return LOCALIZERS[self.ranking.localizer.name].beside.get(self.ranking.kind)

    @property
    def needs_model(self) -> bool:
        """Whether its localizer asks for the model, beside activations."""
        entry = LOCALIZERS[self.ranking.localizer.name]
        return entry.uses_effects or entry.uses_weights


class Fit(NamedTuple):
    """Tensors of the modules of a kind to be found on a fold.

    `best` are a localizer and the largest K, where only the modules that are steered are fitted, as
    the language model is trained through for each.
    """

    fitter: PlugIn
    kind: ModuleKind
    fold: int
    seed: int
    best: tuple[str, int] | None = None

    @property
    def reading(self) -> Reading:
        """The tokens at which its fitter has activations read."""
        return FITTERS[self.fitter.name].reading

    @property
    def ranking(self) -> tuple[str, ModuleKind] | None:
        """The localizer whose result the fitter is given, and the kind that it ranks."""
        return FITTERS[self.fitter.name].ranking

    @property
    def beside(self) -> ModuleKind | None:
        """The part that the fitter sees too."""
        return FITTERS[self.fitter.name].beside.get(self.kind)

    @property
    def needs_model(self) -> bool:
        """Whether the fitter asks for the model, beside activations."""
        return FITTERS[self.fitter.name].access != "activations"


class Trial(NamedTuple):
    """A method to be tuned and tested on a fold with a seed; `fit`: the tensors that it needs."""

    method: Method
    fold: int
    seed: int
    fit: Fit | None


@dataclass(frozen=True)
class Work:
    """All units of work but those of extraction, of which there is one a shard and kind.

    Where a seed changes nothing there is a unit for the first seed alone.

    Attributes:
        methods: those of the experiment, in its order.
        readings: kinds of modules whose activations are read, and at which tokens.
        scorings: by ranking, fold and seed.
        trials: by method, fold and seed.
    """

    methods: tuple[Method, ...]
    readings: tuple[tuple[ModuleKind, Reading], ...]
    scorings: tuple[Scoring, ...]
    trials: tuple[Trial, ...]

    @property
    def fits(self) -> tuple[Fit, ...]:
        """The tensors that the trials need, each once."""
        return tuple(dict.fromkeys(one.fit for one in self.trials if one.fit))


def work_of(config: ExperimentConfig) -> Work:
    """Return what there is to do for a configuration that names its methods."""
    methods, folds = methods_of(config), range(config.data.n_folds)
    return Work(
        methods=tuple(methods),
        readings=tuple(dict.fromkeys(_readings(methods, config))),
        scorings=tuple(
            Scoring(ranking, fold, seed)
            for ranking in rankings_of(config)
            for fold in folds
            for seed in _seeds(LOCALIZERS[ranking.localizer.name].stochastic, config)
        ),
        trials=tuple(
            Trial(method, fold, seed, _fit(method, fold, seed, config))
            for method in methods
            for fold in folds
            for seed in _seeds(method.seeded, config)
        ),
    )


def _readings(
    methods: Sequence[Method], config: ExperimentConfig
) -> Iterator[tuple[ModuleKind, Reading]]:
    yield config.module_kind, "last"
    seen: list[tuple[ModuleKind, type[Localizer] | type[Fitter]]] = [
        (config.module_kind, LOCALIZERS[one.name]) for one in (config.localizer, *config.baselines)
    ]
    for method in methods:
        for localizer, kind in method.rankings:
            seen.append((kind, LOCALIZERS[localizer]))
        if method.fitter is not None:
            seen.append((method.kind, FITTERS[method.fitter.name]))
    for kind, entry in seen:
        yield kind, entry.reading
        if kind in entry.beside:
            yield entry.beside[kind], entry.reading


def _seeds(seeded: bool, config: ExperimentConfig) -> tuple[int, ...]:
    return config.seeds if seeded else config.seeds[:1]


def _fit(method: Method, fold: int, seed: int, config: ExperimentConfig) -> Fit | None:
    if method.fitter is None:
        return None
    best = None
    if method.localizer and method.trained_k:
        best = method.localizer, method.trained_k
    its_seed = seed if method.fitter_seeded or best else config.seeds[0]
    return Fit(method.fitter, method.kind, fold, its_seed, best)
