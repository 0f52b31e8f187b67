"""The experiment that a re-scoring runs: of the baseline's, what is measured again."""

from real_tasks.experiment.methods import known_methods
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig


def rescored_experiment(config: ExperimentConfig, method: str) -> ExperimentConfig:
    """Return the experiment with nothing but its localizer, and the method and what it needs.

    Raises:
        UserInputError: the method is unknown, or steers nothing.
    """
    known = known_methods(config)
    if method not in known or known[method].direction is None:
        steering = sorted(name for name in known if known[name].direction is not None)
        raise UserInputError(
            f"the way of steering {method!r} is not in the baseline, or steers nothing; expected "
            f"one of {', '.join(steering)}"
        )
    its = known[method]
    kinds = {its.localizer: its.kind} if its.localizer else {}
    needed = tuple(one for one in config.baselines if kinds.get(one.name) == config.module_kind)
    return config.model_copy(update={"methods": ("unsteered", method), "baselines": needed})
