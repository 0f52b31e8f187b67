"""What gates are fitted to: prompts of the behaviour, and neutral texts."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from real_tasks.evaluation.side_effects import MAX_TOKENS
from real_tasks.models.loading import LoadedModel
from real_tasks.reading.activations import activations_at
from real_tasks.reading.batches import encode
from real_tasks.reading.positions_read import behind_first
from real_tasks.reading.prompts import prompt_text
from real_tasks.steering.gates import GATES, GateInput
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import BehaviourData


def gate_input(
    loaded: LoadedModel,
    data: BehaviourData,
    questions: Sequence[int],
    batch_tokens: int,
    gate: PlugIn,
) -> GateInput:
    """Return the activations of every prompt and neutral text, at the input of every layer.

    The gate says at which tokens, see `Gate.at_end`. Of the neutral texts those count on which
    nothing is tested; ``questions`` are training questions. The model is not steered.

    Raises:
        UserInputError: no neutral text is short enough.
    """
    at_end = GATES[gate.name].at_end

    def read(texts: Sequence[str]) -> Float[Tensor, "text layer d"]:
        rows = [] if at_end else encode(loaded, texts)
        # As `PromptSimilarity` reads them.
        places = [range(behind_first(len(row)), len(row)) for row in rows] or None
        return activations_at(loaded, texts, places, batch_tokens, "residual_in").squeeze(2)

    prompts = [prompt_text(loaded, data, data.questions[index]) for index in questions]
    texts = data.neutral_texts[::2]
    rows = zip(texts, encode(loaded, texts), strict=True)
    short = [text for text, row in rows if len(row) <= MAX_TOKENS]
    if not short:
        raise UserInputError(
            f"a gate is fitted to neutral texts of at most {MAX_TOKENS} tokens, and there is none; "
            "give shorter ones (evaluation.neutral)"
        )
    return GateInput(read(prompts), read(short), tuple(range(loaded.shape.n_layers)))
