"""Steering in memory: the numbers are those of the model, and the model is left as it was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

import real_tasks as real
from real_tasks.experiment.direct.learning import coarse_to_fine
from real_tasks.experiment.direct.steer import Steered
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.tiny_models import random_data, tiny_llama, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
OPTIONS: dict[str, Any] = {
    "method": "iti",
    "max_kl": 50.0,
    "evaluation": {"top_k": (2, 5), "alphas": (1.0, 4.0)},
}
TEXT = "Q: w1 w2 ? A: w3 ."


@pytest.fixture(scope="module")
def learned() -> tuple[PreTrainedModel, Steered]:
    model = tiny_llama().train()
    return model, real.steer(model, TOKENIZER, random_data(24), **OPTIONS)


@pytest.fixture
def logits(learned: tuple[PreTrainedModel, Steered]) -> Iterator[Any]:
    model, _ = learned
    model.eval()
    ids = TOKENIZER(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        yield lambda: model(ids).logits
    model.train()


def log_likelihood(model: PreTrainedModel, prompt: str, answer: str) -> float:
    """Summed over the answer's tokens, by transformers alone."""
    ids = TOKENIZER(f"{prompt} {answer}", return_tensors="pt")["input_ids"]
    n = len(TOKENIZER(prompt)["input_ids"])
    with torch.no_grad():
        log_probs = model(ids).logits[0, :-1].log_softmax(-1)
    return float(log_probs.gather(1, ids[0, 1:, None])[n - 1 :].sum())


def mc1(model: PreTrainedModel, steered: Steered) -> list[float]:
    assert steered.data and steered.found
    found = []
    for index in steered.found.test.questions:
        question = steered.data.questions[index]
        scores = [log_likelihood(model, f"Q: {question.text} A:", a.text) for a in question.answers]
        wrong = [s for s, a in zip(scores, question.answers, strict=True) if a.label == 0]
        (best,) = (s for s, a in zip(scores, question.answers, strict=True) if a.is_best)
        found.append(float(best > max(wrong)))
    return found


def test_what_it_says_of_the_test_is_what_the_model_does(
    learned: tuple[PreTrainedModel, Steered], logits: Any
) -> None:
    model, steered = learned
    bare = mc1(model, steered)
    with steered:
        changed = mc1(model, steered)
    assert steered.gains["mc1"].unsteered == pytest.approx(sum(bare) / len(bare))
    assert steered.gains["mc1"].steered == pytest.approx(sum(changed) / len(changed))
    assert {len(bare)} == {8}


def test_it_steers_within_the_block_and_never_after_it(
    learned: tuple[PreTrainedModel, Steered], logits: Any
) -> None:
    _, steered = learned
    before = logits()
    with steered, steered:
        twice = logits()
    with steered:
        once = logits()
        assert not torch.equal(once, before)
    assert torch.equal(logits(), before)
    assert not torch.allclose(once, twice)


def test_the_model_keeps_its_mode_its_gradients_and_its_hooks() -> None:
    model = tiny_llama()
    model.train()
    model.get_submodule("model.layers.0").eval()
    model.lm_head.requires_grad_(False)
    before = state(model)
    steered = real.steer(model, TOKENIZER, random_data(12), **OPTIONS)
    steered.compare("w1 w2 ?", max_new_tokens=2)
    assert state(model) == before


def state(model: nn.Module) -> list[Any]:
    modes = [
        (m.training, len(m._forward_pre_hooks), len(m._forward_hooks)) for m in model.modules()
    ]
    return [modes, [p.requires_grad for p in model.parameters()]]


def test_comparing_gives_what_transformers_generates(
    learned: tuple[PreTrainedModel, Steered], logits: Any
) -> None:
    model, steered = learned
    given = TOKENIZER("Q: w5 w6 ? A:", return_tensors="pt")

    def generated() -> str:
        ids: Tensor = model.generate(**given, max_new_tokens=6, do_sample=False)
        new = ids[0, given["input_ids"].shape[1] :]
        return str(TOKENIZER.decode(new, skip_special_tokens=True)).split("Q:")[0].strip()

    found = steered.compare("w5 w6 ?", max_new_tokens=6)
    assert found.before == (generated(),)
    with steered:
        assert found.after == (generated(),)


def test_what_is_saved_steers_alike_when_it_is_loaded(
    learned: tuple[PreTrainedModel, Steered], logits: Any, tmp_path: Path
) -> None:
    model, steered = learned
    steered.save(tmp_path / "spec")
    loaded = real.load(tmp_path / "spec", model, TOKENIZER)
    with steered:
        expected = logits()
    with loaded:
        assert torch.equal(logits(), expected)
    assert loaded.compare("w5 ?", 3) == steered.compare("w5 ?", 3)
    assert "gain" in str(steered) and "gain" not in str(steered.at(0.5))
    assert repr(loaded) == str(loaded) == loaded.spec.explain()
    with loaded.at(0):
        assert torch.equal(
            logits(), model(TOKENIZER(TEXT, return_tensors="pt")["input_ids"]).logits
        )


def test_a_spec_of_another_model_is_refused_unless_it_is_meant(
    learned: tuple[PreTrainedModel, Steered], tmp_path: Path
) -> None:
    _, steered = learned
    steered.save(tmp_path / "spec")
    with pytest.raises(UserInputError, match="another one"):
        real.load(tmp_path / "spec", tiny_llama(seed=1))
    with real.load(tmp_path / "spec", tiny_llama(seed=1), force=True):
        pass


def test_the_table_is_there_for_terminals_and_notebooks(
    learned: tuple[PreTrainedModel, Steered],
) -> None:
    _, steered = learned
    assert steered.found is not None
    for text in (str(steered), steered._repr_html_()):
        assert "before" in text and "MC1" in text
        assert f"{steered.found.test.kl:.3f}" in text


def test_the_same_seed_learns_the_same() -> None:
    found = [
        real.steer(tiny_llama(), TOKENIZER, random_data(12), **OPTIONS, seed=3) for _ in range(2)
    ]
    assert found[0].found is not None and found[1].found is not None
    assert found[0].found.settings == found[1].found.settings


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "itti"}, "unknown method 'itti'"),
        ({"method": "unsteered"}, "steers nothing"),
        ({"max_kl": 1e-12}, "raise max_kl"),
        ({"max_kl": -1}, "max_kl"),
        ({"chat": True}, "no chat template"),
        ({"evaluation": {"alpha": 1}}, "alpha"),
        ({"evaluation": {"top_k": (200,)}}, "top_k"),
    ],
)
def test_what_cannot_be_done_is_said_before_or_instead(changes: Any, told: str) -> None:
    with pytest.raises(UserInputError, match=told):
        real.steer(tiny_llama(), TOKENIZER, random_data(12), **{**OPTIONS, **changes})


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), "2", True, None])
def test_a_strength_that_is_no_number_is_refused(
    learned: tuple[PreTrainedModel, Steered], strength: Any
) -> None:
    with pytest.raises(UserInputError, match="expected a number"):
        learned[1].at(strength)


def test_an_answer_without_a_token_is_not_asked_for(
    learned: tuple[PreTrainedModel, Steered],
) -> None:
    with pytest.raises(UserInputError, match="max_new_tokens 0"):
        learned[1].compare("w1", max_new_tokens=0)


def test_it_says_what_it_will_do_and_stops_ranking_when_it_is_enough() -> None:
    planned: list[str] = []
    found = real.steer(
        tiny_llama(),
        TOKENIZER,
        random_data(30),
        **{**OPTIONS, "evaluation": {"top_k": (2, 15), "alphas": (1.0, 4.0)}},
        minutes=0.001,
        planned=planned.append,
        enough=lambda: True,
    )
    assert found.data and len(found.data.questions) == 24
    parts = [len(found.found.test.questions)]
    (said,) = planned
    assert said.startswith("ITI on 24 of 30 questions: learns on ")
    assert said.endswith(f"tests on {parts[0]}. About 0.001 min at most.")
    assert {module.layer for module in found.spec.modules} == {0}  # the first that is ranked
    assert len(found.found.settings) == 1  # and the first whose KL fits


def test_too_few_questions_are_refused() -> None:
    with pytest.raises(UserInputError, match="questions"):
        real.steer(tiny_llama(), TOKENIZER, random_data(5), **OPTIONS)


def test_wherever_ranking_stops_the_layers_before_are_spread_evenly() -> None:
    for n in (1, 2, 5, 30, 32):
        order = coarse_to_fine(n)
        assert sorted(order) == list(range(n))
        for stop in range(2, n):
            gaps = [
                b - a for a, b in zip(*[sorted(order[:stop])[i:] for i in (0, 1)], strict=False)
            ]
            assert max(gaps) <= 4 * n / stop
