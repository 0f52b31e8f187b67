"""What a fitter may ask of the model; `real_tasks.evaluation.model_handle` answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from real_tasks.steering.edits import Intervention
from real_tasks.vocabulary.types import ModuleId


@dataclass(frozen=True)
class Text:
    """A text to be judged: what is given, and the whole, which begins with it and ends with more.

    Attributes:
        prompt: up to, and without, the blank before the answer.
        whole: prompt and answer, as the model reads them.
    """

    prompt: str
    whole: str


class ModelAccess(Protocol):
    """The frozen model, for fitters whose access is more than activations."""

    def weight(self, site: ModuleId) -> Float[Tensor, "d_model d"]:
        """Return by what a site writes, float32 on the CPU."""
        ...

    def gain(self, site: ModuleId) -> Float[Tensor, "d_model"]:
        """Return by what a norm multiplies that on the way to the residual stream, or ones."""
        ...

    def embeddings(self, texts: Sequence[Text]) -> list[Float[Tensor, "position d_model"]]:
        """Return every text's input embeddings."""
        ...

    def answer_lengths(self, texts: Sequence[Text]) -> list[int]:
        """Return how many tokens each answer has."""
        ...

    def log_probs(
        self,
        texts: Sequence[Text],
        intervention: Intervention | None = None,
        embeddings: Sequence[Float[Tensor, "position d_model"]] | None = None,
    ) -> Float[Tensor, "text"]:
        """Return each answer's log-probability, differentiable in edits and embeddings."""
        ...

    def jacobians(self, texts: Sequence[Text], tokens: int) -> Float[Tensor, "layer d d"]:
        """Return the mean Jacobian of every layer at texts' last tokens, ``[layer, out, in]``."""
        ...

    def sample(
        self,
        prompts: Sequence[str],
        n: int,
        seed: int,
        intervention: Intervention | None = None,
        max_new_tokens: int = 64,
        stop: Sequence[str] = (),
    ) -> list[list[str]]:
        """Return ``n`` answers to every prompt, drawn from the model."""
        ...
