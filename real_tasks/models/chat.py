"""Conversations as a tokenizer's chat template writes them, up to where the assistant speaks."""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal, cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from real_tasks.models.thinking import left_open, openings
from real_tasks.vocabulary.config import ModelConfig
from real_tasks.vocabulary.errors import UserInputError

Message = Mapping[str, str]
"""``role`` and ``content``."""

_MARK = "ANSWER"
"""Stands for what somebody says, to see what the template writes around it."""
_SWITCHES = ("enable_thinking", "thinking", "thinking_mode", "reasoning", "reasoning_effort")
"""Arguments by which templates are told not to open a block."""
_TODAY = re.compile(r"\bstrftime_now\(\s*(['\"])(.*?)\1\s*\)")
"""How templates ask for today's date."""


class ChatText(str):
    """A text with all the special tokens that it needs; the tokenizer is to add none."""

    __slots__ = ()


@dataclass(frozen=True)
class ChatFormat:
    """That prompts go through the tokenizer's chat template, and how.

    Attributes:
        system_prompt: what the system says, if any.
        arguments: what else the template is given, by the names that it knows.
        thinking: what is done where the template opens a thinking block for the assistant.
        day: what the template is told that today is; None: the clock's.
    """

    system_prompt: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    thinking: Literal["refuse", "closed"] = "refuse"
    day: date | None = None

    def described(self) -> str:
        """Return in words how prompts are written."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        system = f", system prompt {self.system_prompt!r}" if self.system_prompt else ""
        thinking = {
            "refuse": "thinking is not opened for the assistant",
            "closed": "thinking that it opens is closed before the answer",
        }
        day = f", dated {self.day}" if self.day else ""
        return (
            f"the tokenizer's chat template{system}{f', given {given}' if given else ''}{day}; "
            + thinking[self.thinking]
        )

    def messages(self, asked: str) -> list[Message]:
        """Return the conversation in which a user asks something."""
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return [*system, {"role": "user", "content": asked}]


def chat_format(options: ModelConfig) -> ChatFormat:
    """Return how a chat template is used."""
    return ChatFormat(
        *(options.system_prompt, options.template_arguments, options.thinking),
        day=options.template_date,
    )


def check_chat(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat) -> None:
    """Check that the template can be used for questions, and asks for the arguments.

    Raises:
        UserInputError: see `conversation`; or an argument that the template has no place for.
    """
    taken = {"messages", *inspect.signature(tokenizer.apply_chat_template).parameters}
    for name in chat.arguments:
        if name in taken or not _asks_for(tokenizer, name):
            raise UserInputError(
                f"model.template_arguments has {name!r}, which the tokenizer's chat template does "
                f"not ask for{_known_switches(tokenizer)}; correct it or remove it"
            )
    conversation(tokenizer, chat, chat.messages("Is water wet?"))


def conversation(
    tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, messages: Sequence[Message]
) -> ChatText:
    """Return a conversation up to where the assistant speaks.

    Raises:
        UserInputError: the template cannot be used, leaves out what somebody says, or opens a
            thinking block that is not to be closed.
    """
    text = _written(tokenizer, chat, messages, add_generation_prompt=True)
    if not openings(text):
        return ChatText(text)
    opening, closing = left_open(_after_question(tokenizer, chat, messages, text))
    if opening and chat.thinking == "refuse":
        raise UserInputError(
            f"the tokenizer's chat template opens a thinking block ({opening!r}) for the "
            "assistant, so that answers would be read as the first words of its thinking; switch "
            "thinking off by an argument of the template's own (model.template_arguments, as "
            f"{{enable_thinking: false}}{_known_switches(tokenizer)}), or have the block closed "
            "(model.thinking: closed)"
        )
    return ChatText(text + closing)


def _after_question(
    tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, messages: Sequence[Message], text: str
) -> str:
    """Return what follows the question, as who asks may write a tag as well."""
    asked = messages[-1]["content"].strip()
    if text.count(asked) != 1:  # a short one, which stands in the template too
        marked = [*messages[:-1], {**messages[-1], "content": _MARK}]
        asked, text = _MARK, _written(tokenizer, chat, marked, add_generation_prompt=True)
    return text[text.rfind(asked) + len(asked) :]


def writes_date(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat) -> bool:
    """Say whether the template writes today's date, so that prompts change from day to day.

    Raises:
        UserInputError: see `conversation`.
    """
    days = (date(2001, 2, 3), date(2014, 5, 6))
    texts = {
        conversation(tokenizer, replace(chat, day=day), chat.messages("Is water wet?"))
        for day in days
    }
    return len(texts) > 1


def answered(
    tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, messages: Sequence[Message], answer: str
) -> ChatText:
    """Return `conversation`, the blank that the template puts before what is said, and an answer.

    Raises:
        UserInputError: see `conversation`.
    """
    prompt = conversation(tokenizer, chat, messages)
    whole = _written(tokenizer, chat, [*messages, {"role": "assistant", "content": _MARK}])
    place = whole.find(_MARK, len(prompt))
    blank = whole[len(prompt) : place] if whole.startswith(prompt) and place >= 0 else ""
    return ChatText(prompt + (blank if blank.isspace() else "") + answer)


def continued(
    tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, messages: Sequence[Message]
) -> ChatText:
    """Return a conversation whose last message goes on.

    Raises:
        UserInputError: see `conversation`.
    """
    return ChatText(_written(tokenizer, chat, messages, continue_final_message=True))


def _known_switches(tokenizer: PreTrainedTokenizerBase) -> str:
    known = [name for name in _SWITCHES if _asks_for(tokenizer, name)]
    return f" (it asks for {', '.join(known)})" if known else ""


def _asks_for(tokenizer: PreTrainedTokenizerBase, name: str) -> bool:
    try:
        source = tokenizer.get_chat_template()
    except ValueError as error:
        raise _unusable(error) from error
    used = "".join(re.findall(r"\{[{%].*?[%}]\}", source, re.DOTALL))
    return re.search(rf"(?<![\w.'\"]){re.escape(name)}(?![\w'\"])", used) is not None


def _unusable(error: Exception) -> UserInputError:
    return UserInputError(
        f"the tokenizer's chat template cannot be used: {error}; set model.chat_template to "
        "false, or model.system_prompt to '' where the template has no system role"
    )


def _written(
    tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, messages: Sequence[Message], **how: bool
) -> str:
    """Return a conversation in the template: contents as texts, or as parts if it wants parts."""
    text = _rendered(tokenizer, chat, messages, how)
    lost = _left_out(messages, text)
    if lost is None:
        return text
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    text = _rendered(tokenizer, chat, parts, how)
    if _left_out(messages, text) is None and "'type': 'text'" not in text:
        return text
    raise UserInputError(
        f"the tokenizer's chat template leaves out what the {lost['role']} says "
        f"({lost['content'][:60]!r}); set model.system_prompt to '', or model.chat_template to "
        "false"
    )


def _left_out(messages: Sequence[Message], text: str) -> Message | None:
    said = (m for m in messages if m["role"] != "assistant")
    return next((m for m in said if m["content"].strip() not in text), None)


def _on_day(tokenizer: PreTrainedTokenizerBase, day: date) -> str:
    """Return the template with a day in the place of the clock's, which no argument changes."""
    return _TODAY.sub(lambda m: json.dumps(day.strftime(m[2])), tokenizer.get_chat_template())


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    chat: ChatFormat,
    messages: Sequence[Mapping[str, Any]],
    how: Mapping[str, bool],
) -> str:
    own = {} if chat.day is None else {"chat_template": _on_day(tokenizer, chat.day)}
    try:
        text: str = cast(Any, tokenizer).apply_chat_template(
            [dict(message) for message in messages], tokenize=False, **how, **own, **chat.arguments
        )
    except (TemplateError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise _unusable(error) from error
    return text
