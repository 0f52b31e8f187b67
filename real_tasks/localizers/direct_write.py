"""How far heads themselves write along a direction of the residual stream (ThinkEdit).

Source: Sun et al. 2025, arXiv 2503.22048.
"""

from typing import ClassVar, Literal

from pydantic import Field

from real_tasks.localizers import LOCALIZERS, Localizer, ScoreMeaning
from real_tasks.localizers.checks import check_labels, check_values
from real_tasks.steering.fitters.mean_difference import mean_difference
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult, ModuleScore


class DirectWriteParams(Frozen):
    """Parameters of `direct_write`."""

    samples: Literal["difference", "violating"] = Field(
        "difference",
        description="difference: how much more a head writes along the direction for aligned than "
        "for violating answers; violating: how much it writes against it for violating ones, "
        "ThinkEdit's own score, which also ranks heads high that do so for both",
    )


@LOCALIZERS.register("direct_write")
class DirectWriteLocalizer(Localizer):
    """Ranks heads by ``v . W_h x_h``: mean activations sent through the head's columns of o_proj.

    The direction v, of length 1, is the difference of the class means between attention and
    feed-forward. Means are over the tokens of an answer, then over training answers.
    """

    Params: ClassVar[type[DirectWriteParams]] = DirectWriteParams
    uses_weights = True
    reading = "answer_mean"
    beside = {"head": "residual_mid"}
    label = "direct write"
    meaning = ScoreMeaning("score", "written along the direction", 0.0)
    explained = (
        "How much more a head writes along the direction that tells the answers apart, in units of "
        "the residual stream, for aligned than for violating answers (or as its parameters say). "
        "What later layers make of that is not seen."
    )
    place = 35
    params: DirectWriteParams

    def localize(self, data: LocalizerInput, seed: int) -> LocalizerResult:  # noqa: ARG002
        """Score every module of the shard; see `Localizer.localize`.

        Raises:
            UserInputError: NaN or infinity among the values, training questions with one label
                only, or no weights.
        """
        if data.weight is None or data.beside is None:
            raise UserInputError(
                "direct_write needs the model's weights and the residual stream: found no "
                "LocalizerInput.weight or LocalizerInput.beside; expected both, for heads"
            )
        check_values(data)
        check_labels(data, "training", data.train)
        labels, values = data.labels[data.train], data.values[:, data.train]
        v = mean_difference(data.beside[None, data.train], labels)[0].cpu()
        aligned, violating = (values[:, labels == label].mean(dim=1).cpu() for label in (1, 0))
        means = aligned - violating if self.params.samples == "difference" else -violating
        scores = tuple(
            ModuleScore(module, float(v @ (data.weight(module) @ mean)))
            for module, mean in zip(data.modules, means, strict=True)
        )
        return LocalizerResult("training", scores)
