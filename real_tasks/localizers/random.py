"""Random scores: what a selection is worth that knows nothing."""

import torch

from real_tasks.localizers import LOCALIZERS, Localizer, ScoreMeaning
from real_tasks.localizers.seeding import module_generator
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult, ModuleScore


@LOCALIZERS.register("random")
class RandomLocalizer(Localizer):
    """Scores uniform in [0, 1), drawn from the seed and the module's identity."""

    stochastic = True
    label = "random modules"
    meaning = ScoreMeaning("score", "random number (means nothing)")
    place = 60

    def localize(self, data: LocalizerInput, seed: int) -> LocalizerResult:
        """Draw a score for every module; the activations are not looked at."""
        scores = [
            ModuleScore(
                module, float(torch.rand((), generator=module_generator(seed, module, 0, "random")))
            )
            for module in data.modules
        ]
        return LocalizerResult("none", tuple(scores))
