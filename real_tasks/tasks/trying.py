"""Steering tried at once on a model by name: no Prefect, no tables, the artifact store's cache."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from real_tasks.experiment.direct.given import behaviour_of
from real_tasks.experiment.direct.steer import steer
from real_tasks.experiment.direct.steered import Steered
from real_tasks.experiment.methods.known import with_methods
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.steering.spec_files import check_room
from real_tasks.tasks.cache import progress
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.model_here import model_here
from real_tasks.vocabulary.config import ExecutionConfig, ModelConfig
from real_tasks.vocabulary.experiment_config import ExperimentConfig

OWN_QUESTIONS = "everyday_myths"
"""What a model is asked where the user has no questions."""
OF_EMBEDDED = "demo_truth"
"""And an embedded one, which knows no other world than its own."""


def tried(
    path: str,
    questions: str | None,
    *,
    method: str,
    minutes: float,
    max_kl: float,
    chat: bool | None,
    seed: int,
    to: Path,
    say: Callable[[str], None],
) -> Steered:
    """Learn and test a steering of a model; see `real_tasks.experiment.direct.steer.steer`.

    The path is as `ModelConfig.path`, the questions a file or the name of a behaviour, or the
    project's own. Minutes count once the model is loaded. ``to`` is the folder that the steering
    will be saved in; ``say`` hears what is to be known meanwhile.
    """
    # What is wrong is told before a model is loaded.
    check_room(to)
    with_methods(ExperimentConfig(baselines=(), methods=(method,)))
    named = questions or (OF_EMBEDDED if path in EMBEDDED_MODELS else OWN_QUESTIONS)
    data = behaviour_of(named)
    execution = ExecutionConfig()
    use_threads(execution, alone=True)
    loaded = model_here(ModelConfig(path=path), execution)
    with _first_interrupt_asks(say) as enough:
        steered = steer(
            loaded.model,
            loaded.tokenizer,
            data,
            method=method,
            minutes=minutes,
            max_kl=max_kl,
            chat=chat,
            seed=seed,
            told=progress.report,
            planned=say,
            enough=enough,
        )
    steered.spec = replace(steered.spec, model=path)
    return steered


@contextmanager
def _first_interrupt_asks(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Have the first Ctrl-C be asked for, while the context lasts; the second one ends all."""
    asked: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:  # noqa: ARG001
        asked.append(number)
        say("stopping with the best so far; Ctrl-C again to leave without it")
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
