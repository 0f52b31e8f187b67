"""REAL: a module is as relevant as its discrete codes tell aligned answers from violating ones.

One way through the files: `plan` (who trains on what) -> `fitting` (`vqae` with `codebook` and
`contrastive`, then `prior`; `parameters` below them) -> `score`. `chunks` runs a shard.
Source: arXiv 2506.08359.
"""

from typing import ClassVar

import torch

from real_tasks.localizers import LOCALIZERS, Localizer, ScoreMeaning
from real_tasks.localizers.checks import check_labels, check_values
from real_tasks.localizers.real import costs
from real_tasks.localizers.real.chunks import chunks_of_modules, map_chunks
from real_tasks.localizers.real.fitting import ShardFit, ShardProgram, bytes_per_module
from real_tasks.localizers.real.params import PUBLISHED
from real_tasks.localizers.real.params import Params as RealParams
from real_tasks.localizers.real.plan import FitPlan, cross_fit_plan, release_plan
from real_tasks.localizers.real.score import evidence, module_scores
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult


@LOCALIZERS.register("real")
class RealLocalizer(Localizer):
    """VQ-AE, two priors over its codes, and the ROC-AUC of their log-likelihood ratio.

    The result's protocol is `cross_fit` or `release`; its evidence is listed at `score.evidence`.
    """

    Params: ClassVar[type[RealParams]] = RealParams
    PUBLISHED: ClassVar[RealParams] = PUBLISHED
    weighting = "score"
    stochastic = True
    label = "REAL"
    meaning = ScoreMeaning("roc_auc", "ROC-AUC (0.5: chance)", 0.5)
    explained = (
        "How well a head's codes tell aligned from violating answers to questions that its encoder "
        "never saw: 0.5 is chance, 1 is perfect. It says that the head carries the information. It "
        "does not say that steering through the head changes what the model says: AUC is not a "
        "causal effect, the table of results is."
    )
    place = 10
    params: RealParams

    def check(self, d: int) -> None:
        """Check that ``units`` cuts the latent of modules of width ``d`` into equal groups.

        Raises:
            UserInputError: it does not; the message lists the values that do.
        """
        units, latent = self.params.units, d // 2
        if d % 2 == 0 and latent % units == 0:
            return
        fitting = [n for n in range(1, latent + 1) if d % 2 == 0 and latent % n == 0]
        raise UserInputError(
            f"units={units} does not divide the latent width {latent} of modules of width {d}; "
            + (
                f"set units (localizer.params.units) to one of {fitting}"
                if fitting
                else "the modules' width must be even: choose another module_kind or localizer"
            )
        )

    def localize(self, data: LocalizerInput, seed: int) -> LocalizerResult:
        """Score every module of the shard; see `Localizer.localize`.

        Raises:
            UserInputError: NaN or infinity among the values, one label only, too few questions or
                answers, or a latent width that `units` does not divide.
        """
        self.check(data.values.shape[2])
        check_values(data)
        check_labels(data, "training", data.train)
        if self.params.protocol == "release":
            plan = release_plan(data, seed)
        else:
            plan = cross_fit_plan(data, self.params.cross_folds, seed)
        self._check_codebook(plan)
        fit = fit_shard(data, plan, self.params, seed)
        scores = module_scores(data, plan, fit, self.params, seed)
        return LocalizerResult(self.params.protocol, scores, evidence(data, plan, fit, self.params))

    def flops(self, d: int, n_train: float) -> float:
        """Count the training of all fits, see `costs.flops`."""
        return costs.flops(self.params, d, n_train)

    def peak_bytes(self, d: int, n_modules: int, n_train: float, n_seen: float) -> int:
        """Estimate the peak on an accelerator, see `costs.peak_bytes`."""
        return costs.peak_bytes(self.params, d, n_modules, n_train, n_seen)

    def _check_codebook(self, plan: FitPlan) -> None:
        groups = min(len(samples) for samples in plan.autoencoder) * self.params.units
        if groups < self.params.codebook_size:
            raise UserInputError(
                f"codebook_size={self.params.codebook_size} exceeds the {groups} code vectors of a "
                f"fit's training answers; set it to at most {groups} or give more questions"
            )


@torch.no_grad()
def fit_shard(data: LocalizerInput, plan: FitPlan, params: RealParams, seed: int) -> ShardFit:
    """Fit all modules of the shard, by chunks, and put the chunks together again."""

    def run(chunk: range) -> ShardFit:
        part = slice(chunk.start, chunk.stop)
        with torch.no_grad():  # A thread of its own does not inherit it.
            program = ShardProgram(data.values[part], data.modules[part], plan, params, seed)
            return program.run(data.labels)

    device = data.values.device
    size = bytes_per_module(data.values.shape[2], plan, params)
    fits = map_chunks(run, chunks_of_modules(len(data.modules), size, device), device)
    return ShardFit(
        scores=torch.cat([fit.scores for fit in fits], dim=1),
        reconstruction=torch.cat([fit.reconstruction for fit in fits], dim=1),
        codes=torch.cat([fit.codes for fit in fits], dim=1),
        latents=torch.cat([fit.latents for fit in fits]),
        collapsed=torch.cat([fit.collapsed for fit in fits], dim=1),
    )
