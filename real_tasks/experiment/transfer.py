"""Zero-shot transfer: what was found on one behaviour, the source, steers another, the target.

The source's modules, directions, K and alpha of a fold are taken as they are, and measured on the
test questions of the target's fold of the same number; a behaviour on itself is the ordinary test.
Nothing is chosen on the target. A question that two behaviours share may be a test question of one
and a training or validation question of the other: such questions are left out and counted.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from pathlib import PurePath
from typing import Any, NamedTuple

from real_tasks.evaluation.measuring import complete_evaluation, metrics_of
from real_tasks.evaluation.transfer import leak_free_questions
from real_tasks.experiment.methods.known import known_methods
from real_tasks.experiment.plug_ins import resolved
from real_tasks.experiment.prepared import Prepared, handed_over, prepare
from real_tasks.questions.folds import split
from real_tasks.questions.groups import question_groups
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import Faults, SeveralFaultsError, UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig, TransferConfig
from real_tasks.vocabulary.types import BehaviourData


class PreparedTransfer(NamedTuple):
    """A transfer that can start: its configuration, and the experiments on its behaviours.

    The experiment that they share keeps what depends on the behaviour as it was given: measures
    and objective.
    """

    config: TransferConfig
    sources: tuple[Prepared, ...]


def resolved_transfer(config: TransferConfig) -> TransferConfig:
    """Return the configuration with the parameters of its plug-ins checked and made complete.

    Raises:
        UserInputError: see `plug_ins.resolved`; also a method that steers nothing, and a behaviour
            that is there twice.
    """
    config = config.model_copy(
        update={
            "experiment": resolved(config.experiment),
            "method": config.method or config.experiment.localizer.name,
        }
    )
    sources = [
        resolved(source_experiment(config, place)) for place in range(len(config.behaviours))
    ]
    behaviours = tuple(source.behaviour for source in sources)
    complete = config.model_copy(update={"behaviours": behaviours})
    behaviour_labels(complete.behaviours)
    return complete


def prepare_transfer(config: TransferConfig, doubtful: Collection[str] = ()) -> PreparedTransfer:
    """Complete and check a transfer; ``doubtful`` is as in `prepare`.

    Raises:
        UserInputError: all that is wrong, and how to mend it.
    """
    faults, sources = Faults(doubtful), []
    method = config.method or config.experiment.localizer.name
    config = config.model_copy(update={"method": method})
    inner = {path.removeprefix("experiment.") for path in doubtful}
    for place in range(len(config.behaviours)):
        with faults.told("behaviours"):
            sources.append(prepare(source_experiment(config, place), inner))
    if len(sources) == len(config.behaviours):
        with faults.told("behaviours"):
            config = resolved_transfer(config)
            check_transfer(config, [source.data for source in sources])
    faults.tell()
    if not sources:
        raise SeveralFaultsError(())  # What is doubtful keeps them from being looked at.
    experiment = config.experiment.model_copy(update={"model": sources[0].config.model})
    config = config.model_copy(update={"experiment": experiment})
    return PreparedTransfer(config, tuple(sources))


def prepared_transfer_for(config: TransferConfig) -> PreparedTransfer:
    """Return what was handed over with the call of a flow, or else prepare its configuration."""
    return handed_over(PreparedTransfer) or prepare_transfer(config)


def source_experiment(config: TransferConfig, place: int) -> ExperimentConfig:
    """Return the experiment on the behaviour at ``place``: with the method and what it needs.

    Raises:
        UserInputError: an unknown method, or one that steers nothing.
    """
    experiment, name = config.experiment, config.method
    known = known_methods(experiment)
    steering = [method for method in known if known[method].fitter is not None]
    if name not in steering:
        raise UserInputError(
            f"method {name!r} cannot be carried over; with these localizers there are: "
            + ", ".join(sorted(steering))
        )
    needed = tuple(one for one in experiment.baselines if one.name == known[name].localizer)
    changes = {
        "behaviour": config.behaviours[place],
        "methods": ("unsteered", name),
        "baselines": needed,
    }
    return experiment.model_copy(update=changes)


def behaviour_labels(behaviours: Sequence[PlugIn]) -> tuple[str, ...]:
    """Return a name for each behaviour: one of its own, or its plug-in's and what sets it apart.

    A parameter ``name`` is a name of its own. Otherwise two behaviours of one plug-in differ in
    another parameter, of a path in a part of it: ``caa:sycophancy``, ``caa:refusal``.

    Raises:
        UserInputError: two behaviours are the same, or have the same name.
    """
    labels = [_label(behaviour, behaviours) for behaviour in behaviours]
    for label, behaviour in zip(labels, behaviours, strict=True):
        if labels.count(label) > 1:
            raise UserInputError(
                f"the behaviour {label!r} ({behaviour.name} with the parameters "
                f"{behaviour.params}) is there twice; each must be there once, under its own name"
            )
    return tuple(labels)


def check_transfer(config: TransferConfig, data: Sequence[BehaviourData]) -> None:
    """Check a resolved configuration against its behaviours' data, in their order.

    Raises:
        UserInputError: a metric that no target has, or a target without a question left to test.
    """
    labels = behaviour_labels(config.behaviours)
    evaluation = config.experiment.evaluation
    asked = ((complete_evaluation(evaluation, target).measures, target) for target in data)
    known = {metric for one in asked for metric in metrics_of(*one)}
    for name in config.metrics:
        if name not in known:
            raise UserInputError(
                f"metrics names {name!r}, which nothing measures here; measured are "
                f"{', '.join(sorted(known))}"
            )
    settings = config.experiment.data
    for (source, mine), (target, theirs) in product(zip(labels, data, strict=True), repeat=2):
        for fold in range(settings.n_folds):
            splits = (
                split(question_groups(one.questions), fold, settings) for one in (mine, theirs)
            )
            if not leak_free_questions(mine, next(splits), theirs, next(splits)).kept:
                raise UserInputError(
                    f"all test questions of {target!r} on fold {fold} are among those that "
                    f"{source!r} is found on, so that nothing is left to test; leave out one of "
                    "the two behaviours, or give their questions in the same order"
                )


def _label(behaviour: PlugIn, among: Sequence[PlugIn]) -> str:
    own_name: str = behaviour.params.get("name", "")
    if own_name:
        return own_name
    alike = [other.params for other in among if other.name == behaviour.name]
    differing = [key for key in behaviour.params if len({str(p.get(key)) for p in alike}) > 1]
    told = [_telling_part(str(behaviour.params[key]), key, alike) for key in differing]
    return ":".join([behaviour.name, *told])


def _telling_part(value: str, key: str, alike: Sequence[Mapping[str, Any]]) -> str:
    """Return what of a parameter's value differs among all: of paths, the parts that do."""
    paths = [PurePath(str(params.get(key))).parts for params in alike]
    if len({len(parts) for parts in paths}) > 1:
        return value
    differing = [len(set(column)) > 1 for column in zip(*paths, strict=True)]
    own = PurePath(value).parts
    return "/".join(part for part, tells in zip(own, differing, strict=True) if tells)
