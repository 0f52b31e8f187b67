"""What steering one module alone does to a behaviour: its causal relevance, in nats."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.models.loading import LoadedModel
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import BehaviourData, ModuleId


class Effects:
    """Measures what displacing one module does to questions; not for several threads.

    The effect is the mean change over questions, against the unsteered model, of the log-odds of
    the aligned answers: logsumexp of the log-likelihoods of the aligned answers minus that of the
    violating ones, in nats. A question that is put in several ways counts as their mean. Every
    position is steered, prompt included.
    """

    def __init__(
        self, loaded: LoadedModel, data: BehaviourData, questions: Sequence[int], batch_tokens: int
    ) -> None:
        """Encode the questions once, and read the unsteered model.

        A localizer may see validation questions, never test questions.

        Raises:
            UserInputError: no questions, or one without answers of both labels.
        """
        self._loaded = loaded
        self._labels = [
            [torch.tensor([answer.label for answer in way.answers]) == 1 for way in ways]
            for ways in (data.questions[index].presentations for index in questions)
        ]
        _check_labels(data, questions, self._labels)
        self._encoded = encode_choices(loaded, data, questions, batch_tokens)
        self._unsteered = self.log_odds(None)

    def __call__(self, module: ModuleId, displacement: Float[Tensor, "d"]) -> float:
        """Return the effect in nats of adding ``displacement`` to one module."""
        one = torch.ones(1).to(displacement)
        push = Edit((module,), {"direction": displacement[None], "scale": one}, one)
        return float(self.changes(push).mean())

    def changes(self, edit: Edit) -> Float[Tensor, "question"]:
        """Return by how much an edit raises every question's log-odds, in nats."""
        return self.log_odds(Intervention((edit,))) - self._unsteered

    def log_odds(self, intervention: Intervention | None) -> Float[Tensor, "question"]:
        """Return every question's log-odds of the aligned answers, in nats."""
        rows = iter(score_choices(self._loaded, self._encoded, intervention))
        means = [
            sum(_log_odds(next(rows), aligned) for aligned in ways) / len(ways)
            for ways in self._labels
        ]
        return torch.tensor(means, dtype=torch.float64)


def _log_odds(log_likelihoods: Sequence[float], aligned: Tensor) -> float:
    row = torch.tensor(log_likelihoods, dtype=torch.float64)
    return float(row[aligned].logsumexp(0) - row[~aligned].logsumexp(0))


def _check_labels(
    data: BehaviourData, questions: Sequence[int], labels: Sequence[Sequence[Tensor]]
) -> None:
    if not questions:
        raise UserInputError(
            "no questions to measure effects on; expected at least one validation question: raise "
            "data.validation_share or give more questions"
        )
    for index, ways in zip(questions, labels, strict=True):
        if any(bool(way.all()) or not bool(way.any()) for way in ways):
            raise UserInputError(
                f"question {data.questions[index].question_id!r} has answers of one label only; "
                "expected aligned and violating ones: its log-odds are not defined without both"
            )
