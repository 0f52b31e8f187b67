"""What methods need of the data: pairs, classes, conditions, marks."""

from real_tasks.experiment.fitting import samples_told
from real_tasks.experiment.methods.known import known_methods, methods_of, with_methods
from real_tasks.experiment.methods.method import Method
from real_tasks.localizers import LOCALIZERS
from real_tasks.questions.aspects import MENDS, aspects_of
from real_tasks.questions.folds import split
from real_tasks.questions.groups import question_groups
from real_tasks.questions.samples import samples_of
from real_tasks.steering.fitters import FITTERS
from real_tasks.vocabulary.errors import Faults, UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import Aspect, BehaviourData


def check_needs(data: BehaviourData, config: ExperimentConfig) -> None:
    """Check that the training questions of every fold have what the methods ask for.

    Raises:
        UserInputError: they lack something; each method and what is missing are named.
    """
    faults, groups = Faults(), question_groups(data.questions)
    for method in methods_of(with_methods(config)):
        if not _asks(method):
            continue
        with faults.told():
            _check(method, data)
            for fold in range(config.data.n_folds):
                train = set(split(groups, fold, config.data).train)
                _check(method, data, f", training questions of fold {fold}", train)
    faults.tell()


def _asks(method: Method) -> frozenset[Aspect]:
    """Return what fitter and localizer of a method ask for."""
    fitter = FITTERS[method.fitter.name].asks if method.fitter else frozenset()
    return fitter | (LOCALIZERS[method.localizer].asks if method.localizer else frozenset())


def _check(
    method: Method, data: BehaviourData, part: str = "", only: set[int] | None = None
) -> None:
    """Check what a method asks for against all samples, or those of some questions."""
    name, fitter = method.name, method.fitter
    samples = [s for s in samples_of(data) if only is None or s.question_index in only]
    found, source = aspects_of(samples, data.paired), data.source.get("file", data.name)
    for aspect in sorted(_asks(method) - found):
        examples, mend = MENDS[aspect]
        raise UserInputError(f"{name} needs {aspect}; {examples}{source}{part} has none: {mend}")
    if fitter is None:
        return
    try:
        FITTERS.made(fitter.name, fitter.params).check(samples_told(data, samples))
    except UserInputError as error:
        raise UserInputError(f"{name} on {source}{part}: {error}") from error


def allowed_methods(data: BehaviourData) -> list[str]:
    """Return in lines which methods of the library the data allow, and why not the others."""
    able, others = [], []
    for name, method in known_methods(ExperimentConfig()).items():
        try:
            _check(method, data)
            able.append(name)
        except UserInputError as error:
            others.append(f"not allowed: {error}")
    return ["methods that these data allow: " + ", ".join(able), *others]
