"""What fitters that are trained through the frozen model share: pairs of answers, and the loop."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import Fitter, FitterInput
from real_tasks.steering.model_access import ModelAccess, Text
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.scopes import Scope
from real_tasks.vocabulary.types import ModelShape, ModuleId

Pair = tuple[int, int]
"""Places of an aligned and a violating answer among the samples."""


@dataclass(frozen=True)
class Preferences:
    """Pairs of answers to one prompt, and what the model makes of them.

    Attributes:
        texts: of the samples.
        answers: by prompt, the places of its aligned and of its violating answers.
        before: the answers' log-probabilities without any edit, in nats.
    """

    model: ModelAccess
    texts: Sequence[Text]
    answers: Sequence[tuple[Sequence[int], Sequence[int]]]
    before: Float[Tensor, "sample"]

    @classmethod
    def of(cls, data: FitterInput, name: str) -> "Preferences":
        """Return the pairs of the training samples, for the fitter ``name``.

        Raises:
            UserInputError: no prompt has an aligned and a violating answer.
        """
        assert data.model is not None, "a fitter with gradients is given the model"
        found: dict[str, tuple[list[int], list[int]]] = {}
        for place, (text, label) in enumerate(zip(data.texts, data.labels.tolist(), strict=True)):
            found.setdefault(text.prompt, ([], []))[0 if label else 1].append(place)
        both = [answers for answers in found.values() if all(answers)]
        if not both:
            raise UserInputError(
                f"no training question has an aligned and a violating answer, which the fitter "
                f"{name} compares; give questions with both"
            )
        with torch.no_grad():
            before = data.model.log_probs(data.texts).cpu()
        return cls(data.model, data.texts, both, before)

    def drawn(self, count: int, draw: torch.Generator) -> list[Pair]:
        """Draw prompts, with replacement, and of each an aligned and a violating answer."""

        def one(among: Sequence[int]) -> int:
            return among[int(torch.randint(0, len(among), (), generator=draw))]

        prompts = torch.randint(0, len(self.answers), (count,), generator=draw).tolist()
        return [(one(self.answers[prompt][0]), one(self.answers[prompt][1])) for prompt in prompts]

    def log_probs(
        self, pairs: Sequence[Pair], intervention: Intervention
    ) -> Float[Tensor, "pair 2"]:
        """Return the answers' log-probabilities, the aligned first, differentiable in the edits."""
        chosen = [self.texts[place] for pair in pairs for place in pair]
        return self.model.log_probs(chosen, intervention).view(-1, 2)


class TrainedParams(Frozen):
    """How long it is trained."""

    steps: PositiveInt = Field(60, description="batches")
    batch: PositiveInt = Field(description="prompts in a batch, each with two answers")


class TrainedPush(Fitter):
    """Trains what is added to every module, for each alone; a strength of 1 adds it as it is."""

    gives = ("direction", "scale")
    access = "gradients"
    stochastic = True
    name = ""
    params: TrainedParams

    def tokens_read(self, shape: ModelShape, tokens: float, answers: float) -> float:  # noqa: ARG002
        """Return two answers a prompt, with gradients; see `Fitter.tokens_read`."""
        return 3.0 * self.params.steps * self.params.batch * 2 * tokens

    @abstractmethod
    def trained(
        self, pairs: Preferences, site: ModuleId, unit: float, width: int, draw: torch.Generator
    ) -> Float[Tensor, "d"]:
        """Return what is added to one module, the site, whose activations have ``width`` numbers.

        ``unit`` is their mean standard deviation; ``draw`` is for all that is random.
        """

    def fit(self, data: FitterInput, seed: int) -> dict[str, Float[Tensor, "module ..."]]:
        """Return unit vectors and lengths.

        Raises:
            UserInputError: no prompt has an aligned and a violating answer.
        """
        pairs, width = Preferences.of(data, self.name), data.values.shape[-1]
        pushes = []
        for site, values in zip(data.modules, data.values, strict=True):
            draw = torch.Generator().manual_seed(seed)
            unit = float(values.std(dim=0).mean())
            pushes.append(self.trained(pairs, site, unit, width, draw).detach())
        found = torch.stack(pushes).to(data.values)
        return {"direction": normalize(found, dim=-1), "scale": found.norm(dim=-1)}


def pushing(site: ModuleId, vector: Float[Tensor, "d"], scope: Scope = "all") -> Edit:
    """Return the edit that adds a vector, at a strength of 1 as it is."""
    one = torch.ones(1)
    return Edit((site,), {"direction": vector[None], "scale": one}, one, scope=scope)


def descend(
    loss: Callable[[], Float[Tensor, ""]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    steps: int,
    clipped: Sequence[Tensor] = (),
    after: Callable[[], None] = lambda: None,
) -> None:
    """Take steps against the gradient of a loss, which is computed anew for each.

    The gradient of ``clipped`` tensors is cut to a length of 1; ``after`` is done after each step.
    """
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        if clipped:
            torch.nn.utils.clip_grad_norm_(clipped, 1.0)
        optimizer.step()
        schedule.step()
        after()
