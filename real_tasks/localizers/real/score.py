"""From what the fits say to behaviour-relevance scores and the evidence behind them."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from real_tasks.localizers.real.codebook import code_use, perplexity
from real_tasks.localizers.real.fitting import ShardFit
from real_tasks.localizers.real.params import Params
from real_tasks.localizers.real.plan import FitPlan
from real_tasks.localizers.roc import ranking_metrics, scored_modules
from real_tasks.localizers.seeding import generator
from real_tasks.vocabulary.types import LocalizerInput, ModuleScore


def module_scores(
    data: LocalizerInput, plan: FitPlan, fit: ShardFit, params: Params, seed: int
) -> tuple[ModuleScore, ...]:
    """Return the ROC-AUC of every module, over the answers that the plan scores, and its company.

    Perplexity and reconstruction loss are those of the scored answers, averaged over the fits; one
    collapsed codebook marks its module.
    """
    scored = torch.cat(plan.scored).sort().values
    metrics = ranking_metrics(
        _scores_of_samples(fit, plan, scored),
        data.labels.cpu()[scored],
        data.questions.cpu()[scored],
        params.bootstrap_samples,
        generator(seed, "bootstrap"),
    )
    return scored_modules(
        data.modules,
        metrics.roc_auc,
        metrics,
        perplexity=_perplexity(fit, plan, params),
        reconstruction_loss=_reconstruction_loss(fit, plan),
        collapsed=fit.collapsed.any(dim=0),
    )


def evidence(
    data: LocalizerInput, plan: FitPlan, fit: ShardFit, params: Params
) -> Mapping[str, Tensor]:
    """Return what pictures are drawn from, on the CPU.

    - `sample_scores` [module, train sample]: log-likelihood ratios, out of fold if cross-fitted;
    - `latent_samples` [sample']: the samples that fit 0's priors did not train on;
    - `latents` [module, sample', d/2], float16: their quantised latents under fit 0;
    - `codes` [module, sample', unit]: their codes under fit 0, uint8, or int16 beyond 256 codes;
    - `code_counts` [module, code]: how often those use every code.
    """
    unseen = ~torch.isin(torch.arange(len(data.labels)), torch.cat(plan.priors[0]))
    samples = unseen.nonzero().squeeze(1)
    codes = fit.codes[0][:, samples.to(fit.codes.device)]
    train = data.train.cpu().nonzero().squeeze(1)
    found = {
        "sample_scores": _scores_of_samples(fit, plan, train),
        "latents": fit.latents[:, samples.to(fit.latents.device)].half(),
        "latent_samples": samples,
        "codes": codes.to(torch.uint8 if params.codebook_size <= 256 else torch.int16),
        "code_counts": code_use(codes, params.codebook_size).sum(dim=1).long(),
    }
    return {name: values.cpu() for name, values in found.items()}


def _scores_of_samples(
    fit: ShardFit, plan: FitPlan, samples: Int[Tensor, "sample"]
) -> Float[Tensor, "module sample"]:
    """Return every sample's score by the fit that scores it; by fit 0 where none does."""
    owner = torch.zeros(fit.scores.shape[2], dtype=torch.int64)
    for index, scored in enumerate(plan.scored):
        owner[scored] = index
    return fit.scores.cpu()[owner[samples], :, samples].T


def _perplexity(fit: ShardFit, plan: FitPlan, params: Params) -> Float[Tensor, "module"]:
    by_fit = [
        perplexity(code_use(codes[:, scored.to(codes.device)], params.codebook_size).sum(dim=1))
        for codes, scored in zip(fit.codes, plan.scored, strict=True)
    ]
    return torch.stack(by_fit).mean(dim=0)


def _reconstruction_loss(fit: ShardFit, plan: FitPlan) -> Float[Tensor, "module"]:
    by_fit = [
        losses[:, scored.to(losses.device)].mean(dim=1)
        for losses, scored in zip(fit.reconstruction, plan.scored, strict=True)
    ]
    return torch.stack(by_fit).mean(dim=0)
