"""Patching by a plain loop, and in a model with one planted head that copies demonstrations."""

from dataclasses import replace

import pytest
import torch

from real_tasks.evaluation.answers.patching import Patching
from real_tasks.evaluation.model_handle import ModelHandle
from real_tasks.experiment.localizer_access import access_given
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.models.places import output_projections
from real_tasks.questions.samples import localizer_input, with_shuffled_labels
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.few_shot import FewShot
from real_tasks.vocabulary.types import (
    Answer,
    BehaviourData,
    FoldSplit,
    LocalizerResult,
    ModuleId,
    Question,
    layer_modules,
)
from tests.unit.tiny_models import random_data, tiny_llama, tiny_loaded, tiny_tokenizer

TRAIN, ASKED = (0, 1, 2, 3), (4, 5)
PLANTED = ModuleId("head", 1, 3)
YES, NO = "w0", "w1"


def demonstrated(data: BehaviourData, answered: BehaviourData, shown: list[int]) -> BehaviourData:
    text = ""
    for one in (answered.questions[i] for i in shown):
        best = next(a.text for a in one.answers if a.is_best)
        text += f"Q: {one.text} A: {best}\n\n"
    return replace(data, preamble=text)


@torch.no_grad()
def log_odds(loaded: LoadedModel, data: BehaviourData, question: Question, patch=None) -> float:
    """Each answer read alone; ``patch``: layer, span and value at the last token of the prompt."""
    odds = {0: 0.0, 1: 0.0}
    n_context = len(loaded.tokenizer(data.prompt_context(question))["input_ids"])

    def put(_module, args):
        layer, span, value = patch
        args[0][:, n_context - 1, span] = value

    handle = None
    if patch is not None:
        handle = output_projections(loaded.model)[patch[0]].register_forward_pre_hook(put)
    for answer in question.answers:
        ids = loaded.tokenizer(data.prompt_with_answer(question, answer), return_tensors="pt")
        log_probs = loaded.model(**ids).logits[0].double().log_softmax(-1)
        tokens = ids["input_ids"][0].tolist()
        places = range(n_context, len(tokens))
        odds[answer.label] += float(sum(log_probs[p - 1, tokens[p]] for p in places).exp())
    if handle:
        handle.remove()
    return float(torch.tensor(odds[1] / odds[0]).log())


@torch.no_grad()
def last_input(loaded: LoadedModel, text: str, layer: int) -> torch.Tensor:
    kept = []
    projection = output_projections(loaded.model)[layer]
    handle = projection.register_forward_pre_hook(lambda _, args: kept.append(args[0][0, -1]))
    loaded.model(**loaded.tokenizer(text, return_tensors="pt"))
    handle.remove()
    return kept[0].clone()


@pytest.mark.parametrize(
    ("contexts", "shown", "queries"),
    [(1, [[0, 1, 2]], [[3]]), (2, [[0, 1, 2], [2, 3, 0]], [[3], [1]])],
)
def test_a_patched_head_does_what_a_plain_loop_finds(contexts, shown, queries) -> None:
    loaded, data = tiny_loaded(), random_data()
    span = slice(5 * 12, 6 * 12)
    few = FewShot(shots=3, contexts=contexts, prompts=2)
    patching = Patching(loaded, data, TRAIN, ASKED, few, 400)
    clean = [
        last_input(loaded, demonstrated(data, data, one).prompt_context(data.questions[i]), 1)[span]
        for one, asks in zip(shown, queries, strict=True)
        for i in asks
    ]
    module = ModuleId("head", 1, 5)
    found = patching.shown((ModuleId("head", 1, 2), module))[1]
    assert torch.allclose(found, torch.stack(clean), atol=1e-5)
    mean = torch.stack(clean).mean(dim=0)
    changes = []
    for i, one in enumerate(shown):
        corrupted = demonstrated(data, with_shuffled_labels(data, i), one)
        for question in (data.questions[j] for j in ASKED[i::contexts]):
            patched = log_odds(loaded, corrupted, question, (1, span, mean))
            changes.append(patched - log_odds(loaded, corrupted, question))
    assert patching(module, mean) == pytest.approx(sum(changes) / len(changes), abs=1e-3)
    assert abs(sum(changes)) > 1e-2


def test_more_demonstrations_than_training_questions_are_refused() -> None:
    with pytest.raises(UserInputError, match="shots of 4, but 4 training questions"):
        Patching(tiny_loaded(), random_data(), TRAIN, ASKED, FewShot(shots=4), 400)


@torch.no_grad()
def copying() -> LoadedModel:
    """Heads look everywhere alike; one writes for YES how much more often YES stood than NO."""
    model = tiny_llama(n_layers=3, max_positions=256)
    tokenizer = tiny_tokenizer()
    yes, no = tokenizer.convert_tokens_to_ids([YES, NO])
    embedding, head = model.get_input_embeddings().weight, model.lm_head.weight
    embedding[:, :2] = 0.0
    head[:, 1] = 0.0
    embedding[yes, 0], embedding[no, 0] = 4.0, -4.0
    head[yes], head[no] = 0.0, 0.0
    head[yes, 1], head[no, 1] = 0.5, -0.5
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        layer.self_attn.o_proj.weight *= 0.002
    attention = model.model.layers[PLANTED.layer].self_attn
    start = 12 * PLANTED.head
    attention.v_proj.weight[12 * (PLANTED.head // 2), :] = torch.eye(32)[0]
    attention.o_proj.weight[:, start : start + 12] = 0.0
    attention.o_proj.weight[1, start] = 3.0
    return prepare(model, tokenizer)


def told() -> BehaviourData:
    """Questions to all of which YES is aligned; only demonstrations tell."""
    answers = (Answer("a", YES, 1, is_best=True), Answer("b", NO, 0))
    questions = [Question(f"q{i}", f"w{i + 5} w{i + 6} ?", "c", answers) for i in range(40)]
    return BehaviourData("told", tuple(questions))


SPLIT = FoldSplit(tuple(range(20)), tuple(range(20, 30)), tuple(range(30, 40)))


@pytest.fixture(scope="module")
def ranked() -> tuple[LoadedModel, list[LocalizerResult]]:
    loaded, data = copying(), told()
    params = {"shots": 8, "prompts": 20, "contexts": 5}
    made = LOCALIZERS.made("indirect_effect", params)
    given = access_given(made, loaded, data, SPLIT, 2000)
    values = torch.zeros(80, 8, 12).numpy()
    results = []
    for layer in range(3):
        modules = layer_modules("head", layer, 8)
        seen = localizer_input(modules, values, data, SPLIT, torch.device("cpu"))
        results.append(made.localize(replace(seen, **given), 0))
    return loaded, results


def test_a_planted_copying_head_has_by_far_the_largest_indirect_effect(ranked) -> None:
    effects = {one.module: one.score for part in ranked[1] for one in part.scores}
    assert max(effects, key=lambda module: effects[module]) == PLANTED
    others = [abs(effect) for module, effect in effects.items() if module != PLANTED]
    assert effects[PLANTED] > 1.0 and max(others) < 0.1 * effects[PLANTED]


def function_vector(loaded: LoadedModel, results: list[LocalizerResult], heads: int, width=32):
    modules = (ModuleId("layer", 1), ModuleId("layer", 2))
    seen = FitterInput(
        modules,
        torch.zeros(2, 2, width),
        torch.tensor([1, 0]),
        torch.tensor([0, 0]),
        model=ModelHandle(loaded, 2000),
        ranked=tuple(results),
    )
    return FITTERS.made("function_vector", {"heads": heads}).fit(seen, 0)


def test_the_function_vector_is_the_sum_of_what_the_best_heads_write(ranked) -> None:
    loaded, results = ranked
    found = function_vector(loaded, results, 3)
    scores = torch.tensor([[one.score for one in part.scores] for part in results])
    expected = torch.zeros(32)
    for place in scores.flatten().argsort(descending=True)[:3].tolist():
        layer, head = divmod(place, 8)
        weight = output_projections(loaded.model)[layer].weight.detach()
        mean = results[layer].evidence["means"][head]
        expected += weight[:, 12 * head : 12 * head + 12] @ mean
    for row in range(2):
        assert torch.allclose(found["scale"][row] * found["direction"][row], expected, atol=1e-5)
    assert torch.allclose(found["direction"].norm(dim=1), torch.ones(2))


def test_added_without_demonstrations_it_does_as_much_as_they_do(ranked) -> None:
    loaded, results = ranked
    data, question = told(), told().questions[35]
    tensors = {name: rows[:1] for name, rows in function_vector(loaded, results, 1).items()}
    edit = Edit((ModuleId("layer", 1),), tensors, torch.ones(1), scope="last")
    before = log_odds(loaded, data, question)
    shown = log_odds(loaded, demonstrated(data, data, list(range(8))), question)
    n_context = len(loaded.tokenizer(data.prompt_context(question))["input_ids"])
    with applied(loaded, Intervention((edit,)), torch.tensor([n_context])):
        added = log_odds(loaded, data, question)
    assert abs(before) < 0.2 < shown and added > 0.9 * shown


def test_it_goes_to_the_residual_stream_alone(ranked) -> None:
    with pytest.raises(UserInputError, match="32 wide, but layer 1 12; expected a part"):
        function_vector(*ranked, 3, width=12)
