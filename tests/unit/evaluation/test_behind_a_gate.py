"""What steering behind a gate costs: on prompts that open it, as neutral texts may not."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch

from real_tasks.evaluation.measuring import Evaluator
from real_tasks.evaluation.tuning import MethodResult, evaluate_method
from real_tasks.models.loading import LoadedModel
from real_tasks.reading.prompts import prompt_text
from real_tasks.steering.gates import GATES, FittedGate
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.experiment_config import EvaluationConfig
from real_tasks.vocabulary.types import BehaviourData, FoldSplit, ModuleId
from tests.unit.tiny_models import pushing, random_data, random_texts, tiny_loaded

DATA = replace(random_data(14, seed=3), neutral_texts=tuple(random_texts(40, shortest=4, seed=9)))
SPLIT = FoldSplit((), tuple(range(9)), tuple(range(9, 14)))
Q = 4
"""The token that begins every prompt, and is in no neutral text."""
ALPHAS = (0.05, 0.2, 0.8, 3.2)


def at_questions(loaded: LoadedModel) -> SteeringSpec:
    direction = torch.nn.functional.normalize(torch.ones(1, loaded.shape.d_model), dim=-1)
    spec = pushing(loaded, (ModuleId("layer", 1),), direction, 1.0)
    gate = FittedGate(GATES.made("tokens", {"ids": [Q]}))
    return replace(spec, edits=(replace(spec.edits[0], gate=gate),))


@torch.no_grad()
def cost(loaded: LoadedModel, data: BehaviourData, spec: SteeringSpec) -> float:
    """KL(original || steered) on the validation prompts, prompt by prompt, nats per token."""
    total, n_tokens = 0.0, 0
    for index in SPLIT.validation:
        text = prompt_text(loaded, data, data.questions[index])
        ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
        log_p = loaded.model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
        with spec.applied_to(loaded):
            log_q = loaded.model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
        total += float((log_p.exp() * (log_p - log_q)).sum())
        n_tokens += log_p.shape[0]
    return total / n_tokens


def tuned(loaded: LoadedModel, search: Literal["grid", "race"], max_kl: float) -> MethodResult:
    config = EvaluationConfig(
        measures=("multiple_choice",), objective=("mc2",), search=search, max_kl=max_kl
    )
    evaluator = Evaluator(loaded, DATA, SPLIT, config)
    return evaluate_method(evaluator, {1: at_questions(loaded)}, config, ALPHAS)


@pytest.mark.parametrize("search", ["grid", "race"])
def test_the_cap_and_the_dose_count_what_a_gate_lets_through_on_prompts(
    search: Literal["grid", "race"],
) -> None:
    loaded = tiny_loaded(seed=2)
    spec = at_questions(loaded)
    costs = [cost(loaded, DATA, spec.with_alpha(alpha)) for alpha in ALPHAS]
    assert costs == sorted(costs)
    cap = math.sqrt(costs[1] * costs[2])
    result = tuned(loaded, search, cap)
    by_alpha = {one.alpha: one for one in result.settings}
    for alpha, expected in zip(ALPHAS, costs, strict=True):
        assert by_alpha[alpha].kl == pytest.approx(0, abs=1e-7)
        assert by_alpha[alpha].kl_open == pytest.approx(expected, rel=1e-3, abs=1e-7)
        assert bool(by_alpha[alpha].metrics) == (alpha <= 0.2)
    assert result.chosen.alpha in (0.05, 0.2)
    assert not result.bounded and result.matched_alpha is not None
    matched = cost(loaded, DATA, spec.with_alpha(result.matched_alpha))
    assert matched == pytest.approx(0.02, rel=0.02)
