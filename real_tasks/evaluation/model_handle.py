"""The model as fitters get it: weights, log-probabilities with gradients, samples."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.evaluation.answers.greedy import continuations
from real_tasks.evaluation.gradients import LogProbs, TextBatches
from real_tasks.evaluation.jacobians import mean_jacobians
from real_tasks.models.families import write_gains
from real_tasks.models.loading import LoadedModel
from real_tasks.models.places import places, projection_weight
from real_tasks.questions.samples import rows_of_questions, samples_of
from real_tasks.reading.batches import check_lengths, encode
from real_tasks.reading.overflow import check_finite
from real_tasks.reading.prompts import answered_text, prompt_text
from real_tasks.reading.shared_rows import common_length
from real_tasks.steering.edits import Intervention
from real_tasks.steering.model_access import Text
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import BehaviourData, FoldSplit, ModuleId, ModuleKind

_WRITES: dict[ModuleKind, ModuleKind] = {
    "head": "head",
    "attention": "head",
    "neuron": "neuron",
    "mlp": "neuron",
}
"""By kind, the part whose place is the projection that writes to the residual stream."""


class ModelHandle:
    """A frozen model on one device (`real_tasks.steering.model_access`); not for several threads.

    No parameter gets a gradient; only the tensors that the caller gives have some.
    """

    def __init__(self, loaded: LoadedModel, batch_tokens: int) -> None:
        """Keep the model; ``batch_tokens`` are the most tokens of a batch, padding included.

        Raises:
            UserInputError: weights that are quantised, or not in memory.
        """
        strange = [
            name
            for name, weight in loaded.model.named_parameters()
            if weight.is_meta or not weight.is_floating_point()
        ]
        if strange:
            raise UserInputError(
                f"{len(strange)} weights are offloaded or quantised, the first is {strange[0]}; "
                "fitters that ask for the model need floating-point weights on one device: set "
                "execution.device_map to null, or give the checkpoint before it was quantised"
            )
        self._loaded = loaded
        self._batch_tokens = batch_tokens

    @cached_property
    def _gains(self) -> dict[ModuleId, Float[Tensor, "d_model"]]:
        return write_gains(self._loaded.model)

    def weight(self, site: ModuleId) -> Float[Tensor, "d_model d"]:
        """Return by what a site writes, a float32 copy on the CPU.

        A head's columns of ``o_proj`` and a neuron's of ``down_proj`` map its activation to what it
        puts out; see `gain` for what becomes of that. Of ``attention`` and ``mlp`` it is the whole
        projection, or the row of a dimension.

        Raises:
            UserInputError: the model has no such site, or no single matrix writes for it.
        """
        loaded = self._loaded
        if site.kind not in _WRITES:
            raise UserInputError(
                f"{site.label} writes by no matrix of its own; expected a site of one of the kinds "
                + ", ".join(_WRITES)
            )
        if not loaded.shape.has(site):
            raise UserInputError(f"the model has no {site.label}; it has {loaded.shape}")
        module = places(loaded.model, _WRITES[site.kind])[site.layer].module
        weight, span = projection_weight(module).detach(), loaded.shape.span(site)
        own = weight[:, span] if site.kind == _WRITES[site.kind] else weight[span]
        return own.to("cpu", torch.float32, copy=True)

    def gain(self, site: ModuleId) -> Float[Tensor, "d_model"]:
        """Return by what a norm multiplies what a site writes, on the way to the residual stream.

        Up to what the norm divides by; ones where nothing stands between. Float32, on the CPU.
        """
        by: ModuleKind = "attention" if _WRITES[site.kind] == "head" else "mlp"
        return self._gains.get(ModuleId(by, site.layer), torch.ones(self._loaded.shape.d_model))

    def written_by(self, site: ModuleId) -> Float[Tensor, "d_model d"]:
        """Return `gain` times `weight`: what a site adds to the residual stream."""
        return self.gain(site)[:, None] * self.weight(site)

    def embeddings(self, texts: Sequence[Text]) -> list[Float[Tensor, "position d_model"]]:
        """Return every text's input embeddings, float32 copies on the model's device."""
        table = self._loaded.model.get_input_embeddings()
        with torch.no_grad():
            return [
                table(torch.tensor(row, device=self._loaded.device)).float()
                for row in self._encoded(texts)[0]
            ]

    def answer_lengths(self, texts: Sequence[Text]) -> list[int]:
        """Return how many tokens each answer has, those whose log-probabilities are summed.

        Raises:
            UserInputError: a text without an answer, or too long.
        """
        rows, splits = self._encoded(texts)
        return [len(row) - split for row, split in zip(rows, splits, strict=True)]

    def log_probs(
        self,
        texts: Sequence[Text],
        intervention: Intervention | None = None,
        embeddings: Sequence[Float[Tensor, "position d_model"]] | None = None,
    ) -> Float[Tensor, "text"]:
        """Return each answer's log-probability in nats, summed over its tokens, float32.

        Differentiable, once, in the tensors and weights of the edits, and in the embeddings. How
        answers are told from prompts is as in `real_tasks.reading.asked`; texts of one prompt are
        judged from one context.

        Memory is that of the weights and of one batch, however many texts there are. Where layers
        would keep more of all texts than `gradients.KEPT_BYTES`, nothing is kept between the two
        passes, as the backward one reads the texts again, a batch at a time and within the edits'
        hooks; and where they would of a batch, its decoder layers are checkpointed (Chen et al.
        2016, arXiv 1604.06174). A model of 7B in
        bfloat16 (32 layers, width 4096, MLP 11008), batches of 4096 tokens: weights 13.5 GB; the
        inputs of 32 layers 32 x 4096 x 4096 x 2 = 1.1 GB; what the one layer keeps that is read
        again, about (16 x 4096 + 4 x 11008) x 2 bytes a token, 0.9 GB; logits 4 x 32000 bytes
        twice for a token of an answer, 0.3 GB for 1000; and an edit of a layer 16 KB, its gradient
        as much, AdamW twice that. Without checkpoints the layers would keep 29 GB. Gradients are
        in the model's type up to the edit, where they are summed into float32.

        Args:
            texts: the texts.
            intervention: None for the model as it is.
            embeddings: taken instead of each text's own (`embeddings`), of the same lengths; not
                behind gates, which look at tokens.

        Raises:
            UserInputError: a text without an answer, or too long; embeddings of other lengths.
            OverflowedError: steering is so strong that they are no numbers.
            RuntimeError: called within ``torch.inference_mode``, which keeps no gradients.
        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError("gradients cannot be had within torch.inference_mode")
        rows, splits = self._encoded(texts)
        _check_embeddings(rows, intervention, embeddings)
        work = TextBatches(self._loaded, rows, splits, intervention, self._batch_tokens)
        # The stub of torch knows no types here.
        tensors = (*work.tensors, *(embeddings or ()))
        trained = torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
        keeps = trained and work.can_be_kept(len(rows) * max(map(len, rows)))
        found: Tensor = cast(Any, LogProbs).apply(work, keeps, *tensors)
        check_finite(
            self._loaded, found.detach(), "log-probabilities of answers", intervention is not None
        )
        return found

    def jacobians(self, texts: Sequence[Text], tokens: int) -> Float[Tensor, "layer d d"]:
        """Return the Jacobian of every layer at a text's last token, the mean over texts.

        Of each at most ``tokens`` are read, two or more: the first, on which attention rests, and
        the last ones. See `real_tasks.evaluation.jacobians.mean_jacobians`.

        Raises:
            UserInputError: a text without an answer, or too long.
        """
        rows = [row[:1] + row[1:][1 - tokens :] for row in self._encoded(texts)[0]]
        return mean_jacobians(self._loaded, rows, self._batch_tokens)

    def sample(
        self,
        prompts: Sequence[str],
        n: int,
        seed: int,
        intervention: Intervention | None = None,
        max_new_tokens: int = 64,
        stop: Sequence[str] = (),
    ) -> list[list[str]]:
        """Return ``n`` answers to every prompt, drawn from the model's own probabilities.

        Drawn token by token at temperature 1, whatever the checkpoint's generation settings. A draw
        depends on the seed, its prompt's place and its number, not on its neighbours in a batch.

        Raises:
            UserInputError: prompts that leave less than ``max_new_tokens`` of the positions.
            OverflowedError: steering is so strong that logits are no numbers.
        """
        repeated = [prompt for prompt in prompts for _ in range(n)]
        found = continuations(
            *(self._loaded, repeated, intervention, max_new_tokens, self._batch_tokens, stop),
            seed=seed,
        )
        return [found[n * i : n * (i + 1)] for i in range(len(prompts))]

    def _encoded(self, texts: Sequence[Text]) -> tuple[list[list[int]], list[int]]:
        """Return each text's tokens, and how many of them are the prompt's."""
        rows = encode(self._loaded, [text.whole for text in texts])
        check_lengths(self._loaded, [len(row) for row in rows], [text.whole for text in texts])
        prompts = list(dict.fromkeys(text.prompt for text in texts))
        contexts = dict(zip(prompts, encode(self._loaded, prompts), strict=True))
        shared = {prompt: len(context) for prompt, context in contexts.items()}
        for text, row in zip(texts, rows, strict=True):
            common = common_length(contexts[text.prompt], row)
            shared[text.prompt] = min(shared[text.prompt], common)
        splits = [shared[text.prompt] for text in texts]
        for text, row, split in zip(texts, rows, splits, strict=True):
            if not 0 < split < len(row):
                raise UserInputError(
                    f"{text.whole!r:.200}: no tokens of a prompt, or none of an answer after "
                    f"{text.prompt!r:.200}; expected a text that begins with its prompt and goes on"
                )
        return rows, splits


def _check_embeddings(
    rows: Sequence[Sequence[int]],
    intervention: Intervention | None,
    embeddings: Sequence[Tensor] | None,
) -> None:
    if embeddings is None:
        return
    lengths = [len(row) for row in rows]
    if [len(one) for one in embeddings] != lengths:
        raise UserInputError(
            f"embeddings of {[len(one) for one in embeddings]} positions for texts of {lengths} "
            "tokens; give each text as many as `ModelHandle.embeddings` has"
        )
    if intervention is not None and any(edit.gate for edit in intervention.edits):
        raise UserInputError(
            "gates look at tokens, and embeddings have none; leave the gates out, or the embeddings"
        )


def model_given(
    loaded: LoadedModel, data: BehaviourData, split: FoldSplit, batch_tokens: int
) -> dict[str, Any]:
    """Return what a fitter that asks for the model is given: it, and the training samples' texts.

    The texts are as the evaluation puts them.
    """
    samples = samples_of(data)
    chosen = [samples[row] for row in rows_of_questions(samples, split.train)]
    texts = tuple(
        Text(
            prompt_text(loaded, data, one.question),
            answered_text(loaded, data, one.question, one.answer),
        )
        for one in chosen
    )
    return {"model": ModelHandle(loaded, batch_tokens), "texts": texts}
