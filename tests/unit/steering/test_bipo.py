"""BiPO against a planted read-out, and on a tiny model through the handle that stages give it."""

from typing import Any, cast

import torch
from torch import Tensor

from real_tasks.evaluation.model_handle import ModelHandle
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.model_access import Text
from real_tasks.vocabulary.types import ModuleId
from tests.unit.tiny_models import tiny_loaded

D = 24
PLANTED = torch.nn.functional.normalize(
    torch.randn(D, generator=torch.Generator().manual_seed(3)), dim=0
)


NOISE = 0.4 * torch.randn(300, D, generator=torch.Generator().manual_seed(4))


class ReadOut:
    """Answers named + gain by a push along a direction, a little another one for each question."""

    def log_probs(self, texts: list[Text], intervention: Intervention | None = None) -> Tensor:
        pushed = torch.zeros(D)
        if intervention is not None:
            (edit,) = intervention.edits
            added = edit.displacement(intervention.strength)
            assert added is not None
            pushed = added[0]
        signs = torch.tensor([1.0 if text.whole.endswith("+") else -1.0 for text in texts])
        own = torch.stack([PLANTED + NOISE[int(text.prompt[1:])] for text in texts])
        return -3 + signs * torch.tanh(own @ pushed)


def seen(model: object, texts: list[Text], modules: tuple[ModuleId, ...], d: int) -> FitterInput:
    labels = torch.tensor([int(text.whole.endswith("+")) for text in texts])
    drawn = torch.randn(len(modules), len(texts), d, generator=torch.Generator().manual_seed(0))
    questions = torch.arange(len(texts)) // 2
    further: dict[str, Any] = {"texts": tuple(texts), "model": model}
    return FitterInput(modules, drawn, labels, questions, **further)


def test_the_vector_points_where_aligned_answers_gain() -> None:
    texts = [Text(f"Q{i}", f"Q{i} {sign}") for i in range(300) for sign in "+-"]
    data = seen(ReadOut(), texts, (ModuleId("layer", 0), ModuleId("layer", 1)), D)
    found = FITTERS.made("bipo", {"learning_rate": 0.01, "steps": 300}).fit(data, 0)
    assert found["direction"].shape == (2, D) and found["scale"].shape == (2,)
    for row in range(2):
        assert float(found["direction"][row] @ PLANTED) > 0.8
        assert float(found["scale"][row]) > 0.1


def test_on_a_model_margins_rise_from_the_negative_to_the_positive_side() -> None:
    loaded = tiny_loaded()
    handle = ModelHandle(loaded, 1000)
    prompts = ["Q: w1 w2 ?", "Q: w3 ?", "Q: w4 w9 ?"]
    texts = [Text(p, f"{p} {a}") for p in prompts for a in ("w20", "w30")]
    labels = torch.tensor([1, 0] * 3)
    site, d = (ModuleId("layer", 1),), loaded.shape.d_model
    drawn = torch.randn(1, 6, d, generator=torch.Generator().manual_seed(0))
    data = FitterInput(
        site, drawn, labels, torch.arange(6) // 2, texts=tuple(texts), model=cast(Any, handle)
    )
    before = {name: p.clone() for name, p in loaded.model.named_parameters()}
    found = FITTERS.made("bipo", {"steps": 25}).fit(data, 0)
    edit = Edit(site, found, torch.ones(1))
    margins = []
    for strength in (-2.0, -1.0, 0.0, 1.0, 2.0):
        with torch.no_grad():
            log_probs = handle.log_probs(texts, Intervention((edit,), strength))
        margins.append(float((log_probs[0::2] - log_probs[1::2]).mean()))
    assert margins == sorted(margins) and margins[-1] - margins[0] > 0.1
    for name, parameter in loaded.model.named_parameters():
        assert parameter.grad is None and torch.equal(parameter, before[name])
