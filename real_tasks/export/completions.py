"""Plain text generation under a steering spec, for those who serve it."""

from collections.abc import Sequence
from typing import Any, cast

import torch

from real_tasks.models.loading import LoadedModel
from real_tasks.reading.batches import check_lengths, encode, pad
from real_tasks.reading.prompts import prompt_text
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.types import BehaviourData, Question

_AS_GIVEN = BehaviourData("prompt", (), template="{question}{answer}")


@torch.inference_mode()
def completions(
    loaded: LoadedModel, spec: SteeringSpec, prompts: Sequence[str], max_new_tokens: int
) -> list[str]:
    """Return how the steered model goes on, greedily, up to an end-of-sequence token.

    A model with a chat format takes a prompt as what the user says. Blanks that end a prompt are
    dropped: they belong to the first word that follows.

    Raises:
        UserInputError: a prompt without tokens, or one that leaves too few positions.
    """
    texts = [prompt_text(loaded, _AS_GIVEN, Question("", text, "", ())) for text in prompts]
    ids = encode(loaded, texts)
    check_lengths(loaded, [len(row) for row in ids], texts, max_new_tokens)
    if not ids:
        return []
    together = loaded.all_short(max(map(len, ids)) + max_new_tokens)
    new: list[list[int]] = []
    with spec.applied_to(loaded):
        for rows in [ids] if together else [[row] for row in ids]:
            batch = pad(loaded, rows, "left")
            tokens = cast(Any, loaded.model).generate(
                batch.input_ids,
                attention_mask=batch.mask.long(),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=loaded.pad_token_id,
            )
            new += tokens[:, batch.input_ids.shape[1] :].tolist()
    return loaded.tokenizer.batch_decode(new, skip_special_tokens=True)
