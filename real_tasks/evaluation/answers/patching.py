"""What a module's activation after good demonstrations does after shuffled ones: patching."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.evaluation.answers.effects import Effects
from real_tasks.models.loading import LoadedModel
from real_tasks.questions.folds import evenly_spaced
from real_tasks.questions.samples import with_shuffled_labels
from real_tasks.reading.activations import activations_at_last_token
from real_tasks.reading.prompts import prompt_text
from real_tasks.steering.edits import Edit
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.few_shot import FewShot
from real_tasks.vocabulary.scopes import PromptEnds
from real_tasks.vocabulary.types import BehaviourData, ModuleId, ModuleKind

BETWEEN = "\n\n"
"""Stands after every demonstration."""


class Patching:
    """Patches one module at the end of prompts (Todd et al. 2024, arXiv 2310.15213, section 2).

    A clean prompt is a training question after others with their best answers. A corrupted one is a
    question whose effect is measured, after the same others with answers drawn from all that they
    have, whatever the labels: what shows the behaviour is gone, subjects and form are the same.
    Demonstrations stand in the place of the behaviour's own preamble.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        data: BehaviourData,
        train: Sequence[int],
        asked: Sequence[int],
        few_shot: FewShot,
        batch_tokens: int,
    ) -> None:
        """Make the prompts, and read the corrupted ones.

        Questions of ``train`` are shown, and clean prompts ask them; corrupted prompts ask those of
        ``asked``, none of which is among them.

        Raises:
            UserInputError: too few training questions, or see `Effects`.
        """
        if len(train) <= few_shot.shots:
            raise UserInputError(
                f"shots of {few_shot.shots}, but {len(train)} training questions; expected more "
                "questions than shots, as one is asked after the others: give more questions, or "
                "fewer shots (as baselines: [{name: indirect_effect, params: {shots: 4}}])"
            )
        n = max(1, min(few_shot.contexts, len(asked)))
        self._loaded, self._batch_tokens = loaded, batch_tokens
        self._clean: list[str] = []
        self._effects: list[Effects] = []
        self._read: dict[ModuleKind, Float[Tensor, "prompt layer module d"]] = {}
        for i in range(n):
            first = i * len(train) // n
            shown = evenly_spaced((*train[first:], *train[:first]), few_shot.shots)
            rest = [index for index in train if index not in shown]
            clean = _after(data, data, shown)
            self._clean += [
                prompt_text(loaded, clean, data.questions[index])
                for index in evenly_spaced(rest, -(-few_shot.prompts // n))
            ]
            corrupted = _after(data, with_shuffled_labels(data, seed=i), shown)
            self._effects.append(Effects(loaded, corrupted, asked[i::n], batch_tokens))

    def shown(self, modules: tuple[ModuleId, ...]) -> Float[Tensor, "module prompt d"]:
        """Return modules of one kind at the last token of every clean prompt, on the CPU."""
        kind = modules[0].kind
        if kind not in self._read:
            self._read[kind] = activations_at_last_token(
                self._loaded, self._clean, self._batch_tokens, kind
            )
        read = self._read[kind]
        return torch.stack([read[:, one.layer, max(one.head, 0)] for one in modules])

    def __call__(self, module: ModuleId, value: Float[Tensor, "d"]) -> float:
        """Return by how much a value in a module's place raises the aligned answers' log-odds.

        In nats, a mean over the corrupted prompts; only the prompt's last token is touched.
        """
        edit = Edit(
            (module,),
            {"value": value[None]},
            torch.ones(1).to(value),
            OPERATORS.made("replace", {}),
            PromptEnds(last=1),
        )
        return float(torch.cat([one.changes(edit) for one in self._effects]).mean())


def _after(data: BehaviourData, answered: BehaviourData, shown: Iterable[int]) -> BehaviourData:
    """Return data whose prompts come after some of the questions with their best answers."""
    plain = replace(answered, preamble="")
    questions = [answered.questions[index] for index in shown]
    best = [next(a for a in one.answers if a.is_best) for one in questions]
    texts = map(plain.prompt_with_answer, questions, best)
    return replace(data, preamble="".join(text + BETWEEN for text in texts))
