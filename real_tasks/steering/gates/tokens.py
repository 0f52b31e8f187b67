"""A gate at given tokens."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt
from torch import Tensor

from real_tasks.steering.gates import GATES, Gate, Seen
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError


class TokensParams(Frozen):
    """The tokens."""

    ids: tuple[NonNegativeInt, ...] = Field(min_length=1, description="ids of the tokens")


@GATES.register("tokens")
class Tokens(Gate):
    """Open at the positions of some tokens; the others stay as they are."""

    Params = TokensParams
    label = "certain tokens stand"
    params: TokensParams

    def strength(
        self,
        seen: Seen,
        tensors: Mapping[str, Tensor],  # noqa: ARG002
    ) -> Float[Tensor, "row position"]:
        """Return 1 where one of the tokens stands.

        Raises:
            UserInputError: the model was given embeddings instead of tokens.
        """
        if seen.input_ids is None:
            raise UserInputError("a gate looks for tokens, but the model was given embeddings")
        ids = torch.tensor(self.params.ids, device=seen.input_ids.device)
        return torch.isin(seen.input_ids, ids).float()
