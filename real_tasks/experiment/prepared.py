"""An experiment looked at once: its configuration complete and checked, and what follows from it.

Whoever runs it, or scores it again, takes data, shape and work from here.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from typing import Protocol, TypeVar

from real_tasks.evaluation.measuring import complete_evaluation
from real_tasks.experiment.checks import check_experiment
from real_tasks.experiment.needs import with_allowed_methods
from real_tasks.experiment.plug_ins import resolved_with
from real_tasks.experiment.work import Work, work_of
from real_tasks.models.adapters import tokenizer_of
from real_tasks.models.chat import chat_format, writes_date
from real_tasks.models.checkpoints import has_tokenizer, read_tokenizer
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.hub import local_checkpoint, token_counter
from real_tasks.vocabulary.config import ModelConfig
from real_tasks.vocabulary.errors import Faults, SeveralFaultsError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import BehaviourData, ModelShape


@dataclass(frozen=True)
class Prepared:
    """An experiment that can start.

    Attributes:
        config: complete: no field of it is empty and means the default of something else.
        data: its questions and neutral texts.
        shape: of its model.
        work: the units of work.
    """

    config: ExperimentConfig
    data: BehaviourData
    shape: ModelShape
    work: Work


def prepare(config: ExperimentConfig, doubtful: Collection[str] = ()) -> Prepared:
    """Complete and check a configuration; reads its data, once, and loads no weights.

    ``doubtful`` are dotted paths of fields that are known to be wrong; see `errors.Faults`.

    Raises:
        UserInputError: all that is wrong, and how to mend it.
    """
    faults = Faults(doubtful)
    config = resolved_with(config, faults)
    data, shape = check_experiment(config, faults)
    faults.tell()
    if data is None or shape is None:
        raise SeveralFaultsError(())  # What is doubtful keeps them from being looked at.
    config = completed(config.model_copy(update={"model": _dated(config.model)}), data)
    return Prepared(config, data, shape, work_of(config))


def completed(config: ExperimentConfig, data: BehaviourData) -> ExperimentConfig:
    """Return the configuration with all named that it leaves to its localizers and its data.

    What a form or a file hands over may be empty there; what is run and stored never is.

    Raises:
        UserInputError: an unknown method, measure or metric.
    """
    evaluation = complete_evaluation(config.evaluation, data)
    if evaluation.search is None:
        search = "grid" if config.model.path in EMBEDDED_MODELS else "race"
        evaluation = evaluation.model_copy(update={"search": search})
    return with_allowed_methods(config.model_copy(update={"evaluation": evaluation}), data)


def neutral_in_words(prepared: Prepared) -> str:
    """Return what was understood of the user's neutral text: how many texts, tokens or words."""
    config, texts = prepared.config, prepared.data.neutral_texts
    count = token_counter(config.model)
    if count is None:
        return prepared.data.source["neutral"]
    n_tokens = round(sum(map(count, texts)))
    return f"{config.evaluation.neutral}: {len(texts)} texts, {n_tokens} tokens"


def _dated(model: ModelConfig) -> ModelConfig:
    """Name the day for a template that writes it, as prompts, and what is cached, follow it."""
    if not model.chat_template or model.template_date is not None:
        return model
    folder = tokenizer_of(local_checkpoint(model.path, model.revision, config_only=True))
    # A tokenizer that is fetched later may have such a template.
    if has_tokenizer(folder):
        tokenizer = read_tokenizer(folder, model.trust_remote_code)
        if not writes_date(tokenizer, chat_format(model)):
            return model
    return model.model_copy(update={"template_date": date.today()})


C_co = TypeVar("C_co", covariant=True)
T = TypeVar("T")


class WithConfig(Protocol[C_co]):
    """What can be handed over with the call of a flow: it has the flow's configuration."""

    @property
    def config(self) -> C_co:
        """The configuration, complete."""
        ...


# Not in the flow's module: a flow that goes to another machine takes that module's values along.
_handed_over: ContextVar[object] = ContextVar("handed_over", default=None)


@contextmanager
def handing_over(prepared: WithConfig[C_co]) -> Iterator[C_co]:
    """Have the flow take what its caller prepared, to find mistakes early, and not do so again.

    A flow's parameters have to be JSON. Yields the configuration to call the flow with.
    """
    token = _handed_over.set(prepared)
    try:
        yield prepared.config
    finally:
        _handed_over.reset(token)


def handed_over(kind: type[T]) -> T | None:
    """Return what was handed over with the call of a flow, if it is of this kind."""
    found = _handed_over.get()
    return found if isinstance(found, kind) else None


def prepared_for(config: ExperimentConfig) -> Prepared:
    """Return what was handed over with the call of a flow, or else prepare its configuration."""
    return handed_over(Prepared) or prepare(config)
