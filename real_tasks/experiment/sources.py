"""What a configuration names: its questions and texts."""

from dataclasses import replace

from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.folds import evenly_spaced
from real_tasks.questions.neutral import load_neutral
from real_tasks.questions.samples import with_shuffled_labels
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import BehaviourData


def load_behaviour(behaviour: PlugIn) -> BehaviourData:
    """Return the data of a behaviour named in a configuration."""
    return BEHAVIOURS.made(behaviour.name, behaviour.params).load()


def dataset_of(config: ExperimentConfig) -> BehaviourData:
    """Return the behaviour's data with the neutral texts and labels that the experiment asks for.

    Raises:
        UserInputError: the data or the neutral texts cannot be had, or are wrong.
    """
    data = load_behaviour(config.behaviour)
    limit, source = config.evaluation.neutral_texts, config.evaluation.neutral
    neutral = load_neutral(source, limit) if source else data.neutral_texts[:limit]
    data = replace(
        data, neutral_texts=neutral, questions=evenly_spaced(data.questions, config.data.limit)
    )
    if source:
        n_words = sum(len(text.split()) for text in neutral)
        said = f"{source}: {len(neutral)} texts, {n_words} words"
        data = replace(data, source={**data.source, "neutral": said})
    if config.data.shuffle_labels:
        return with_shuffled_labels(data, config.data.split_seed)
    return data
