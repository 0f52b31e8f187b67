"""CDAS against a planted coordinate, a plain loop, and on a tiny model."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from real_tasks.evaluation.model_handle import ModelHandle
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.fitters.cdas import interchange, jensen_shannon
from real_tasks.steering.model_access import Text
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId
from tests.unit.tiny_models import tiny_loaded

D, N = 64, 100
SITE = ModuleId("layer", 1)
PLANTED = normalize(torch.randn(D, generator=torch.Generator().manual_seed(3)), dim=0)


class ReadOut:
    """Prefers the answer + by as much as a prompt's activation goes along the planted direction."""

    def __init__(self, activations: dict[str, Tensor]) -> None:
        self.activations = activations

    def log_probs(self, texts: list[Text], intervention: Intervention | None = None) -> Tensor:
        x = torch.stack([self.activations[text.prompt] for text in texts])
        if intervention is not None:
            (edit,) = intervention.edits
            strength = torch.ones(len(texts), 1, 1)
            x = edit.operator.apply(x[:, None, None], edit.tensors, strength)[:, 0, 0]
        signs = torch.tensor([1.0 if text.whole.endswith("+") else -1.0 for text in texts])
        return torch.nn.functional.logsigmoid(signs * (x @ PLANTED))


class Deaf(ReadOut):
    """Finds all answers as probable, whatever the activations."""

    def log_probs(self, texts: list[Text], intervention: Intervention | None = None) -> Tensor:
        moved = 0.0 if intervention is None else intervention.edits[0].tensors["target"].sum()
        return torch.zeros(len(texts)) + 0 * moved


def asked(n: int = N, seed: int = 0) -> FitterInput:
    """Return questions under two conditions, which move their activations along the direction."""
    draw = torch.Generator().manual_seed(seed)
    prompts = [f"{how} {i}" for i in range(n) for how in ("calm", "none")]
    noise = torch.randn(len(prompts), D, generator=draw)
    side = torch.tensor([1.5, -1.5] * n)[:, None]
    activations = dict(zip(prompts, noise + side * PLANTED, strict=True))
    texts = tuple(Text(prompt, f"{prompt} {sign}") for prompt in prompts for sign in "+-")
    values = torch.stack([activations[text.prompt] for text in texts])
    return FitterInput(
        (SITE,),
        values[None],
        torch.tensor([1, 0] * len(prompts)),
        torch.arange(len(texts)) // 4,
        conditions=tuple(place // 2 % 2 for place in range(len(texts))),
        condition_names=("calm", "none"),
        texts=texts,
        model=cast(Any, ReadOut(activations)),
    )


def divergence(data: FitterInput, edit: Edit | None) -> float:
    """Return the mean over questions, read under none, against what they get under calm."""
    model, found = cast(ReadOut, data.model), []
    for start in range(0, len(data.texts), 4):
        calm, none = (list(data.texts[start + i : start + i + 2]) for i in (0, 2))
        if edit is not None:
            edit = interchange(SITE, edit.tensors["direction"][0], data.values[0, start])
        steered = model.log_probs(none, Intervention((edit,)) if edit else None)
        found.append(float(jensen_shannon(steered, model.log_probs(calm))))
    return sum(found) / len(found)


def test_the_planted_direction_is_found_and_interchange_closes_the_gap() -> None:
    data = asked()
    found = FITTERS.made("cdas", {"condition": "calm"}).fit(data, 0)
    direction, target = found["direction"], float(found["target"][0])
    assert direction.shape == (1, D) and float(direction.norm()) == pytest.approx(1, abs=1e-5)
    cosine = float(direction[0] @ PLANTED)
    assert abs(cosine) > 0.95
    mean = data.values[0, [place for place, one in enumerate(data.conditions) if one == 0]].mean(0)
    assert target == pytest.approx(float(mean @ direction[0]), abs=1e-4)
    new = asked(20, seed=9)
    edit = interchange(SITE, direction[0], new.values[0, 0])
    assert divergence(new, edit) < 0.1 * divergence(new, None)
    for condition, sign in (("calm", 1.0), ("none", -1.0)):
        clamped = FITTERS.made("cdas", {"condition": condition}).fit(data, 0)
        x = torch.randn(50, 1, 1, D, generator=torch.Generator().manual_seed(1))
        moved = edit.operator.apply(x, clamped, torch.ones(50, 1, 1))[:, 0, 0] @ PLANTED
        assert bool((sign * moved > 0).all())


def test_a_gap_that_all_questions_share_gives_the_direction_and_not_its_signs() -> None:
    """Every gradient then points along it: Adam's steps are alike in all coordinates."""
    data = asked(20)
    own = data.values[0].clone()
    for question in range(20):
        own[4 * question + 2 : 4 * question + 4] = own[4 * question] - 3 * PLANTED
    prompts = {text.prompt: own[place] for place, text in enumerate(data.texts)}
    shared = replace(data, values=own[None], model=cast(Any, ReadOut(prompts)))
    found = FITTERS.made("cdas", {"condition": "calm"}).fit(shared, 0)["direction"][0]
    assert abs(float(found @ PLANTED)) > 0.98


def test_conditions_that_change_places_give_the_same_direction() -> None:
    """The loss goes both ways, so that pairs with swapped conditions are no control of it."""
    data = asked(20)
    swapped = [1 - one if place // 4 % 2 else one for place, one in enumerate(data.conditions)]
    made = FITTERS.made("cdas", {"condition": "calm", "steps": 10})
    before = made.fit(data, 0)["direction"]
    after = made.fit(replace(data, conditions=tuple(swapped)), 0)["direction"]
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)


def test_where_answers_do_not_depend_on_activations_the_direction_stays_as_drawn() -> None:
    data = asked()
    found = FITTERS.made("cdas", {"condition": "calm"}).fit(
        replace(data, model=cast(Any, Deaf({}))), 0
    )
    drawn = normalize(torch.randn(D, generator=torch.Generator().manual_seed(0)), dim=0)
    torch.testing.assert_close(found["direction"][0], drawn)
    assert abs(float(drawn @ PLANTED)) < 3 / D**0.5


def test_steps_are_those_of_a_plain_loop() -> None:
    data = asked(1)
    made = FITTERS.made("cdas", {"condition": "calm", "steps": 3, "batch": 1})
    found = made.fit(data, 7)["direction"][0]
    first = torch.randn(D, generator=torch.Generator().manual_seed(7))
    v = (first / first.norm()).requires_grad_()
    optimizer = torch.optim.Adam([v])
    calm, none = data.values[0, 0], data.values[0, 2]
    for step in range(3):
        terms = []
        for base, source in ((calm, none), (none, calm)):
            w = v / v.norm()
            moved = base + (w @ source - w @ base) * w
            p, q = (
                torch.stack([s, 1 - s]) for x in (moved, source) for s in [(x @ PLANTED).sigmoid()]
            )
            m = (p + q) / 2
            terms.append((p * (p / m).log()).sum() / 2 + (q * (q / m).log()).sum() / 2)
        optimizer.zero_grad()
        ((terms[0] + terms[1]) / 2).backward()
        assert v.grad is not None
        v.grad *= min(1.0, 1 / float(v.grad.norm()))
        optimizer.param_groups[0]["lr"] = 0.04 * (1 - step / 3)
        optimizer.step()
        with torch.no_grad():
            v /= v.norm()
    torch.testing.assert_close(found, v.detach(), atol=1e-4, rtol=1e-3)


def test_on_a_model_the_divergence_falls() -> None:
    loaded = tiny_loaded()
    prompts = ("Q: w1 w2 ?", "Q: w40 w41 w42 ?")
    texts = tuple(
        Text(prompt, f"{prompt} {answer}") for prompt in prompts for answer in ("w20", "w30")
    )
    states = []
    handle = loaded.model.model.layers[1].register_forward_hook(
        lambda _module, _args, output: states.append(output[0, -1].detach())
    )
    for prompt in prompts:
        loaded.model(torch.tensor([loaded.tokenizer(prompt)["input_ids"]]))
    handle.remove()
    values = torch.stack(states)[[0, 0, 1, 1]][None]
    model = ModelHandle(loaded, 1000)
    data = replace(asked(1), values=values, texts=texts, model=cast(Any, model))

    def apart(direction: Tensor) -> float:
        with torch.no_grad():
            edit = interchange(SITE, direction, values[0, 0])
            moved = model.log_probs(texts[2:], Intervention((edit,)))
            return float(jensen_shannon(moved, model.log_probs(texts[:2])))

    made = FITTERS.made("cdas", {"condition": "calm", "steps": 25, "batch": 1})
    first = normalize(
        torch.randn(values.shape[-1], generator=torch.Generator().manual_seed(0)), dim=0
    )
    assert apart(made.fit(data, 0)["direction"][0]) < apart(first)


@pytest.mark.parametrize(
    ("condition", "questions", "message"),
    [("sad", None, "'sad'; expected one of .*: calm, none"), ("calm", range(4 * N), "field pair")],
)
def test_data_without_what_it_compares_are_refused(
    condition: str, questions: range | None, message: str
) -> None:
    data = asked()
    if questions is not None:
        data = replace(data, questions=torch.tensor([place // 2 for place in questions]))
    with pytest.raises(UserInputError, match=message):
        FITTERS.made("cdas", {"condition": condition}).check(data)
