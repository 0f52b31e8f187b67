"""Average indirect effects of patching (function vectors, Todd et al. 2024, arXiv 2310.15213)."""

from typing import ClassVar

from pydantic import Field

from real_tasks.localizers import LOCALIZERS, Localizer, ScoreMeaning
from real_tasks.localizers.checks import check_labels, check_values
from real_tasks.vocabulary.config import PositiveInt
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.few_shot import FewShot
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult, ModuleScore


class IndirectEffectParams(FewShot):
    """Parameters of `indirect_effect`; the defaults are those of the paper's release."""

    questions: PositiveInt = Field(
        25,
        title="Most questions",
        description="validation questions, evenly spaced, that modules are patched on",
    )


@LOCALIZERS.register("indirect_effect")
class IndirectEffectLocalizer(Localizer):
    """Ranks a module by what its mean after good demonstrations does after shuffled ones.

    The mean is of the module's activation at the last token of prompts that come after training
    questions with their best answers. It is put in the place of the module's own at the last token
    of prompts whose demonstrations have shuffled answers; the score is by how much that raises the
    log-odds of the aligned answers, in nats, on average over validation questions.

    Evidence: `means` [module, d].
    """

    Params: ClassVar[type[IndirectEffectParams]] = IndirectEffectParams
    uses_effects = True
    label = "indirect effect"
    meaning = ScoreMeaning("score", "indirect effect when patched alone [nats]", 0.0)
    explained = (
        "What a module alone, patched with its mean after good demonstrations, does to the aligned "
        "answers after shuffled ones, in nats of log-odds: 0 is nothing."
    )
    place = 31
    params: IndirectEffectParams

    @property
    def most_questions(self) -> int:
        """As the parameters say."""
        return self.params.questions

    @property
    def few_shot(self) -> FewShot:
        """As the parameters say."""
        return self.params

    def localize(self, data: LocalizerInput, seed: int) -> LocalizerResult:  # noqa: ARG002
        """Score every module of the shard; see `Localizer.localize`.

        Raises:
            UserInputError: nothing to patch with, NaN or infinity among the values, or training
                questions with one label only.
        """
        if data.effect is None or data.shown is None:
            raise UserInputError(
                "the localizer indirect_effect needs the model, to patch modules; expected "
                "LocalizerInput.effect and shown: give it evaluation.answers.patching.Patching"
            )
        check_values(data)
        check_labels(data, "training", data.train)
        means = data.shown(data.modules).mean(dim=1)
        scores = tuple(
            ModuleScore(module, score=data.effect(module, mean))
            for module, mean in zip(data.modules, means, strict=True)
        )
        return LocalizerResult("validation", scores, {"means": means.cpu()})
