from dataclasses import replace

import pytest
import torch

from real_tasks.evaluation.answers.effects import Effects
from real_tasks.models.loading import LoadedModel
from real_tasks.models.places import output_projections
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import BehaviourData, ModuleId, Question
from tests.unit.tiny_models import random_data, tiny_loaded

DATA = random_data()
QUESTIONS = (3, 0, 5)


@torch.no_grad()
def log_odds(loaded: LoadedModel, data: BehaviourData, question: Question) -> float:
    """Each answer read alone by the model as it is; probabilities, not their logarithms, summed."""
    odds = {0: 0.0, 1: 0.0}
    n_context = len(loaded.tokenizer(data.context(question))["input_ids"])
    for answer in question.answers:
        ids = loaded.tokenizer(data.full_text(question, answer), return_tensors="pt")
        log_probs = loaded.model(**ids).logits[0].double().log_softmax(-1)
        tokens = ids["input_ids"][0].tolist()
        places = range(n_context, len(tokens))
        odds[answer.label] += float(sum(log_probs[p - 1, tokens[p]] for p in places).exp())
    return float(torch.tensor(odds[1] / odds[0]).log())


def mean_log_odds(loaded: LoadedModel, data: BehaviourData, questions: tuple[int, ...]) -> float:
    return sum(log_odds(loaded, data, data.questions[i]) for i in questions) / len(questions)


def push(width: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 5), (2, 7)])
def test_the_effect_of_a_head_equals_that_of_a_bias_written_into_the_model(layer, head) -> None:
    loaded, displacement = tiny_loaded(), push(12)
    found = Effects(loaded, DATA, QUESTIONS, 200)(ModuleId("head", layer, head), displacement)
    before = mean_log_odds(loaded, DATA, QUESTIONS)
    projection = output_projections(loaded.model)[layer]
    columns = projection.weight.detach()[:, head * 12 : (head + 1) * 12]
    projection.bias = torch.nn.Parameter(columns @ displacement)
    after = mean_log_odds(loaded, DATA, QUESTIONS)
    assert found == pytest.approx(after - before, abs=1e-3)
    assert abs(found) > 1e-3


@pytest.mark.parametrize("kind", ["layer", "mlp"])
def test_the_effect_of_a_wide_module_equals_that_of_a_hook_at_its_output(kind) -> None:
    loaded, displacement = tiny_loaded(), push(32)
    found = Effects(loaded, DATA, QUESTIONS, 200)(ModuleId(kind, 1), displacement)
    before = mean_log_odds(loaded, DATA, QUESTIONS)
    block = loaded.model.model.layers[1]

    def add(_module, _args, output):
        if isinstance(output, tuple):
            return (output[0] + displacement, *output[1:])
        return output + displacement

    (block if kind == "layer" else block.mlp).register_forward_hook(add)
    assert found == pytest.approx(mean_log_odds(loaded, DATA, QUESTIONS) - before, abs=1e-3)


def test_no_push_has_no_effect_and_the_model_is_left_as_it_was() -> None:
    loaded = tiny_loaded()
    before = mean_log_odds(loaded, DATA, QUESTIONS)
    effects = Effects(loaded, DATA, QUESTIONS, 200)
    effects(ModuleId("head", 1, 2), push(12))
    assert effects(ModuleId("head", 1, 2), torch.zeros(12)) == pytest.approx(0.0, abs=1e-5)
    assert mean_log_odds(loaded, DATA, QUESTIONS) == before


def test_effects_equal_those_under_the_same_intervention_by_hand() -> None:
    loaded, displacement = tiny_loaded(), push(12, seed=1)
    effects = Effects(loaded, DATA, QUESTIONS, 50)
    vector = torch.zeros(96)
    vector[36:48] = displacement
    with applied(loaded, Intervention.adding({0: vector}, "all")):
        steered = [log_odds(loaded, DATA, DATA.questions[i]) for i in QUESTIONS]
    assert effects.log_odds(Intervention.adding({0: vector}, "all")).tolist() == pytest.approx(
        steered, abs=1e-3
    )
    unsteered = [log_odds(loaded, DATA, DATA.questions[i]) for i in QUESTIONS]
    difference = sum(steered) / 3 - sum(unsteered) / 3
    found = effects(ModuleId("head", 0, 3), displacement)
    assert found == pytest.approx(difference, abs=1e-3)


def test_a_question_put_in_several_ways_counts_as_their_mean() -> None:
    asked, other, alone = (DATA.questions[i] for i in (0, 1, 2))
    both = replace(asked, alternates=(other,))
    data = BehaviourData("ways", (both, alone))
    loaded = tiny_loaded()
    odds = Effects(loaded, data, (0, 1), 200).log_odds(None).tolist()
    expected = [log_odds(loaded, data, question) for question in (asked, other, alone)]
    assert odds == pytest.approx([(expected[0] + expected[1]) / 2, expected[2]], abs=1e-3)


def test_answers_of_one_label_only_are_refused_by_the_question_s_name() -> None:
    asked = DATA.questions[1]
    aligned = replace(asked, answers=tuple(a for a in asked.answers if a.label == 1))
    data = BehaviourData("odd", (DATA.questions[0], aligned))
    with pytest.raises(UserInputError, match="'q1' has answers of one label only"):
        Effects(tiny_loaded(), data, (0, 1), 200)


def test_no_questions_are_refused() -> None:
    with pytest.raises(UserInputError, match="no questions to measure effects on"):
        Effects(tiny_loaded(), DATA, (), 200)
