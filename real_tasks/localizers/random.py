"""Random scores: what a selection is worth that knows nothing."""

from typing import ClassVar, Literal

import torch

from real_tasks.localizers import LOCALIZERS
from real_tasks.localizers.seeding import module_generator
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult, ModuleScore


class RandomParams(Frozen):
    """The random localizer has no parameters."""


@LOCALIZERS.register("random")
class RandomLocalizer:
    """Scores uniform in [0, 1), drawn from the seed and the module's identity."""

    Params: ClassVar[type[RandomParams]] = RandomParams
    weighting: ClassVar[Literal["score", "equal"]] = "equal"
    stochastic: ClassVar[bool] = True
    uses_effects: ClassVar[bool] = False

    def __init__(self, params: RandomParams) -> None:
        """Keep the parameters."""
        self.params = params

    def check(self, d: int) -> None:
        """Accept modules of any width ``d``."""

    def localize(self, data: LocalizerInput, seed: int) -> LocalizerResult:
        """Draw a score for every module; the activations are not looked at."""
        scores = [
            ModuleScore(
                module, float(torch.rand((), generator=module_generator(seed, module, 0, "random")))
            )
            for module in data.modules
        ]
        return LocalizerResult("none", tuple(scores))
