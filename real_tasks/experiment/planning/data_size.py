"""How much data to plan for: the behaviour's own where it is there, or numbers that are stated."""

from dataclasses import replace

from real_tasks.experiment.planning.workload import DataSize, data_size, tokens_of_english
from real_tasks.experiment.sources import dataset_of
from real_tasks.models.hub import token_counter
from real_tasks.questions.neutral import HUB_PREFIX
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig


def size_of_behaviour(config: ExperimentConfig) -> DataSize:
    """Return the size of the configured behaviour's data, which is read for it.

    Tokens are those of the checkpoint's tokenizer where the checkpoint is a folder, else a rule of
    thumb for English. Neutral texts of the Hub are not fetched: each counts as long as it may be.

    Raises:
        UserInputError: the data cannot be had; says how to plan without.
    """
    fetched = config.evaluation.neutral.startswith(HUB_PREFIX)
    if fetched:
        without = config.evaluation.model_copy(update={"neutral": ""})
        config = config.model_copy(update={"evaluation": without})
    try:
        data = dataset_of(config)
    except UserInputError as error:
        raise UserInputError(
            f"{error}. To plan without the data, say how much there is: --questions 800 "
            "--answers-per-question 7 --tokens 12"
        ) from error
    size = data_size(data, token_counter(config.model) or tokens_of_english)
    if not fetched:
        return size
    return replace(size, n_neutral=None, neutral_tokens=DataSize.neutral_tokens)


def stated_size(
    questions: int, answers_per_question: float, tokens: float, prompt_tokens: float | None = None
) -> DataSize:
    """Return a size of data that is not there.

    ``tokens`` go through the model for an answer, what answers share is read once;
    ``prompt_tokens`` has a prompt with an answer, as many without.

    Raises:
        UserInputError: a number is not positive.
    """
    prompt = tokens if prompt_tokens is None else prompt_tokens
    if min(questions, answers_per_question, tokens, prompt) <= 0:
        raise UserInputError(
            f"questions={questions}, answers={answers_per_question}, tokens={tokens} and prompt "
            f"tokens={prompt} have to be positive"
        )
    n_answers = round(questions * answers_per_question)
    return DataSize(questions, n_answers, tokens, max(prompt, tokens), prompt_share=tokens / prompt)
