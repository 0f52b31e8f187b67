"""How a single prompt is put to a model, kept with what was tuned on prompts put so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from real_tasks.models.chat import ChatFormat, conversation
from real_tasks.models.text_model import ReadsTexts
from real_tasks.vocabulary.types import BehaviourData

PROMPT = "prompt"
"""Of a spec's provenance, how prompts were put when it was made."""


@dataclass(frozen=True)
class Asking:
    """How a prompt is put to the model: in its chat template, or in a template of plain text.

    Attributes:
        chat: None: plain text.
        template: of the plain text, with ``{question}``.
        stop: strings that end an answer.
    """

    chat: ChatFormat | None = None
    template: str = "{question}"
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: BehaviourData, chat: ChatFormat | None) -> "Asking":
        """Return how the evaluation puts a behaviour's questions, where they have no context."""
        template = (data.prompt or data.template).removesuffix("{answer}").rstrip()
        if "{context}" in template:
            return cls(chat, stop=data.stop)
        preamble = data.preamble.replace("{", "{{").replace("}", "}}")
        return cls(chat, preamble + template, data.stop)

    def text(self, loaded: ReadsTexts, prompt: str) -> str:
        """Return the text that the model goes on with."""
        if self.chat is None:
            return self.plain(prompt)
        return conversation(loaded.tokenizer, self.chat, self.chat.messages(prompt))

    def plain(self, prompt: str) -> str:
        """Return the plain text, whether there is a chat template or not."""
        return self.template.format(question=prompt)

    def as_facts(self) -> dict[str, Any]:
        """Return what `from_facts` reads, as JSON has it."""
        chat = self.chat and {"system_prompt": self.chat.system_prompt}
        return {"chat": chat, "template": self.template, "stop": list(self.stop)}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Asking":
        """Return what a spec's provenance says of it; plain prompts where it says nothing."""
        chat = facts.get("chat")
        return cls(
            ChatFormat(chat["system_prompt"], thinking="closed") if chat else None,
            facts.get("template", "{question}"),
            tuple(facts.get("stop", ())),
        )
