"""Texts in one batch, each steered in its own way, are what they are alone."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.serving.engine import Engine, QueueFullError, Step
from real_tasks.serving.generations import Sampling
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.hooks import Steering
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.errors import OverflowedError, UserInputError
from real_tasks.vocabulary.types import ModuleId
from tests.unit.serving.served import (
    Asked,
    endless,
    expected,
    interventions,
    prompts,
    push,
    served,
    unit,
)
from tests.unit.tiny_models import tiny_family, tiny_loaded, tiny_tokenizer

N_NEW = 10
GREEDY = Sampling(N_NEW, alternatives=1)


def tiny(name: str, **changes: Any) -> LoadedModel:
    return prepare(tiny_family(name, **changes), tiny_tokenizer())


def check_like_generate(
    loaded: LoadedModel, max_rows: int, n_prompts: int = 12, kinds: Any = None
) -> None:
    kinds = itertools.cycle(kinds or interventions(loaded.shape.d_model))
    cases = list(zip(prompts(n_prompts), kinds, strict=False))
    with Engine(loaded, max_rows).running() as engine:
        found = [one.all() for one in served(engine, cases, GREEDY)]
    changed = 0
    for (prompt, intervention), pieces in zip(cases, found, strict=True):
        new, log_probs = expected(loaded, prompt, intervention, N_NEW)
        scores = [score for piece in pieces for score in piece.scores]
        text = "".join(piece.text for piece in pieces)
        assert text == loaded.tokenizer.decode(new, skip_special_tokens=True)
        assert pieces[-1].finish == ("stop" if new[-1] == 2 else "length")
        assert pieces[-1].n_tokens == len(new)
        kept = log_probs[: len(new) - (new[-1] == 2)]
        assert [score.log_prob for score in scores] == pytest.approx(kept, abs=1e-5)
        bare = expected(loaded, prompt, None, N_NEW)
        changed += new != bare[0] or log_probs != pytest.approx(bare[1], abs=1e-3)
    assert changed > n_prompts // 2, "the steering has to count"


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2", "olmo2", "mixtral"])
def test_texts_under_any_steering_are_what_generate_gives_alone(name: str) -> None:
    check_like_generate(tiny(name), max_rows=5)


def test_rows_whose_heads_write_otherwise_leave_the_others_as_they_are() -> None:
    operator = OPERATORS.made("rank_one", {})
    tensors = {"read": unit(12, 11), "write": 9 * unit(32, 12)}
    head, one = (ModuleId("head", 1, 2),), torch.ones(1)
    edits = [Edit(head, tensors, one, operator, scope) for scope in ("all", "generated")]
    check_like_generate(tiny_loaded(), 5, 6, [Intervention((edit,)) for edit in edits] + [None])


def test_rotary_frequencies_that_follow_the_length_are_served_one_text_at_a_time() -> None:
    rope = {"rope_theta": 100.0, "rope_type": "longrope", "factor": 2.0, "attention_factor": 1.0}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [3.0, 4.0, 5.0, 6.0]}
    changes = {"original_max_position_embeddings": 14}
    loaded = tiny("phi3", rope_parameters=rope | changes, **changes)
    steps: list[Step] = []
    engine = Engine(loaded, 8, on_step=steps.append)
    cases = list(zip(prompts(8), interventions(loaded.shape.d_model), strict=True))
    with engine.running():
        texts = [one.text() for one in served(engine, cases, Sampling(N_NEW))]
    assert {step.rows for step in steps} == {1}
    assert texts == [
        loaded.tokenizer.decode(expected(loaded, *case, N_NEW)[0], skip_special_tokens=True)
        for case in cases
    ]


def test_rows_join_and_leave_while_others_go_on() -> None:
    loaded, steps = tiny_loaded(), []
    lengths = [3, 17, 5, 11, 2, 9]
    with Engine(loaded, 3, on_step=steps.append).running() as engine:
        asked = [Asked(prompt, Sampling(n)) for prompt, n in zip(prompts(6), lengths, strict=True)]
        engine.submit([one.generation for one in asked])
        texts = [one.text() for one in asked]
    for prompt, n, text in zip(prompts(6), lengths, texts, strict=True):
        new, _ = expected(loaded, prompt, None, n)
        assert text == loaded.tokenizer.decode(new, skip_special_tokens=True)
    assert max(step.rows for step in steps) == 3
    assert len(steps) < sum(lengths)


def test_a_seed_gives_the_same_text_whatever_else_is_in_the_batch() -> None:
    loaded = tiny_loaded()
    drawn = Sampling(12, temperature=1.0, top_p=0.9, seed=5)
    prompt, others = prompts(1)[0], prompts(5, seed=3)
    with Engine(loaded, 8).running() as engine:
        alone = Asked(prompt, drawn)
        engine.submit([alone.generation])
        text = alone.text()
        crowd = [
            Asked(other, Sampling(20, temperature=1.3, seed=n)) for n, other in enumerate(others)
        ]
        engine.submit([one.generation for one in crowd])
        again, other_seed = Asked(prompt, drawn), Asked(prompt, Sampling(12, 1.0, 0.9, seed=6))
        engine.submit([again.generation, other_seed.generation])
        assert again.text() == text != other_seed.text()


def test_a_text_that_nobody_wants_any_more_leaves_its_row_to_another() -> None:
    with Engine(endless(), max_rows=1, max_waiting=1).running() as engine:
        gone = Asked([1, 10], Sampling(90_000, temperature=3.0, seed=1))
        engine.submit([gone.generation])
        assert gone.pieces.get(timeout=60).text
        waiting = Asked([1, 11], Sampling(2))
        engine.submit([waiting.generation])
        with pytest.raises(QueueFullError, match="1 texts wait, and 1 may"):
            engine.submit([Asked([1, 12], Sampling(2)).generation])
        gone.generation.cancel()
        assert waiting.all()[-1].n_tokens <= 2
        assert engine.n_waiting == 0


def test_one_text_that_overflows_ends_alone() -> None:
    loaded = tiny("llama", dtype=torch.float16)
    first = {"direction": torch.eye(32)[:1], "scale": torch.tensor([4e4])}
    both = tuple(replace(push(32, layer=layer), tensors=first) for layer in (0, 1))
    huge = Intervention(both)  # each fits into float16, their sum does not
    with Engine(loaded).running() as engine:
        plain = Asked(prompts(1)[0], Sampling(4))
        steered = Asked(prompts(1)[0], Sampling(4), Steering(loaded.model, huge))
        engine.submit([plain.generation, steered.generation])
        errors = [one.all()[-1].error for one in (plain, steered)]
    assert errors[0] is None and isinstance(errors[1], OverflowedError)


def test_what_does_not_fit_the_positions_is_counted() -> None:
    with pytest.raises(
        UserInputError, match=r"128 positions; the prompt takes 100 .* 29, which is 129"
    ):
        Engine(tiny_loaded()).check([1] * 100, 29)


def test_a_pass_that_fails_is_told_and_the_engine_lives() -> None:
    loaded = tiny_loaded()
    with Engine(loaded).running() as engine:
        broken = Asked([1, 10_000], Sampling(3))
        good = Asked(prompts(1)[0], Sampling(3))
        engine.submit([broken.generation, good.generation])
        assert isinstance(broken.all()[-1].error, IndexError)
        assert good.all()[-1].finish
