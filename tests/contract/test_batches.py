"""No number depends on what stands beside a text in its batch: every family, around thresholds.

The reference is each text alone, through a model that has read nothing before.
"""

import copy
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.evaluation.answers.greedy import generate_answers
from real_tasks.evaluation.side_effects import encode_neutral, side_effects
from real_tasks.export.completions import completions
from real_tasks.export.parity import make_parity
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.models.places import sites
from real_tasks.reading.activations import activations_at_last_token
from real_tasks.reading.batches import encode
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import Answer, BehaviourData, ModuleId, Question
from tests.unit.tiny_models import (
    TINY_FAMILIES,
    WORDS,
    pushing,
    random_intervention,
    tiny_family,
    tiny_tokenizer,
)

SHORT, FACTOR = 40, 2.0
ROPES = ("default", "longrope", "dynamic")
LENGTHS = (3, 12, SHORT - 2, SHORT - 1, SHORT, SHORT + 1, SHORT + 2, 60, SHORT + 2, 9)
TOLERANCE: dict[str, Any] = {"atol": 5e-5, "rtol": 1e-3}
"""For float32: another shape of a batch makes other blocks of the same sums."""
NO_ROPE, NO_DYNAMIC = ("gpt2",), ("gpt2", "phi3")
CASES = [
    pytest.param(name, rope, id=f"{name}-{rope}")
    for name in TINY_FAMILIES
    for rope in ROPES
    if not (rope == "longrope" and name in NO_ROPE)
    and not (rope == "dynamic" and name in NO_DYNAMIC)
]
# Where frequencies do not follow the length, `tests/unit/models/test_families.py` has the same of
# activations, scores of answers and generated ones.
FOLLOWING = [case for case in CASES if case.values[1] != "default"]


def of_length(n: int, seed: int = 0) -> str:
    """A text of n tokens with the one in front; all begin alike."""
    return " ".join(WORDS[(3 * i + (seed * i if i > 33 else 0)) % 60] for i in range(n - 1))


TEXTS = [of_length(n, seed) for seed, n in enumerate(LENGTHS)]


@cache
def parameters(name: str, rope: str) -> dict[str, Any]:
    """The changes to a tiny configuration that let frequencies follow the length of a text."""
    if rope == "default":
        return {"max_position_embeddings": 2 * SHORT}
    own: dict[str, Any] = {"rope_theta": 100.0, "rope_type": rope}
    if rope == "dynamic":
        changes = {"max_position_embeddings": SHORT}
        own |= {"factor": FACTOR}
    else:
        changes = {"max_position_embeddings": 2 * SHORT}
        probe = tiny_family(name)
        width = next(b for n, b in probe.named_buffers() if n.endswith("inv_freq")).numel()
        own |= {"short_factor": [1.0] * width, "long_factor": [3.0 + i for i in range(width)]}
        own |= {
            "original_max_position_embeddings": SHORT,
            "factor": FACTOR,
            "attention_factor": 1.0,
        }
        if name == "phi3":
            changes |= {"original_max_position_embeddings": SHORT}
    config = tiny_family(name).config.get_text_config()
    if getattr(config, "head_dim", 1) is None:  # which transformers does not look through here
        changes |= {"head_dim": config.hidden_size // config.num_attention_heads}
    partial = getattr(config, "rope_parameters", {}).get("partial_rotary_factor")
    if partial is not None:  # dynamic NTK needs more than two rotated numbers
        share = max(partial, 0.5) if rope == "dynamic" else partial
        own |= {"partial_rotary_factor": share}
    if any(isinstance(one, dict) for one in config.rope_parameters.values()):
        own = {kind: own for kind in ("full_attention", "sliding_attention")}
    return {**changes, "rope_parameters": own}


def loaded_with(name: str, rope: str) -> LoadedModel:
    return prepare(fresh(name, rope), tiny_tokenizer())


@cache
def unread(name: str, rope: str) -> Any:
    return tiny_family(name, **copy.deepcopy(parameters(name, rope)))  # it writes into them


def fresh(name: str, rope: str) -> Any:
    """A model that has read nothing before, in the time that copying it takes."""
    return copy.deepcopy(unread(name, rope))


@cache
def alone(name: str, rope: str, text: str) -> Tensor:
    ids = torch.tensor([tiny_tokenizer()(text)["input_ids"]])
    with torch.no_grad():
        logits: Tensor = fresh(name, rope)(ids).logits[0].float()
    return logits.log_softmax(-1)


def split_text(text: str) -> Question:
    words = text.split()
    asked = " ".join(words[:-2])
    answers = (Answer("a", " ".join(words[-2:]), 1, True), Answer("b", "w7", 0))
    return Question(text, asked, "", answers)


QUESTIONS = BehaviourData(
    "lengths",
    tuple(split_text(text) for text in TEXTS if len(text.split()) > 3),
    template="{question} {answer}",
)


@pytest.mark.parametrize(("name", "rope"), FOLLOWING)
def test_activations_are_those_of_each_text_alone(name: str, rope: str) -> None:
    loaded = loaded_with(name, rope)
    found = activations_at_last_token(loaded, TEXTS, 10_000, "layer")[:, :, 0]
    for text, values in zip(TEXTS, found, strict=True):
        model, kept = fresh(name, rope), []

        def keep(_m: nn.Module, _a: Any, out: Any, kept: list[Tensor] = kept) -> None:
            kept.append((out[0] if isinstance(out, tuple) else out)[0, -1])

        for layer in sites(model, "layer"):
            layer.register_forward_hook(keep)
        with torch.no_grad():
            model(torch.tensor(encode(loaded, [text])))
        torch.testing.assert_close(values, torch.stack(kept), **TOLERANCE)


@pytest.mark.parametrize(("name", "rope"), FOLLOWING)
def test_answers_score_what_each_text_scores_alone(name: str, rope: str) -> None:
    loaded = loaded_with(name, rope)
    encoded = encode_choices(loaded, QUESTIONS, range(len(QUESTIONS.questions)), 10_000)
    for question, scores in zip(
        QUESTIONS.questions, score_choices(loaded, encoded, None), strict=True
    ):
        start = len(question.text.split()) + 1
        for answer, score in zip(question.answers, scores, strict=True):
            text = f"{question.text} {answer.text}"
            (ids,) = encode(loaded, [text])
            log_probs = alone(name, rope, text)
            expected = sum(float(log_probs[p - 1, ids[p]]) for p in range(start, len(ids)))
            assert score == pytest.approx(expected, abs=2e-3, rel=1e-3)


@pytest.mark.parametrize(("name", "rope"), CASES)
def test_cross_entropy_is_that_of_each_text_alone(name: str, rope: str) -> None:
    loaded = loaded_with(name, rope)
    total, n_tokens = 0.0, 0
    for text in TEXTS:
        (ids,) = encode(loaded, [text])
        log_probs = alone(name, rope, text)
        total -= sum(float(log_probs[p - 1, ids[p]]) for p in range(1, len(ids)))
        n_tokens += len(ids) - 1
    found = side_effects(loaded, encode_neutral(loaded, TEXTS, 10_000), None)
    assert found.cross_entropy == pytest.approx(total / n_tokens, rel=1e-4)
    assert found.kl == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("name", "rope"), FOLLOWING)
def test_generated_answers_are_those_of_generate_text_by_text(name: str, rope: str) -> None:
    loaded = loaded_with(name, rope)
    asked = [Question(text, text, "", ()) for text in TEXTS]
    data = BehaviourData("lengths", tuple(asked), template="{question}{answer}", stop=())
    iv = random_intervention(loaded, "all", scale=0.3)
    found = generate_answers(loaded, data, range(len(asked)), iv, 8, 10_000)
    for text, answer in zip(TEXTS, found, strict=True):
        model, ids = fresh(name, rope), torch.tensor(encode(loaded, [text]))
        with applied(model, iv):
            out = model.generate(ids, max_new_tokens=8, do_sample=False)
        new = out[0, ids.shape[1] :]
        assert answer == loaded.tokenizer.decode(new, skip_special_tokens=True).strip(), text


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_lengths_change_the_numbers_of_these_tests(rope: str) -> None:
    loaded = loaded_with("llama", rope)
    ids = torch.tensor(encode(loaded, [of_length(60)]))
    plain = tiny_family("llama", rope_parameters={"rope_theta": 100.0, "rope_type": "default"})
    assert not torch.allclose(loaded.model(ids).logits, plain(ids).logits, atol=1e-2)
    torch.testing.assert_close(loaded.model(ids[:, :SHORT]).logits, plain(ids[:, :SHORT]).logits)


def test_what_was_read_before_changes_nothing_and_copies_follow_their_own_texts() -> None:
    for name, rope in (("llama", "dynamic"), ("gemma3_text", "dynamic"), ("phi3", "longrope")):
        loaded = loaded_with(name, rope)
        other = loaded.private_copy()
        for n in (SHORT + 1, 70, SHORT + 1, SHORT, 5):
            ids = torch.tensor(encode(loaded, [of_length(n)]))
            found = loaded.logits(loaded.hidden_states(input_ids=ids))[0].log_softmax(-1)
            torch.testing.assert_close(found, alone(name, rope, of_length(n)), **TOLERANCE)
        loaded.hidden_states(input_ids=torch.tensor(encode(loaded, [of_length(70)])))
        before = [b.clone() for n, b in loaded.model.named_buffers() if n.endswith("inv_freq")]
        other.hidden_states(input_ids=torch.tensor(encode(loaded, [of_length(5)])))
        after = [b for n, b in loaded.model.named_buffers() if n.endswith("inv_freq")]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_dynamic_texts_are_allowed_up_to_the_factor_and_counted_beyond() -> None:
    loaded = loaded_with("llama", "dynamic")
    longest = int(SHORT * FACTOR)
    assert loaded.max_positions == longest
    activations_at_last_token(loaded, [of_length(longest)], 1000)
    with pytest.raises(UserInputError, match=f"1 of 2 texts are longer than the model's {longest}"):
        activations_at_last_token(loaded, [of_length(longest + 1), of_length(5)], 1000)


def test_a_common_beginning_is_read_once_only_where_all_texts_are_short() -> None:
    loaded = loaded_with("phi3", "longrope")
    asked = [q for q in QUESTIONS.questions if len(q.text.split()) > 34]
    long = replace(QUESTIONS, questions=tuple(asked))
    assert not encode_choices(loaded, long, range(len(asked)), 1000).prefix
    short = [replace(q, text=" ".join(q.text.split()[:36])) for q in asked]
    few = replace(QUESTIONS, questions=tuple(short))
    assert encode_choices(loaded_with("llama", "longrope"), few, range(len(short)), 1000).prefix


def test_completions_are_those_of_each_prompt_alone() -> None:
    loaded = loaded_with("phi3", "longrope")
    spec = pushing(loaded, (ModuleId("head", 1, 0),), torch.ones(1, loaded.shape.head_dim), 0.5)
    prompts = [of_length(n) for n in (5, SHORT - 3, 60)]
    found = completions(loaded, spec, prompts, 8)
    assert found == [completions(loaded, spec, [prompt], 8)[0] for prompt in prompts]


@pytest.mark.parametrize(("name", "rope"), [("phi3", "longrope"), ("llama", "dynamic")])
def test_a_parity_file_s_texts_go_on_as_texts_of_their_own_length_do(name: str, rope: str) -> None:
    loaded = loaded_with(name, rope)
    lengths = (5, SHORT - 3, 60)
    prompts: list[tuple[Literal["behaviour"], str]] = [("behaviour", of_length(n)) for n in lengths]
    parity = make_parity(loaded, random_intervention(loaded, "all", scale=0.0), prompts)
    for case in parity.cases:
        text = list(case.prompt_ids)
        for token in case.continuation_ids:
            with torch.no_grad():
                logits = fresh(name, rope)(torch.tensor([text])).logits[0, -1]
            assert token == int(logits.argmax())
            text.append(token)
