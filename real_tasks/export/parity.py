"""The parity file: what a steered checkpoint has to say, so that every server of it can be checked.

Some servers drop a bias that they do not know of, silently, and then serve the model unsteered. So
the export records, for some prompts, how the steered model goes on, and the log-probabilities of
that continuation with and without steering.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor
from transformers import PreTrainedModel

from real_tasks.models.loading import LoadedModel
from real_tasks.reading.batches import encode
from real_tasks.reading.overflow import check_finite
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError

PARITY_FILE = "real_parity.json"
CONTINUATION_TOKENS = 8
TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""Nats by which a log-probability may be off, by the type of the weights: other kernels round
differently. Measured on one device in float32, baked and hooked models agree within 1e-4."""


class ParityCase(Frozen):
    """A prompt, how the steered model goes on, and how likely that is; nats.

    Attributes:
        about: what kind of prompt it is.
        tokens: text of each token of the continuation.
        steered: log-probability of each token of the continuation under the steered model.
        unsteered: the same under the model as it was.
    """

    about: Literal["behaviour", "neutral"]
    prompt: str
    prompt_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    steered: tuple[float, ...]
    unsteered: tuple[float, ...]


class Parity(Frozen):
    """The content of `PARITY_FILE`.

    Attributes:
        dtype: type of the weights, in which the log-probabilities were computed.
        tolerance: nats by which a log-probability may be off.
        measured: largest difference, in nats, between the model under hooks and the exported
            checkpoint, loaded by plain transformers when it was made; None before that.
    """

    format_version: Literal[1] = 1
    dtype: str
    tolerance: float
    cases: tuple[ParityCase, ...]
    measured: float | None = None

    def with_measured(self, difference: float) -> "Parity":
        """Return the same with what was measured, and a tolerance of no less than twice that."""
        tolerance = max(self.tolerance, 2 * difference)
        return self.model_copy(update={"measured": difference, "tolerance": tolerance})

    def save(self, folder: Path) -> None:
        """Write `PARITY_FILE` into a folder."""
        (folder / PARITY_FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Parity":
        """Read a parity file, or the one in a folder.

        Raises:
            UserInputError: it is not there, or damaged.
        """
        file = path / PARITY_FILE if path.is_dir() else path
        try:
            return cls.model_validate_json(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserInputError(
                f"no parity file at {file}: expected the {PARITY_FILE} that `real export` writes "
                "into a checkpoint or a LoRA adapter; what else it writes has none to compare with"
            ) from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise UserInputError(f"{file} is no parity file, or damaged: {error}") from error


def make_parity(
    loaded: LoadedModel,
    intervention: Intervention,
    prompts: Sequence[tuple[Literal["behaviour", "neutral"], str]],
) -> Parity:
    """Return what the steered model says to prompts, and how likely that is with and without.

    A prompt is a pair of its kind and its text; the tokenizer's special tokens are put in front.
    The model is not steered at present.

    Raises:
        UserInputError: the model overflows its type, steered or not.
    """
    cases = []
    encoded = encode(loaded, [text for _, text in prompts])
    for (about, text), prompt_ids in zip(prompts, encoded, strict=True):
        with applied(loaded, intervention):
            continuation = _greedy(loaded, prompt_ids)
            steered = continuation_log_probs(loaded.model, prompt_ids, continuation)
        unsteered = continuation_log_probs(loaded.model, prompt_ids, continuation)
        for values, is_steered in ((unsteered, False), (steered, True)):
            check_finite(loaded, torch.tensor(values), "log-probabilities", is_steered)
        case = ParityCase(
            about=about,
            prompt=text,
            prompt_ids=tuple(prompt_ids),
            continuation_ids=tuple(continuation),
            tokens=tuple(cast(str, loaded.tokenizer.decode([token])) for token in continuation),
            steered=tuple(steered),
            unsteered=tuple(unsteered),
        )
        cases.append(case)
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    return Parity(dtype=dtype, tolerance=TOLERANCES[dtype], cases=tuple(cases))


@torch.inference_mode()
def continuation_log_probs(
    model: PreTrainedModel, prompt: Sequence[int], continuation: Sequence[int]
) -> list[float]:
    """Return the log-probability of each token of a continuation, in nats, from one pass."""
    ids = torch.tensor([[*prompt, *continuation]], device=model.device)
    # The last logits predict what follows the continuation.
    logits = cast(Any, model)(ids, logits_to_keep=len(continuation) + 1).logits[0, :-1]
    log_probs: Float[Tensor, "token vocab"] = torch.log_softmax(logits.float(), dim=-1)
    chosen = ids[0, len(prompt) :, None].to(log_probs.device)
    return [float(value) for value in log_probs.gather(1, chosen)[:, 0]]


@torch.inference_mode()
def _greedy(loaded: LoadedModel, prompt: Sequence[int]) -> list[int]:
    """The likeliest tokens, one after another, past an end-of-sequence token too."""
    # Where frequencies follow the length, what was read of a shorter text is no use.
    keeps = loaded.all_short(len(prompt) + CONTINUATION_TOKENS)
    whole, cache, chosen = torch.tensor([list(prompt)], device=loaded.device), None, list[int]()
    inputs = whole
    while len(chosen) < CONTINUATION_TOKENS:
        out = cast(Any, loaded.model)(
            inputs, past_key_values=cache, use_cache=keeps, logits_to_keep=1
        )
        likeliest = out.logits[:, -1].argmax(-1, keepdim=True).to(loaded.device)
        chosen.append(int(likeliest))
        whole = torch.cat([whole, likeliest], dim=1)
        cache, inputs = (out.past_key_values, likeliest) if keeps else (None, whole)
    return chosen
