"""What the tokenizer and the configuration of a model say of texts, its weights apart."""

from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from real_tasks.models.chat import ChatFormat
from real_tasks.models.rope import length_rules


class ReadsTexts(Protocol):
    """A model as far as it makes tokens of texts; a loaded model is one, too."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        ...

    @property
    def chat(self) -> ChatFormat | None:
        """How prompts are put into the tokenizer's chat template; None: they are plain text."""
        ...

    @property
    def n_tokens(self) -> int:
        """How many tokens have an embedding; a tokenizer may know others."""
        ...

    @property
    def max_positions(self) -> int | None:
        """The longest sequence, in tokens, that the model was made for, where it says so."""
        ...


@dataclass(frozen=True)
class TextModel:
    """A model that is not loaded; see `ReadsTexts`."""

    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat | None
    n_tokens: int
    max_positions: int | None


def longest_text(config: PreTrainedConfig) -> int | None:
    """Return how many tokens a model of this configuration was made for, where it says so.

    Dynamic NTK stretches it by its factor.
    """
    most = [rule.most for rule in length_rules(config) if rule.most]
    return max(most, default=getattr(config.get_text_config(), "max_position_embeddings", None))
