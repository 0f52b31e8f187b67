"""How much data a behaviour has, and how much of it goes through the language model."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from os.path import commonprefix

from real_tasks.evaluation.answers.prefix import MIN_PREFIX
from real_tasks.evaluation.measures import MEASURES
from real_tasks.evaluation.side_effects import MAX_TOKENS
from real_tasks.experiment.methods.method import Method
from real_tasks.questions.samples import samples_of
from real_tasks.vocabulary.experiment_config import EvaluationConfig, ExperimentConfig
from real_tasks.vocabulary.types import BehaviourData

CHARACTERS_PER_TOKEN = 4
"""Rule of thumb for English: help.openai.com, "What are tokens and how to count them?"."""
STEPS_TO_MATCH_KL = 10
"""Side effects measured, about, to find the alpha of a given KL."""
RACED_QUESTIONS, RACED_TEXTS, RACED_STEPS = 0.5, 0.4, 3
"""Shares of a grid's work, about, that a race takes, and its steps to the alpha of a given KL."""


@dataclass(frozen=True)
class DataSize:
    """How much data a behaviour has.

    Attributes:
        n_questions: questions.
        n_answers: answers, in every way in which their question is put.
        mean_tokens: of a text whose activations are read.
        prompt_tokens: of an evaluation's prompt with an answer, on average.
        measures: registered names of what is measured.
        read_share: share of the tokens of all texts that go through the model for activations; the
            others stand at the beginning of several texts, and are read once for all of them.
        prompt_share: likewise of all prompts with an answer.
        prefix_tokens: with which all prompts begin.
        n_neutral: neutral texts that there are; None where the experiment takes them elsewhere.
        neutral_tokens: of a neutral text, on average.
    """

    n_questions: int
    n_answers: int
    mean_tokens: float
    prompt_tokens: float
    measures: tuple[str, ...] = BehaviourData.measures
    read_share: float = 1.0
    prompt_share: float = 1.0
    prefix_tokens: float = 0.0
    n_neutral: int | None = None
    neutral_tokens: float = MAX_TOKENS

    @property
    def read_tokens(self) -> float:
        """Tokens through the model to read all activations of one kind."""
        return self.n_answers * self.mean_tokens * self.read_share


def tokens_of_english(text: str) -> float:
    """Estimate the tokens of a text without a tokenizer."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def data_size(
    data: BehaviourData, count_tokens: Callable[[str], float] = tokens_of_english
) -> DataSize:
    """Return how much data there is; ``count_tokens`` may be a tokenizer's own count."""
    samples = samples_of(data)
    asked = [way for question in data.questions for way in question.presentations]
    read = [data.full_text(one.question, one.answer) for one in samples]
    prompts = [data.prompt_with_answer(one.question, one.answer) for one in samples]
    contexts = [data.prompt_context(way) for way in asked]
    prefix = commonprefix(contexts) if len(contexts) > 1 else ""
    prefix = prefix if count_tokens(prefix) >= MIN_PREFIX else ""
    n_read, n_prompt = (sum(map(count_tokens, texts)) for texts in (read, prompts))

    def after(beginning: str, text: str) -> float:
        return max(0.0, count_tokens(text) - (count_tokens(beginning) if beginning else 0.0))

    distinct = sum(count_tokens(data.context(way)) for way in asked) + sum(
        after(data.context(one.question), text) for one, text in zip(samples, read, strict=True)
    )
    unshared = sum(after(prefix, context) for context in contexts) + sum(
        after(data.prompt_context(one.question), text)
        for one, text in zip(samples, prompts, strict=True)
    )
    neutral = [min(count_tokens(text), MAX_TOKENS) for text in data.neutral_texts]
    return DataSize(
        n_questions=len(data.questions),
        n_answers=len(samples),
        mean_tokens=n_read / len(samples),
        prompt_tokens=n_prompt / len(samples),
        measures=data.measures,
        read_share=min(1.0, distinct / n_read),
        prompt_share=min(1.0, unshared / n_prompt),
        prefix_tokens=count_tokens(prefix) if prefix else 0.0,
        n_neutral=len(neutral) or None,
        neutral_tokens=sum(neutral) / len(neutral) if neutral else MAX_TOKENS,
    )


def evaluation_tokens(method: Method, config: ExperimentConfig, size: DataSize) -> float:
    """Return the tokens that tuning and testing a method once reads.

    Every K and alpha is measured on validation questions and neutral text; the best and the one of
    matched KL on test questions, each with the other half of the neutral texts. A race leaves out
    about half of the validation, as on the recorded grids of the embedded model. The unsteered
    model reads neutral text once. A pass that can start behind the first layer counts as a whole
    one.
    """
    n_texts = config.evaluation.neutral_texts
    n_texts = n_texts if size.n_neutral is None else min(n_texts, size.n_neutral)
    neutral = n_texts / 2 * size.neutral_tokens
    asked, steps = _measured(validation_share(config), config, size), STEPS_TO_MATCH_KL
    test = neutral + _measured(1 / config.data.n_folds, config, size)
    original, validation = neutral * 2, neutral + asked
    if method.fitter is None:
        return original + validation + test
    points = (len(set(method.top_k)) if method.localizer else 1) * len(set(method.strengths))
    if config.evaluation.search == "race" and points > 1:
        validation, steps = RACED_QUESTIONS * asked + RACED_TEXTS * neutral, RACED_STEPS
    return original + validation * points + neutral * steps + test * 2


def validation_share(config: ExperimentConfig) -> float:
    """Share of all questions that are validation questions of a fold."""
    return (1 - 1 / config.data.n_folds) * config.data.validation_share


def train_share(config: ExperimentConfig) -> float:
    """Share of all questions that are training questions of a fold."""
    return (1 - 1 / config.data.n_folds) * (1 - config.data.validation_share)


def generated_tokens(config: EvaluationConfig, size: DataSize, n_questions: float) -> float:
    """Return the tokens that a measure which generates keeps: after the prefix, with its own."""
    return n_questions * (size.prompt_tokens - size.prefix_tokens + config.max_new_tokens)


def _measured(share: float, config: ExperimentConfig, size: DataSize) -> float:
    """Return what all measures read of a share of the questions.

    A measure that generates reads a prompt and writes `max_new_tokens` for every question, and the
    unsteered model reads both; another reads every answer after its prompt.
    """
    writes = generated_tokens(config.evaluation, size, share * size.n_questions)
    reads = share * size.n_answers * size.prompt_tokens * size.prompt_share
    each = (2 * writes if MEASURES[name].generates else reads for name in size.measures)
    return sum(size.prefix_tokens + tokens for tokens in each)
