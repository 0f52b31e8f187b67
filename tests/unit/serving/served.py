"""Tiny models, steering of every kind, and texts continued by the engine and by `generate`."""

import queue
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.serving.engine import Engine
from real_tasks.serving.generations import Generation, Piece, Sampling
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.gates import GATES, FittedGate
from real_tasks.steering.hooks import Steering, applied
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.scopes import PromptEnds
from real_tasks.vocabulary.types import ModuleId
from tests.unit.tiny_models import tiny_llama, tiny_tokenizer

ONE = torch.ones(1)


def prompts(n: int, seed: int = 0) -> list[list[int]]:
    """Token ids of several lengths that begin as the tokenizer begins a text."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 14, (n,), generator=draw).tolist()
    return [[1, *torch.randint(8, 68, (m,), generator=draw).tolist()] for m in lengths]


def unit(width: int, seed: int) -> Tensor:
    drawn = torch.randn(1, width, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()


def push(width: int, seed: int = 0, layer: int = 0, size: float = 4.0, **how: Any) -> Edit:
    tensors = {"direction": unit(width, seed), "scale": size * ONE}
    return Edit((ModuleId("layer", layer),), tensors, ONE, **how)


def interventions(width: int) -> list[Intervention | None]:
    """Nothing, and steering by every scope, an operator that is no constant, and every gate."""
    along = {"direction": unit(width, 7)}
    out = Edit((ModuleId("mlp", 1),), along, ONE, operator=OPERATORS.made("project_out", {}))
    similar = GATES.made("prompt_similarity", {"layer": 1})
    gate = FittedGate(similar, {"direction": unit(width, 9)[0], "threshold": torch.tensor(0.0)})
    read = {"kind": "layer", "layer": 0}
    token = FittedGate(
        GATES.made("coordinate", read), {"direction": unit(width, 8)[0], "threshold": ONE[0]}
    )
    single = [
        (push(width, 1),),
        (push(width, 2, scope="generated"),),
        (push(width, 3, scope="last"), push(width, 4, layer=2)),
        (push(width, 5, scope=PromptEnds(first=1, last=2)),),
        (out,),
        (push(width, 6, layer=1, gate=gate),),
        (push(width, 10, layer=1, gate=token), out),
    ]
    return [None, *(Intervention(edits, 1.5) for edits in single)]


def expected(
    loaded: LoadedModel, prompt: list[int], intervention: Intervention | None, n_tokens: int
) -> tuple[list[int], list[float]]:
    """The new tokens of `generate` for one prompt, and their log-probabilities."""
    with torch.no_grad(), applied(loaded, intervention):
        made: Any = loaded.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=n_tokens,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
    new = made.sequences[0, len(prompt) :].tolist()
    scores = [logits[0].log_softmax(-1) for logits in made.logits]
    return new, [float(row[token]) for row, token in zip(scores, new, strict=True)]


def endless() -> LoadedModel:
    """A model without an end-of-sequence token, and with room for long texts."""
    loaded = prepare(tiny_llama(max_positions=100_000), tiny_tokenizer())
    loaded.tokenizer.eos_token = loaded.model.generation_config.eos_token_id = None
    return loaded


class Asked:
    """A generation whose pieces are kept in a queue."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling, steering: Any = None) -> None:
        self.pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        self.generation = Generation(prompt, sampling, steering, self.pieces.put)

    def all(self) -> list[Piece]:
        """Wait for the last piece."""
        found = [self.pieces.get(timeout=60)]
        while not found[-1].is_last:
            found.append(self.pieces.get(timeout=60))
        return found

    def text(self) -> str:
        pieces = self.all()
        assert pieces[-1].error is None, pieces[-1].error
        return "".join(piece.text for piece in pieces)


def served(
    engine: Engine, cases: Sequence[tuple[list[int], Intervention | None]], sampling: Sampling
) -> list[Asked]:
    """Have the engine continue prompts, each under its own steering."""
    ready = {
        intervention: Steering(engine.loaded.model, intervention)
        for _, intervention in cases
        if intervention is not None
    }
    asked = [Asked(prompt, sampling, None if iv is None else ready[iv]) for prompt, iv in cases]
    for one in asked:
        engine.submit([one.generation])
    return asked
