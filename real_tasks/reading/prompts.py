"""The texts that a model is given for a behaviour: to read activations, and to be evaluated.

A text is a context and an answer after it. Without a chat template both are the behaviour's own
template; with one, the question is what the user says and the answer what the assistant begins to
say.
"""

from real_tasks.models.chat import Message, answered, conversation
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
    if loaded.chat is not None:
        messages = _messages(loaded, data, question, preamble="")
        return answered(loaded.tokenizer, loaded.chat, messages, answer.text)
    return data.full_text(question, answer)


def reading_prompt(loaded: ReadsTexts, data: BehaviourData, question: Question) -> str:
    """Return `reading_text` up to, and without, the blank before the answer.

    Raises:
        UserInputError: see `reading_text`.
    """
    if loaded.chat is not None:
        messages = _messages(loaded, data, question, preamble="")
        return conversation(loaded.tokenizer, loaded.chat, messages)
    return data.context(question)


def prompt_text(loaded: ReadsTexts, data: BehaviourData, question: Question) -> str:
    """Return the evaluation's prompt, up to and without the blank before the answer.

    Raises:
        UserInputError: see `reading_text`.
    """
    if loaded.chat is not None:
        messages = _messages(loaded, data, question, data.preamble)
        return conversation(loaded.tokenizer, loaded.chat, messages)
    return data.prompt_context(question)


def answered_text(
    loaded: ReadsTexts, data: BehaviourData, question: Question, answer: Answer
) -> str:
    """Return the evaluation's prompt with an answer; it starts with `prompt_text`.

    Raises:
        UserInputError: see `reading_text`.
    """
    if loaded.chat is not None:
        messages = _messages(loaded, data, question, data.preamble)
        return answered(loaded.tokenizer, loaded.chat, messages, answer.text)
    return data.prompt_with_answer(question, answer)


def _messages(
    loaded: ReadsTexts, data: BehaviourData, question: Question, preamble: str
) -> list[Message]:
    assert loaded.chat is not None
    return loaded.chat.messages(preamble + filled(data.chat_prompt, question))
