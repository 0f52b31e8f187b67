"""The texts that a model is given for a behaviour: to read activations, and to be evaluated.

A text is a context and an answer after it. Without a chat template both are the behaviour's own
template; with one, the question is what the user says and the answer what the assistant begins to
say.
"""

from real_tasks.models.chat import answered, conversation
from real_tasks.models.text_model import ReadsTexts
from real_tasks.vocabulary.types import Answer, BehaviourData, Question, filled


def reading_text(
    loaded: ReadsTexts, data: BehaviourData, question: Question, answer: Answer
) -> str:
    """Return the text at whose tokens activations are read; it ends with the answer.

    Raises:
        UserInputError: the chat template cannot be used, leaves the system prompt out, or opens a
            thinking block.
    """
    said = _in_chat(loaded, data, question, "", answer)
    return data.full_text(question, answer) if said is None else said


def reading_prompt(loaded: ReadsTexts, data: BehaviourData, question: Question) -> str:
    """Return `reading_text` up to, and without, the blank before the answer.

    Raises:
        UserInputError: see `reading_text`.
    """
    said = _in_chat(loaded, data, question, "")
    return data.context(question) if said is None else said


def prompt_text(loaded: ReadsTexts, data: BehaviourData, question: Question) -> str:
    """Return the evaluation's prompt, up to and without the blank before the answer.

    Raises:
        UserInputError: see `reading_text`.
    """
    said = _in_chat(loaded, data, question, data.preamble)
    return data.prompt_context(question) if said is None else said


def answered_text(
    loaded: ReadsTexts, data: BehaviourData, question: Question, answer: Answer
) -> str:
    """Return the evaluation's prompt with an answer; it starts with `prompt_text`.

    Raises:
        UserInputError: see `reading_text`.
    """
    said = _in_chat(loaded, data, question, data.preamble, answer)
    return data.prompt_with_answer(question, answer) if said is None else said


def _in_chat(
    loaded: ReadsTexts,
    data: BehaviourData,
    question: Question,
    preamble: str,
    answer: Answer | None = None,
) -> str | None:
    """Return a question in the chat template, with its answer; None where prompts are plain."""
    if loaded.chat is None:
        return None
    messages = loaded.chat.messages(preamble + filled(data.chat_prompt, question))
    if answer is None:
        return conversation(loaded.tokenizer, loaded.chat, messages)
    return answered(loaded.tokenizer, loaded.chat, messages, answer.text)
