from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from real_tasks.evaluation.side_effects import encode_neutral, side_effects
from real_tasks.models.kept_states import KeptStates
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.scopes import PromptEnds
from tests.unit.tiny_models import (
    random_intervention,
    random_texts,
    tiny_llama,
    tiny_loaded,
    tiny_qwen2,
    tiny_tokenizer,
)

TEXTS = random_texts(12)


@torch.no_grad()
def text_by_text(loaded: LoadedModel, iv: Intervention | None) -> tuple[float, float]:
    """Cross-entropy and KL by torch.nn.functional, unbatched, through the whole model."""
    cross_entropy = kl = 0.0
    n_tokens = 0
    for text in TEXTS:
        ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
        original = loaded.model(ids).logits[0, :-1].double()
        with applied(loaded, iv, torch.tensor([1])):
            steered = loaded.model(ids).logits[0, :-1].double()
        cross_entropy += float(functional.cross_entropy(steered, ids[0, 1:], reduction="sum"))
        p = original.softmax(-1)
        kl += float((p * (original.log_softmax(-1) - steered.log_softmax(-1))).sum())
        n_tokens += ids.shape[1] - 1
    return cross_entropy / n_tokens, kl / n_tokens


@pytest.mark.parametrize("kept_bytes", [0, 2**20])
@pytest.mark.parametrize("batch_tokens", [1, 50, 10_000])
@pytest.mark.parametrize("scope", ["all", "generated", "last"])
def test_side_effects_equal_a_plain_loop(scope, batch_tokens: int, kept_bytes: int) -> None:
    loaded = replace(tiny_loaded(), kept=KeptStates(kept_bytes))
    iv = random_intervention(loaded, scope, scale=0.7)
    encoded = encode_neutral(loaded, TEXTS, batch_tokens)
    found = side_effects(loaded, encoded, iv)
    assert (loaded.kept.n_bytes > 0) == (kept_bytes > 0)
    assert tuple(found) == pytest.approx(text_by_text(loaded, iv), rel=1e-4)
    assert found.kl > 0.01
    assert side_effects(loaded, encoded, iv) == found


def test_where_prompts_ends_are_steered_half_a_text_is_one_and_the_other_half_counts() -> None:
    loaded = tiny_loaded()
    iv = random_intervention(loaded, PromptEnds(first=1, last=2), scale=0.7)
    kl, n_tokens = 0.0, 0
    for text in TEXTS:
        ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
        half = max(1, ids.shape[1] // 2)
        with torch.no_grad():
            original = loaded.model(ids).logits[0, half - 1 : -1].double().log_softmax(-1)
            with applied(loaded, iv, torch.tensor([half])):
                steered = loaded.model(ids).logits[0, half - 1 : -1].double().log_softmax(-1)
        kl += float((original.exp() * (original - steered)).sum())
        n_tokens += len(original)
    for batch_tokens in (1, 50, 10_000):
        found = side_effects(loaded, encode_neutral(loaded, TEXTS, batch_tokens), iv)
        assert found.kl == pytest.approx(kl / n_tokens, rel=1e-4) and found.kl > 0.01


def test_another_family_gives_the_loop_s_figures_as_well() -> None:
    loaded = prepare(tiny_qwen2(), tiny_tokenizer())
    iv = random_intervention(loaded, "all", scale=0.7)
    found = side_effects(loaded, encode_neutral(loaded, TEXTS, 100), iv)
    assert tuple(found) == pytest.approx(text_by_text(loaded, iv), rel=1e-4)


def test_the_unsteered_model_has_its_own_cross_entropy_and_no_kl() -> None:
    loaded = tiny_loaded()
    for _ in range(2):
        found = side_effects(loaded, encode_neutral(loaded, TEXTS, 50), None)
        assert found.cross_entropy == pytest.approx(text_by_text(loaded, None)[0], rel=1e-5)
        assert found.kl == 0.0


def test_kl_grows_as_the_square_of_a_small_displacement() -> None:
    loaded = tiny_loaded()
    encoded = encode_neutral(loaded, TEXTS, 1000)
    kls = [
        side_effects(loaded, encoded, random_intervention(loaded, "all", scale=scale)).kl
        for scale in (0.02, 0.04)
    ]
    assert kls[1] / kls[0] == pytest.approx(4, rel=0.1)


def test_the_logits_come_in_chunks_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_loaded()
    iv = random_intervention(loaded, "all")
    at_once = side_effects(loaded, encode_neutral(loaded, TEXTS, 1000), iv)
    monkeypatch.setattr("real_tasks.evaluation.answers.logits.CHUNK_BYTES", 4 * 68 * 5)
    encoded = encode_neutral(loaded, TEXTS, 1000)
    assert tuple(side_effects(loaded, encoded, iv)) == pytest.approx(tuple(at_once))


def test_half_precision_is_measured_near_the_full() -> None:
    half = prepare(tiny_llama().to(torch.bfloat16), tiny_tokenizer())
    iv = random_intervention(half, "all")
    found = side_effects(half, encode_neutral(half, TEXTS, 100), iv)
    assert tuple(found) == pytest.approx(text_by_text(tiny_loaded(), iv), rel=0.1)


def test_texts_without_a_token_to_predict_are_refused() -> None:
    loaded = tiny_loaded()
    loaded.tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(UserInputError, match="none of the 2 neutral texts"):
        encode_neutral(loaded, ["w1", "w2"], 100)
    with pytest.raises(UserInputError, match="none of the 0 neutral texts"):
        encode_neutral(loaded, [], 100)
