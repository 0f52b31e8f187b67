"""The methods that can be named in an experiment, and those that one evaluates."""

from collections.abc import Callable, Iterable

import yaml

from real_tasks.experiment.methods.method import Method, resolved_method
from real_tasks.experiment.parameters import complete
from real_tasks.localizers import EQUAL_WEIGHTS, LOCALIZERS
from real_tasks.steering.fitters import FITTERS
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.config import Frozen, PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.method_config import EXPERIMENT, MethodConfig
from real_tasks.vocabulary.methods.library import library
from real_tasks.vocabulary.types import ModuleKind

EVERY = "*"
"""Stands, among the names of methods, for all that there are and the data allow."""


class Ranking(Frozen):
    """Modules of one kind, to be scored by one localizer."""

    localizer: PlugIn
    kind: ModuleKind


def said_methods(config: ExperimentConfig) -> dict[str, MethodConfig]:
    """Return the methods that can be named in an experiment, as they are said, in order.

    First the unsteered model, then those of the experiment's localizers, the other ones of the
    library, and the experiment's own.

    Raises:
        UserInputError: a method of the experiment starts from one that is unknown, or has the name
            of another.
    """
    known = {"unsteered": library()["unsteered"]}
    for localizer in _own(config):
        plain = MethodConfig(name=localizer, localizer=localizer, default=True)
        known[localizer] = library().get(localizer, plain)
        if LOCALIZERS[localizer].weighting == "score":
            equal = localizer + EQUAL_WEIGHTS
            what = f"As {localizer}, but pushes its modules all alike: a control of the weights."
            changes = {"name": equal, "label": "", "weighting": "equal", "what": what}
            known[equal] = known[localizer].model_copy(update=changes)
    known |= {name: said for name, said in library().items() if name not in known}
    for own in config.methods:
        if isinstance(own, MethodConfig):
            if own.name in known:
                raise UserInputError(
                    f"there is a method {own.name!r} already; give yours another name, and "
                    f"like: {own.name} where it is to start from that"
                )
            known[own.name] = _derived(own, known)
    return known


def known_methods(config: ExperimentConfig) -> dict[str, Method]:
    """Return all methods that can be named in an experiment, by name, in order."""
    said = said_methods(config)
    return {name: resolved_method(one, config) for name, one in said.items()}


def method_names(config: ExperimentConfig) -> tuple[str, ...]:
    """Return the names of a configuration's methods, in its order."""
    return tuple(one if isinstance(one, str) else one.name for one in config.methods)


def with_methods(config: ExperimentConfig) -> ExperimentConfig:
    """Return the configuration with its methods named: where it names none, the default ones.

    `EVERY` stands for all that are known. The default ones are those whose file says so and whose
    localizer is in the experiment: ``caa``, which steers with every layer alone to choose one, is
    among them where effects are measured anyway.

    Raises:
        UserInputError: an unknown name; the known ones are listed.
    """
    known = said_methods(config)
    if not config.methods:
        ranked = (None, EXPERIMENT, *_own(config))
        names = tuple(n for n, one in known.items() if one.default and one.localizer in ranked)
        return config.model_copy(update={"methods": names})
    if EVERY in config.methods:
        config = config.model_copy(update={"methods": _every(config.methods, known)})
    for name in method_names(config):
        if name not in known:
            raise UserInputError(
                f"unknown method {name!r} in methods; with these localizers there are: "
                + ", ".join(sorted(known))
                + ". `real methods` says what each does; methods=[] stands for the default ones"
            )
    return config


def _every(
    said: tuple[str | MethodConfig, ...], known: Iterable[str]
) -> tuple[str | MethodConfig, ...]:
    named = {one if isinstance(one, str) else one.name: one for one in said if one != EVERY}
    return tuple(({name: name for name in known} | named).values())


def methods_of(config: ExperimentConfig) -> list[Method]:
    """Return the methods of a configuration that names them (`with_methods`), in its order."""
    assert config.methods, "a configuration without methods is not complete"
    said = said_methods(config)
    return [resolved_method(said[name], config) for name in method_names(config)]


def rankings_of(config: ExperimentConfig) -> list[Ranking]:
    """Return what has to be ranked: by every localizer, and what a method needs besides."""
    own = _own(config)
    rankings = [Ranking(localizer=one, kind=config.module_kind) for one in own.values()]
    ranked = {(ranking.localizer.name, ranking.kind) for ranking in rankings}
    for method in methods_of(config):
        for name, kind in method.rankings:
            if (name, kind) not in ranked:
                ranked.add((name, kind))
                localizer = own.get(name) or complete(LOCALIZERS, PlugIn(name=name), "methods")
                rankings.append(Ranking(localizer=localizer, kind=kind))
    return rankings


def _own(config: ExperimentConfig) -> dict[str, PlugIn]:
    return {one.name: one for one in (config.localizer, *config.baselines)}


def _derived(own: MethodConfig, known: dict[str, MethodConfig]) -> MethodConfig:
    """Return a method with what it does not say itself taken from the one it is like."""
    if not own.like:
        return own
    if own.like not in known:
        raise UserInputError(
            f"the method {own.name!r} is like {own.like!r}, which is unknown; there are: "
            + ", ".join(sorted(known))
        )
    base = known[own.like].model_copy(update={"label": "", "default": False})
    said = {name: getattr(own, name) for name in own.model_fields_set}
    return base.model_copy(update=said)


def summaries(
    config: ExperimentConfig, exported_as: Callable[[Method], str]
) -> dict[str, list[str]]:
    """Return what there is to say of each method, in lines for people.

    Args:
        config: the experiment that decides what methods leave to it.
        exported_as: says as what a method's steering can be taken away.
    """
    known = known_methods(config)
    return {
        name: _summary(said, known[name], exported_as)
        for name, said in said_methods(config).items()
    }


def _summary(said: MethodConfig, method: Method, exported_as: Callable[[Method], str]) -> list[str]:
    lines = [said.what] if said.what else []
    if method.fitter is not None:
        ranked = f"the best {method.kind}s by {method.localizer}" if method.localizer else "all"
        when = f", where the gate {method.gate.name} opens" if method.gate else ""
        formula, fitter = OPERATORS[method.operator.name].formula, FITTERS[method.fitter.name]
        asks = fitter.asks | (LOCALIZERS[method.localizer].asks if method.localizer else set())
        needed = ", ".join([fitter.access, *sorted(asks)])
        lines.append(f"{ranked}; {method.fitter.name}; {formula}{when}")
        lines.append(f"needs {needed}; exported as {exported_as(method)}")
    return lines + [text for text in (said.paper, said.notes) if text]


def as_yaml(said: MethodConfig) -> str:
    """Return a method as a document that can be changed: a list of the one, as under `methods`."""
    shown = said.model_dump(mode="json", exclude={"like", "default"})
    shown["name"] = f"my_{said.name}"
    lines = ["methods:"]
    for place, (name, value) in enumerate(shown.items()):
        text = yaml.safe_dump({name: value}, width=10**6, allow_unicode=True, sort_keys=False)
        said_of_it = MethodConfig.model_fields[name].description
        lines.append(f"  {'-' if place == 0 else ' '} # {said_of_it}")
        lines += [f"    {line}" for line in text.splitlines()]
    return "\n".join(lines) + "\n"
