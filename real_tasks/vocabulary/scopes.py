"""Token scopes: at which positions an edit holds.

- ``all``: every position, prompt included;
- ``generated``: the positions after the prompt. The first new token is predicted at the prompt's
  last position, so that it stays as it was; ``last`` is the remedy;
- ``last``: the last position of the prompt and every later one. While text is generated with a
  cache, every new token is the last when it is processed, so this is "the last position" at each
  step; without a cache the same positions are steered, and the text is the same;
- `PromptEnds`: the first n and the last m tokens of the prompt, and nothing that follows it.
"""

from pydantic import Field, NonNegativeInt, model_validator

from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.types import TokenScope


class PromptEnds(Frozen):
    """Counts from both ends of the prompt (PrOSV, arXiv 2605.05983)."""

    first: NonNegativeInt = Field(0, description="tokens at the prompt's beginning")
    last: NonNegativeInt = Field(0, description="tokens at the prompt's end")

    @model_validator(mode="after")
    def _some(self) -> "PromptEnds":
        if not self.first + self.last:
            raise ValueError("a scope of no token; give first, last or both a number above 0")
        return self

    def __str__(self) -> str:
        """Return what people read."""
        counts = {"first": self.first, "last": self.last}
        return " and ".join(f"{end} {n}" for end, n in counts.items() if n) + " of the prompt"


Scope = TokenScope | PromptEnds
