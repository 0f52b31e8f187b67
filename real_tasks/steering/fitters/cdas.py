"""A coordinate that carries what a condition changes, by interchange (CDAS, arXiv 2602.05234)."""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import FITTERS, Fitter, FitterInput
from real_tasks.steering.fitters.trained import TrainedParams, descend
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModelShape, ModuleId

Ways = tuple[list[int], list[int]]
"""Places of the same answers, in one order, under the condition and under another."""


class CDASParams(TrainedParams):
    """How the direction is trained."""

    condition: str = Field("", description="the condition to clamp to, as the data name it")
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        0.04, description="of AdamW, of a length 1"
    )
    batch: PositiveInt = Field(8, description="questions in a batch, each in both directions")


@FITTERS.register("cdas")
class CDAS(Fitter):
    """Finds the unit vector whose coordinate, set to the other prompt's, gives its answers.

    A question is asked under two conditions. Read under one, with the coordinate at the end of the
    other prompt at every position, the model is to find its answers as probable as it does under
    the other: the Jensen-Shannon divergence between the two goes down, over the answers that both
    have. The target is the mean coordinate at the end of the prompts of the condition.

    As it goes both ways, the divergence is the same where the conditions change places; and fewer
    questions than the activations have dimensions leave many vectors that make it 0.
    """

    Params = CDASParams
    gives = ("direction", "target")
    access = "gradients"
    asks = frozenset({"conditions"})
    reading = "prompt_end"
    stochastic = True
    params: CDASParams

    def check(self, data: FitterInput) -> None:
        """Check that there are questions that are asked under the condition and another.

        Raises:
            UserInputError: there are none.
        """
        self._ways(data)

    def tokens_read(self, shape: ModelShape, tokens: float, answers: float) -> float:  # noqa: ARG002
        """Return a question's answers in both directions, with gradients; see `Fitter`."""
        return 3.0 * self.params.steps * self.params.batch * 2 * answers * tokens

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:
        """Return unit vectors and targets; every module's is trained alone.

        Raises:
            UserInputError: see `check`.
        """
        assert data.model is not None, "a fitter with gradients is given the model"
        ways = self._ways(data)
        with torch.no_grad():
            before = data.model.log_probs(data.texts).cpu()
        own = torch.tensor(
            [_name(data, place) == self.params.condition for place in range(len(data.conditions))]
        )
        found = torch.stack(
            [
                self._trained(data, place, ways, before, torch.Generator().manual_seed(seed))
                for place in range(len(data.modules))
            ]
        ).to(data.values)
        target = torch.einsum("msd,md->ms", data.values[:, own], found).mean(dim=1)
        return {"direction": found, "target": target}

    def _ways(self, data: FitterInput) -> list[Ways]:
        wanted, there = self.params.condition, sorted({*data.condition_names})
        if wanted not in there or len(there) < 2:
            raise UserInputError(
                f"fitter.params.condition is {wanted!r}; expected one of several conditions of the "
                f"training questions: {', '.join(there) or 'none'}"
            )
        sides: dict[int, dict[bool, dict[str, int]]] = {}
        for place, question in enumerate(data.questions.tolist()):
            if name := _name(data, place):
                text = data.texts[place]
                side = sides.setdefault(question, {}).setdefault(name == wanted, {})
                side.setdefault(text.whole[len(text.prompt) :], place)
        ways = []
        for found in sides.values():
            under, other = found.get(True, {}), found.get(False, {})
            shared = [answer for answer in under if answer in other]
            ways.append(([under[a] for a in shared], [other[a] for a in shared]))
        ways = [way for way in ways if len(way[0]) > 1]
        if not ways:
            raise UserInputError(
                f"no training question is asked under {wanted!r} and under another condition with "
                "two answers that are the same; join such questions by a field pair"
            )
        return ways

    def _trained(
        self,
        data: FitterInput,
        place: int,
        ways: Sequence[Ways],
        before: Float[Tensor, "sample"],
        draw: torch.Generator,
    ) -> Float[Tensor, "d"]:
        params, values = self.params, data.values[place]
        vector = normalize(torch.randn(values.shape[-1], generator=draw), dim=0).requires_grad_()
        optimizer = torch.optim.AdamW([vector], lr=params.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / params.steps)

        def loss() -> Float[Tensor, ""]:
            drawn = torch.randint(0, len(ways), (params.batch,), generator=draw).tolist()
            sides = [way for i in drawn for way in (ways[i], ways[i][::-1])]
            return torch.stack(
                [self._divergence(data, place, vector, before, *way) for way in sides]
            ).mean()

        def unit_length() -> None:
            with torch.no_grad():
                vector.div_(vector.norm())

        descend(loss, optimizer, schedule, params.steps, clipped=[vector], after=unit_length)
        return vector.detach()

    def _divergence(
        self,
        data: FitterInput,
        place: int,
        vector: Float[Tensor, "d"],
        before: Float[Tensor, "sample"],
        base: Sequence[int],
        source: Sequence[int],
    ) -> Float[Tensor, ""]:
        """Return how far the base with the source's coordinate is from the source, in nats."""
        assert data.model is not None
        # So the gradient is along the unit sphere. With what points off it, Adam's steps, of one
        # size in all coordinates, end at the direction's signs: a cosine of sqrt(2 / pi).
        unit = normalize(vector, dim=0)
        edit = interchange(data.modules[place], unit, data.values[place, source[0]])
        texts = [data.texts[one] for one in base]
        return jensen_shannon(
            data.model.log_probs(texts, Intervention((edit,))), before[list(source)]
        )


def interchange(site: ModuleId, vector: Float[Tensor, "d"], source: Float[Tensor, "d"]) -> Edit:
    """Return the edit that sets the coordinate along a unit vector to that of other activations."""
    tensors = {"direction": vector[None], "target": (source @ vector)[None]}
    return Edit((site,), tensors, torch.ones(1), operator=OPERATORS.made("clamp", {}))


def jensen_shannon(
    one: Float[Tensor, "answer"], other: Float[Tensor, "answer"]
) -> Float[Tensor, ""]:
    """Return the divergence in nats of answers' log-probabilities, as shares of these answers."""
    sides = [side.float().log_softmax(0) for side in (one, other.to(one))]
    middle = torch.stack(sides).logsumexp(0) - torch.log(torch.tensor(2.0))
    return torch.stack([(side.exp() * (side - middle)).sum() for side in sides]).mean()


def _name(data: FitterInput, place: int) -> str:
    number = data.conditions[place]
    return data.condition_names[number] if number >= 0 else ""
