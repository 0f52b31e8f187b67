"""From questions to candidates for steering a model in memory: what an experiment does on one fold.

Only what the method asks for is read and scored, and only of questions for training and validation.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.evaluation.gating import gate_input
from real_tasks.evaluation.model_handle import model_given
from real_tasks.experiment.candidates import SpecTemplate, candidate_selections
from real_tasks.experiment.fitting import fitted_tensors
from real_tasks.experiment.localizer_access import access_given
from real_tasks.experiment.methods.known import rankings_of
from real_tasks.experiment.methods.method import Method
from real_tasks.localizers import LOCALIZERS, Localizer
from real_tasks.models.families import write_gains
from real_tasks.models.identity import weights_fingerprint
from real_tasks.models.loading import LoadedModel
from real_tasks.questions.samples import localizer_input, samples_of
from real_tasks.reading.answers_read import activations_of
from real_tasks.steering.fitters import FITTERS, Fitter
from real_tasks.steering.selection import best_modules
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import (
    BehaviourData,
    FoldSplit,
    LocalizerResult,
    ModuleKind,
    ModuleScore,
    Reading,
)

OnProgress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""
SHARD = 128
"""Answers that are read between two words on progress."""


@dataclass(frozen=True)
class Learner:
    """One method on one split of the questions.

    Attributes:
        loaded: the model.
        data: the behaviour.
        split: which questions are for what; those of the test are not looked at.
        config: complete, with the one method.
        method: that one.
        told: hears of progress.
        enough: asked between layers while they are ranked; once it says so, those that were not
            reached are not steered.
    """

    loaded: LoadedModel
    data: BehaviourData
    split: FoldSplit
    config: ExperimentConfig
    method: Method
    told: OnProgress
    enough: Callable[[], bool] = lambda: False
    _values: dict[tuple[ModuleKind, Reading], Tensor] = field(default_factory=dict, init=False)

    def candidates(self) -> dict[int, SteeringSpec]:
        """Return for every K a spec of strength 1; none where nothing is fitted."""
        method, loaded = self.method, self.loaded
        if method.fitter is None:
            return {}
        scores = None
        if method.localizer:
            ranked = self._ranked(method.localizer, method.kind)
            scores = [score for part in ranked for score in part.scores]
            if len(scores) < len(loaded.shape.modules(method.kind)):  # it was enough before the end
                top_k = tuple(min(k, len(scores)) for k in method.top_k)
                method = method.model_copy(update={"top_k": top_k})
        batch_tokens = self.config.evaluation.batch_tokens
        prompts = None
        if method.gate:
            prompts = gate_input(loaded, self.data, self.split.train, batch_tokens, method.gate)
        template = SpecTemplate(
            method,
            self.config.model.path,
            "",
            weights_fingerprint(loaded.model),
            loaded.shape,
            self._tensors(scores),
            {"method": method.name, "behaviour": self.data.name},
            prompts,
            write_gains(loaded.model),
        )
        chosen = candidate_selections(method, scores, loaded.shape)
        return {k: template.spec(selected) for k, selected in chosen.items()}

    def _ranked(self, name: str, kind: ModuleKind) -> Iterator[LocalizerResult]:
        """Give what a localizer finds of modules of a kind, a layer each, in any order."""
        ranking = next(
            one
            for one in rankings_of(self.config)
            if (one.localizer.name, one.kind) == (name, kind)
        )
        localizer = LOCALIZERS.made(ranking.localizer.name, ranking.localizer.params)
        values, seen = self._read(ranking.kind, localizer.reading), self._seen()
        batch_tokens = self.config.evaluation.batch_tokens
        asked = access_given(localizer, self.loaded, self.data, self.split, batch_tokens)
        beside = self._beside(localizer, ranking.kind)
        n_layers = values.shape[1]
        for done, layer in enumerate(coarse_to_fine(n_layers)):
            if done and self.enough():
                break
            self.told("scores", done, n_layers)
            modules = self.loaded.shape.layer_modules(ranking.kind, layer)
            other = None if beside is None else beside[layer]
            here = values[:, layer].numpy()
            given = localizer_input(modules, here, *seen, self.loaded.device, other)
            given = replace(given, **asked)
            yield localizer.localize(given, self.config.seeds[0])
        self.told("scores", n_layers, n_layers)

    def _tensors(
        self, scores: Sequence[ModuleScore] | None
    ) -> dict[str, Float[Tensor, "layer module ..."]]:
        fitter = self.method.fitter
        assert fitter is not None
        entry = FITTERS[fitter.name]
        values = self._read(self.method.kind, entry.reading)
        layers = (values[:, layer].numpy() for layer in range(values.shape[1]))
        further: dict[str, Any] = {}
        if entry.access != "activations":
            batch_tokens = self.config.evaluation.batch_tokens
            further = model_given(self.loaded, self.data, self.split, batch_tokens)
        if entry.ranking:
            further["ranked"] = tuple(self._ranked(*entry.ranking))
        kind, seed = self.method.kind, self.config.seeds[0]
        beside = self._beside(entry, kind)
        only = None
        if scores is not None and self.method.trained_k:
            only = best_modules(scores, self.method.trained_k)
        return fitted_tensors(fitter, layers, *self._seen(), kind, seed, further, beside, only)

    def _beside(
        self, entry: Localizer | type[Fitter], kind: ModuleKind
    ) -> list[Float[np.ndarray, "sample one d_model"]] | None:
        """Return what a localizer or a fitter sees beside its own modules, layer by layer."""
        if kind not in entry.beside:
            return None
        return list(self._read(entry.beside[kind], entry.reading).numpy().swapaxes(0, 1))

    def _seen(self) -> tuple[BehaviourData, FoldSplit]:
        """Return the questions for training and validation alone, and which is for what."""
        chosen = [*self.split.train, *self.split.validation]
        data = replace(self.data, questions=tuple(self.data.questions[i] for i in chosen))
        n_train = len(self.split.train)
        parts = tuple(range(n_train)), tuple(range(n_train, len(chosen)))
        return data, FoldSplit(*parts, test=())

    def _read(self, kind: ModuleKind, reading: Reading) -> Float[Tensor, "sample layer module d"]:
        """Return what was read, once, of the questions that are seen."""
        if (kind, reading) in self._values:
            return self._values[kind, reading]
        data, _ = self._seen()
        pairs = [(one.question, one.answer) for one in samples_of(data)]
        parts = []
        for start in range(0, len(pairs), SHARD):
            self.told("activations", start, len(pairs))
            shard = pairs[start : start + SHARD]
            batch_tokens = self.config.extraction.batch_tokens
            parts.append(activations_of(self.loaded, data, shard, batch_tokens, kind, reading))
        self.told("activations", len(pairs), len(pairs))
        self._values[kind, reading] = torch.cat(parts)
        return self._values[kind, reading]


def coarse_to_fine(n: int) -> list[int]:
    """Return 0 to n - 1 so that wherever one stops, those before it are spread evenly.

    By the digits of their places in base 2, the last one first (van der Corput's sequence).
    """
    bits = max(n - 1, 1).bit_length()
    order = (int(f"{place:0{bits}b}"[::-1], 2) for place in range(2**bits))
    return [place for place in order if place < n]
