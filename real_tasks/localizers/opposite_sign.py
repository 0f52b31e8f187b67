"""Layers whose class means lie on opposite sides of zero (Selective Steering, arXiv 2601.19375)."""

import torch
from torch.nn.functional import normalize

from real_tasks.localizers import LOCALIZERS, Localizer, ScoreMeaning
from real_tasks.localizers.checks import check_labels, check_values
from real_tasks.steering.fitters.mean_difference import mean_difference
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult, ModuleScore


@LOCALIZERS.register("opposite_sign")
class OppositeSign(Localizer):
    """Asks whether zero lies between the class means along a module's own mean difference.

    Every activation is divided by its length first, as in the release. Where zero lies between, the
    score is the distance of the means, else less than 0: that of zero from the nearer one, taken
    away; both in standard deviations within the classes. The release keeps or drops a layer and
    takes one direction for all; here layers are ranked, and each has its own. A constant that all
    activations share can hide a difference: zero is where the network has it.

    Evidence: `class_means` [module, 2], of the violating and the aligned, in the same unit.
    """

    label = "opposite signs"
    meaning = ScoreMeaning("score", "distance of class means in SD (below 0: on one side)", 0.0)
    explained = (
        "How far apart the means of aligned and violating answers lie along their difference, if "
        "zero lies between them; below 0 if it does not. On the questions that the direction is "
        "found on: a distance says little where there are fewer answers than dimensions."
    )

    def localize(self, data: LocalizerInput, seed: int) -> LocalizerResult:  # noqa: ARG002
        """Score every module of the shard; see `Localizer.localize`.

        Raises:
            UserInputError: NaN or infinity among the values, or training questions with one label.
        """
        check_values(data)
        check_labels(data, "training", data.train)
        labels = data.labels[data.train]
        values = data.values[:, data.train]
        direction = mean_difference(values, labels)
        along = torch.einsum("msd,md->ms", normalize(values, dim=-1), direction).double()
        parts = [along[:, labels == label] for label in (0, 1)]
        within = torch.stack([part.var(dim=1, correction=0) for part in parts]).mean(dim=0).sqrt()
        means = torch.stack([part.mean(dim=1) for part in parts], dim=1)
        means = means / within.clamp_min(1e-12)[:, None]
        apart = (means[:, 1] - means[:, 0]).abs()
        opposite = means.prod(dim=1) < 0
        scores = torch.where(opposite, apart, -means.abs().amin(dim=1)).tolist()
        found = [ModuleScore(*pair) for pair in zip(data.modules, scores, strict=True)]
        return LocalizerResult("training", tuple(found), {"class_means": means.float().cpu()})
