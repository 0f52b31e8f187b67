"""Causal scores: what a module does when it is steered alone, not what can be read out of it."""

from typing import Annotated, ClassVar

from pydantic import Field

from real_tasks.localizers import LOCALIZERS, Localizer, ScoreMeaning
from real_tasks.localizers.checks import check_labels, check_values
from real_tasks.steering.fitters import projection_sigma
from real_tasks.steering.fitters.mean_difference import mean_difference
from real_tasks.vocabulary.config import Frozen, PositiveInt
from real_tasks.vocabulary.errors import OverflowedError, UserInputError
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult, ModuleScore


class CausalParams(Frozen):
    """Parameters of `causal`."""

    alpha: Annotated[float, Field(gt=0)] = Field(
        3.0, description="how far each module is pushed, in standard deviations along its direction"
    )
    questions: PositiveInt = Field(
        32,
        title="Most questions",
        description="validation questions, evenly spaced, that the effect of a module is measured "
        "on; the time goes with them",
    )


@LOCALIZERS.register("causal")
class CausalLocalizer(Localizer):
    """Ranks a module by its own effect when it alone is steered, on validation questions.

    Every module is displaced by alpha * sigma * theta, with theta the mean difference and sigma the
    standard deviation along it, both of the training samples. Its score is what that does to
    validation questions, in nats of log-odds of the aligned answers. Costs a scoring of those for
    each module.

    Strengths are equal: an effect may be negative, and is measured for the very displacement that
    steering adds. There is no ROC-AUC, as samples have no score. Evidence: `sigmas` [module].
    """

    Params: ClassVar[type[CausalParams]] = CausalParams
    uses_effects = True
    label = "causal effect"
    meaning = ScoreMeaning("score", "effect when steered alone [nats]", 0.0)
    explained = (
        "What steering a module alone does to the aligned answers of validation questions, in nats "
        "of log-odds: 0 is nothing, below 0 it brings the violating ones out."
    )
    place = 30
    params: CausalParams

    @property
    def most_questions(self) -> int:
        """As the parameters say."""
        return self.params.questions

    def localize(self, data: LocalizerInput, seed: int) -> LocalizerResult:  # noqa: ARG002
        """Score every module of the shard; see `Localizer.localize`.

        Raises:
            UserInputError: no effects to measure with, NaN or infinity among the values,
                training questions with one label only, or displacements that overflow.
        """
        if data.effect is None:
            raise UserInputError(
                "the localizer causal needs the model, to measure what steering a module does; "
                "expected LocalizerInput.effect: give it one, as evaluation.effects.Effects"
            )
        check_values(data)
        check_labels(data, "training", data.train)
        values, labels = data.values[:, data.train], data.labels[data.train]
        thetas = mean_difference(values, labels)
        sigmas = projection_sigma(values, thetas)
        pushes = self.params.alpha * sigmas[:, None] * thetas
        try:
            scores = tuple(
                ModuleScore(module, score=data.effect(module, push))
                for module, push in zip(data.modules, pushes, strict=True)
            )
        except OverflowedError as error:
            raise UserInputError(
                f"the localizer causal, with its alpha of {self.params.alpha:g}: {error}; that "
                "alpha is among the params of the localizer"
            ) from error
        return LocalizerResult("validation", scores, {"sigmas": sigmas.cpu()})
