"""Log-probabilities of answers, with gradients whose memory is bounded.

What the layers keep for a backward pass is kept where it is little. Else the backward pass reads
the texts again, a batch at a time: a graph that outlives the hooks of an edit cannot be
checkpointed, as layers that are read again would be read unsteered.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from real_tasks.evaluation.answers.logits import target_log_probs
from real_tasks.models.loading import LoadedModel
from real_tasks.models.places import sites
from real_tasks.models.replacing import replaced
from real_tasks.reading.batches import pad
from real_tasks.reading.out_of_memory import fits, in_batches
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied

KEPT_BYTES = 2**30
"""What layers may keep of texts for the backward pass; beyond it these are read again then, and the
layers of a batch that is beyond it are checkpointed."""
KEPT_PER_WIDTH = 28
"""Numbers that a layer keeps of a token, in widths of the residual stream: about 16 beside the MLP,
and four times the MLP's width."""


@dataclass(frozen=True)
class TextBatches:
    """Texts, and what is done to the model that reads them.

    Attributes:
        rows: each text's tokens.
        splits: how many of them are the prompt's.
        batch_tokens: most tokens of a batch, padding included.
    """

    loaded: LoadedModel
    rows: Sequence[Sequence[int]]
    splits: Sequence[int]
    intervention: Intervention | None
    batch_tokens: int

    @property
    def tensors(self) -> list[Tensor]:
        """Those of the edits, in the order in which `each` takes them."""
        edits = self.intervention.edits if self.intervention else ()
        return [tensor for edit in edits for tensor in (*edit.tensors.values(), edit.weights)]

    def each(
        self, work: str, tensors: Sequence[Tensor], then: Callable[[list[int], Tensor], None]
    ) -> None:
        """Read all texts in batches, and within the hooks hand on their answers' log-probabilities.

        Args:
            work: see `in_batches`.
            tensors: taken for those of the edits, and after them an embedding for each text, or
                none.
            then: is given the places of the batch's texts and a number for each of them; may raise
                for want of memory, and is then called again with half of them.
        """
        given = iter(tensors)
        intervention, embeddings = self._with(given), list(given)

        def run(indices: list[int]) -> None:
            lengths = [self.splits[i] for i in indices]
            batch = pad(self.loaded, [self.rows[i] for i in indices], "right")
            inputs: dict[str, Any] = {"attention_mask": batch.mask, "use_cache": False}
            if embeddings:
                own = pad_sequence([embeddings[i] for i in indices], batch_first=True)
                inputs["inputs_embeds"] = own.to(self.loaded.device, self.loaded.model.dtype)
            else:
                inputs["input_ids"] = batch.input_ids
            ends = torch.tensor(lengths, device=self.loaded.device)
            graph = torch.is_grad_enabled()
            large = graph and not self.can_be_kept(batch.mask.numel())
            layers = _checkpointed(self.loaded) if large else nullcontext()
            with applied(self.loaded, intervention, ends), layers:
                then(indices, self._summed(self.loaded.hidden_states(**inputs), indices))

        sizes = [len(row) for row in self.rows]
        regimes = [self.loaded.regime(size) for size in sizes]
        in_batches(self.loaded, work, sizes, self.batch_tokens, run, regimes)

    def _with(self, tensors: Iterator[Tensor]) -> Intervention | None:
        if self.intervention is None:
            return None
        edits = tuple(
            replace(
                edit, tensors={name: next(tensors) for name in edit.tensors}, weights=next(tensors)
            )
            for edit in self.intervention.edits
        )
        return replace(self.intervention, edits=edits)

    def can_be_kept(self, tokens: int) -> bool:
        """Say whether what the layers keep of so many tokens for a backward pass is little."""
        shape, size = self.loaded.shape, self.loaded.model.dtype.itemsize
        return tokens * shape.n_layers * KEPT_PER_WIDTH * shape.d_model * size <= KEPT_BYTES

    def _summed(
        self, hidden: Float[Tensor, "row position d_model"], indices: Sequence[int]
    ) -> Float[Tensor, "row"]:
        reads: list[int] = []
        targets: list[int] = []
        owners: list[int] = []
        for row, index in enumerate(indices):
            tokens, split = self.rows[index], self.splits[index]
            reads += [row * hidden.shape[1] + place - 1 for place in range(split, len(tokens))]
            targets += tokens[split:]
            owners += [row] * (len(tokens) - split)
        place = hidden.device
        wanted = hidden.flatten(0, 1)[torch.tensor(reads, device=place)]
        log_probs = target_log_probs(self.loaded, wanted, torch.tensor(targets, device=place))
        sums = log_probs.new_zeros(len(indices))
        return sums.index_add(0, torch.tensor(owners, device=place), log_probs)


class LogProbs(torch.autograd.Function):
    """Log-probabilities of all texts' answers, from tensors as `TextBatches.each` takes them."""

    @staticmethod
    def forward(
        ctx: Any, batches: TextBatches, keeps: bool, *tensors: Tensor
    ) -> Float[Tensor, "text"]:
        """Read the texts; keep their graph for one backward pass if ``keeps``, else nothing."""
        ctx.batches = batches
        ctx.save_for_backward(*tensors)
        ctx.leaves = _leaves(tensors, ctx.needs_input_grad[2:]) if keeps else ()
        ctx.kept = []
        found = torch.zeros(len(batches.rows), device=batches.loaded.device)

        def keep(indices: list[int], sums: Tensor) -> None:
            found[indices] = sums.detach()
            if keeps:
                ctx.kept.append((indices, sums))

        with torch.set_grad_enabled(keeps):
            batches.each("log-probabilities", ctx.leaves or tensors, keep)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        """Go back through the graph; where it is not kept, or too much, read the texts again."""
        (gradient,) = gradients
        wanted = ctx.needs_input_grad[2:]
        leaves = ctx.leaves or _leaves(ctx.saved_tensors, wanted)
        moved = [leaf for leaf in leaves if leaf.requires_grad]
        sums_of = [torch.zeros_like(leaf) for leaf in moved]

        def add(indices: list[int], sums: Tensor) -> None:
            if not sums.requires_grad:  # steered by a strength of 0
                return
            found = torch.autograd.grad(sums, moved, gradient[indices], allow_unused=True)
            for total, part in zip(sums_of, found, strict=True):
                if part is not None:
                    total += part

        def add_kept() -> None:
            for one in ctx.kept:
                add(*one)

        if not ctx.kept or not fits(add_kept):
            ctx.kept.clear()
            for total in sums_of:
                total.zero_()
            with torch.enable_grad():
                ctx.batches.each("gradients", leaves, add)
        ctx.kept.clear()
        totals = iter(sums_of)
        return (None, None, *(next(totals) if is_wanted else None for is_wanted in wanted))


def _leaves(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor]:
    return [
        tensor.detach().requires_grad_(is_wanted)
        for tensor, is_wanted in zip(tensors, wanted, strict=True)
    ]


@contextmanager
def _checkpointed(loaded: LoadedModel) -> Iterator[None]:
    """Have every decoder layer keep its input alone, and be read again in the backward pass.

    The layers' own switch for it works in training mode only, where dropout would be on.
    """
    with ExitStack() as undo:
        for layer in sites(loaded.model, "layer"):
            again = partial(
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
            undo.enter_context(replaced(layer, "forward", again))
        yield
