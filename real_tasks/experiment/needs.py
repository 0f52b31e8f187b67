"""What methods need of the data: pairs, classes, conditions, marks."""

from real_tasks.experiment.fitting import samples_told
from real_tasks.experiment.methods.known import EVERY, known_methods, methods_of, with_methods
from real_tasks.experiment.methods.method import Method
from real_tasks.localizers import LOCALIZERS
from real_tasks.questions.aspects import MENDS, aspects_of
from real_tasks.questions.folds import split
from real_tasks.questions.groups import question_groups
from real_tasks.questions.samples import Sample, samples_of
from real_tasks.steering.fitters import FITTERS
from real_tasks.vocabulary.errors import Faults, UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import Aspect, BehaviourData


def check_needs(data: BehaviourData, config: ExperimentConfig) -> None:
    """Check that the training questions of every fold have what the methods ask for.

    Raises:
        UserInputError: they lack something; each method and what is missing are named.
    """
    faults = Faults()
    for method in methods_of(with_methods(config)):
        with faults.told():
            _check_folds(method, data, config)
    faults.tell()


def with_allowed_methods(config: ExperimentConfig, data: BehaviourData) -> ExperimentConfig:
    """Return the configuration with its methods named; `EVERY` leaves out what data do not allow.

    Raises:
        UserInputError: as `with_methods`.
    """
    named = with_methods(config)
    if EVERY not in config.methods:
        return named
    said = {one if isinstance(one, str) else one.name for one in config.methods}
    kept = [
        entry
        for entry, method in zip(named.methods, methods_of(named), strict=True)
        if method.name in said or _allows(method, data, config)
    ]
    return named.model_copy(update={"methods": tuple(kept)})


def _allows(method: Method, data: BehaviourData, config: ExperimentConfig) -> bool:
    try:
        _check_folds(method, data, config)
    except UserInputError:
        return False
    return True


def _check_folds(method: Method, data: BehaviourData, config: ExperimentConfig) -> None:
    if not _asks(method):
        return
    _check(method, data)
    groups = question_groups(data.questions)
    for fold in range(config.data.n_folds):
        train = set(split(groups, fold, config.data).train)
        _check(method, data, f", training questions of fold {fold}", train)


def _asks(method: Method) -> frozenset[Aspect]:
    """Return what fitter and localizer of a method ask for."""
    fitter = FITTERS[method.fitter.name].asks if method.fitter else frozenset()
    return fitter | (LOCALIZERS[method.localizer].asks if method.localizer else frozenset())


def _check(
    method: Method, data: BehaviourData, part: str = "", only: set[int] | None = None
) -> None:
    """Check what a method asks for against all samples, or those of some questions."""
    samples = [s for s in samples_of(data) if only is None or s.question_index in only]
    _check_aspects(method, data, samples, part)
    _check_parameters(method, data, samples, part)


def _check_aspects(
    method: Method, data: BehaviourData, samples: list[Sample], part: str = ""
) -> None:
    found = aspects_of(samples, data.paired)
    for aspect in sorted(_asks(method) - found):
        examples, mend = MENDS[aspect]
        raise UserInputError(
            f"{method.name} needs {aspect}; {examples}{_source(data)}{part} has none: {mend}"
        )


def _check_parameters(
    method: Method, data: BehaviourData, samples: list[Sample], part: str = ""
) -> None:
    if method.fitter is None:
        return
    try:
        FITTERS.made(method.fitter.name, method.fitter.params).check(samples_told(data, samples))
    except UserInputError as error:
        raise UserInputError(f"{method.name} on {_source(data)}{part}: {error}") from error


def _source(data: BehaviourData) -> str:
    return data.source.get("file", data.name)


def allowed_methods(data: BehaviourData) -> list[str]:
    """Return in lines which methods of the library the data allow, and why not the others.

    Some are allowed with parameters alone, which name a class or a condition of these data.
    """
    able, others, samples = list[str](), list[str](), samples_of(data)
    for name, method in known_methods(ExperimentConfig()).items():
        refused = "not allowed"
        try:
            _check_aspects(method, data, samples)
            refused = "allowed with parameters"
            _check_parameters(method, data, samples)
            able.append(name)
        except UserInputError as error:
            others.append(f"{refused}: {error}")
    return ["methods that these data allow: " + ", ".join(able), *sorted(others)]
