"""A vector trained through the frozen model in both directions at once (BiPO, arXiv 2406.00045)."""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.steering.model_access import ModelAccess, Text
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError

Positive = Annotated[float, Field(gt=0)]


class BiPOParams(Frozen):
    """How the vector is trained."""

    beta: Positive = Field(0.1, description="inverse temperature of the preference")
    learning_rate: Positive = Field(
        0.1, description="of AdamW, in mean standard deviations of the activations"
    )
    steps: PositiveInt = Field(60, description="batches")
    batch: PositiveInt = Field(4, description="prompts in a batch, each with two answers")


@FITTERS.register("bipo")
class BiPO(Fitter):
    """Adds a vector so that aligned answers gain on violating ones, and taken away so they lose.

    Of each batch a sign m is drawn, and ``-log sigmoid(beta m D)`` goes down, where D is by how
    much the vector, added m times at every position, raises the log-odds of the aligned answer over
    those of the model as it is. No weight decay, as the release runs; the learning rate is in the
    activations' own units, for models of any scale, and falls along a cosine.
    """

    Params = BiPOParams
    gives = ("direction", "scale")
    access = "gradients"
    stochastic = True
    params: BiPOParams

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:
        """Return unit vectors and lengths; every module's is trained alone.

        Raises:
            UserInputError: no prompt has an aligned and a violating answer.
        """
        assert data.model is not None, "a fitter with gradients is given the model"
        answers = _by_prompt(data)
        with torch.no_grad():
            before = data.model.log_probs(data.texts).cpu()
        vectors = []
        for place in range(len(data.modules)):
            draw = torch.Generator().manual_seed(seed)
            vectors.append(self._trained(data, place, answers, before, draw))
        found = torch.stack(vectors).to(data.values)
        return {"direction": normalize(found, dim=-1), "scale": found.norm(dim=-1)}

    def _trained(
        self,
        data: FitterInput,
        place: int,
        answers: Sequence[tuple[list[int], list[int]]],
        before: Float[Tensor, "sample"],
        draw: torch.Generator,
    ) -> Float[Tensor, "d"]:
        assert data.model is not None
        unit = float(data.values[place].std(dim=0).mean())
        vector = torch.zeros(data.values.shape[-1], requires_grad=True)
        optimizer = torch.optim.AdamW(
            [vector], lr=self.params.learning_rate, weight_decay=0.0, betas=(0.9, 0.999)
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.params.steps)
        for _ in range(self.params.steps):
            sign = float(torch.randint(0, 2, (), generator=draw)) * 2 - 1
            chosen = _drawn(answers, self.params.batch, draw)
            one = torch.ones(1)
            tensors = {"direction": (unit * vector)[None], "scale": one}
            edit = Edit((data.modules[place],), tensors, one)
            now = _margins(data.model, data.texts, chosen, Intervention((edit,), sign))
            gained = now - _differences(before, chosen).to(now)
            loss = -logsigmoid(self.params.beta * sign * gained).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return unit * vector.detach()


Pair = tuple[int, int]


def _by_prompt(data: FitterInput) -> list[tuple[list[int], list[int]]]:
    """Return the places of each prompt's aligned and violating answers."""
    found: dict[str, tuple[list[int], list[int]]] = {}
    for place, (text, label) in enumerate(zip(data.texts, data.labels.tolist(), strict=True)):
        found.setdefault(text.prompt, ([], []))[0 if label else 1].append(place)
    both = [answers for answers in found.values() if all(answers)]
    if not both:
        raise UserInputError(
            "no training question has an aligned and a violating answer, which the fitter bipo "
            "compares; give questions with both"
        )
    return both


def _drawn(
    answers: Sequence[tuple[list[int], list[int]]], count: int, draw: torch.Generator
) -> list[Pair]:
    def one(among: Sequence[int]) -> int:
        return among[int(torch.randint(0, len(among), (), generator=draw))]

    prompts = torch.randint(0, len(answers), (count,), generator=draw).tolist()
    return [(one(answers[prompt][0]), one(answers[prompt][1])) for prompt in prompts]


def _margins(
    model: ModelAccess, texts: Sequence[Text], pairs: Sequence[Pair], intervention: Intervention
) -> Float[Tensor, "pair"]:
    chosen = [texts[place] for pair in pairs for place in pair]
    aligned, violating = model.log_probs(chosen, intervention).view(-1, 2).unbind(1)
    return aligned - violating


def _differences(
    log_probs: Float[Tensor, "sample"], pairs: Sequence[Pair]
) -> Float[Tensor, "pair"]:
    aligned, violating = torch.tensor(pairs).unbind(1)
    return log_probs[aligned] - log_probs[violating]
