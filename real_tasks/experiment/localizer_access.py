"""What localizers that ask for the model are given of it."""

from typing import Any

from real_tasks.evaluation.answers.effects import Effects
from real_tasks.evaluation.answers.patching import Patching
from real_tasks.evaluation.model_handle import ModelHandle
from real_tasks.localizers import Localizer
from real_tasks.models.loading import LoadedModel
from real_tasks.questions.folds import evenly_spaced
from real_tasks.vocabulary.types import BehaviourData, FoldSplit


def access_given(
    made: Localizer, loaded: LoadedModel, data: BehaviourData, split: FoldSplit, batch_tokens: int
) -> dict[str, Any]:
    """Return what a localizer asks for, as `LocalizerInput` takes it: never a test question.

    Raises:
        UserInputError: the questions do not allow it.
    """
    given: dict[str, Any] = {}
    asked = evenly_spaced(split.validation, made.most_questions)
    if made.few_shot:
        patching = Patching(loaded, data, split.train, asked, made.few_shot, batch_tokens)
        given |= {"effect": patching, "shown": patching.shown}
    elif made.uses_effects:
        given["effect"] = Effects(loaded, data, asked, batch_tokens)
    if made.uses_weights:
        given["weight"] = ModelHandle(loaded, batch_tokens).written_by
    return given
