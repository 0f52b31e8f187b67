"""Numbers that leave the range of their type: refused unsteered, ruled out steered."""

import math

import pytest
import torch

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.evaluation.answers.greedy import generate_answers
from real_tasks.evaluation.side_effects import encode_neutral, side_effects
from real_tasks.export.parity import make_parity
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.reading.activations import activations_at, activations_at_last_token
from real_tasks.steering.edits import Intervention
from real_tasks.vocabulary.errors import OverflowedError, UserInputError
from tests.unit.tiny_models import random_data, random_texts, tiny_llama, tiny_tokenizer

DATA, TEXTS = random_data(4), random_texts(6)


def loaded_as(dtype: torch.dtype) -> LoadedModel:
    return prepare(tiny_llama().to(dtype), tiny_tokenizer())


def push(loaded: LoadedModel, size: float) -> Intervention:
    vector = torch.full((loaded.shape.d_model,), size)
    return Intervention.adding({0: vector, 1: vector}, "all", "layer")


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        # Twice 60000 is too large for float16, once is not.
        *[(torch.float16, size) for size in (6.0e4, 3e5, 1e30, math.inf)],
        *[(torch.float32, size) for size in (1e16, 1e19, 1e30, 3e38, math.inf)],
        *[(torch.bfloat16, size) for size in (1e16, 1e30, 3.4e38)],
    ],
)
def test_steering_that_overflows_is_called_so_by_every_reading(
    dtype: torch.dtype, size: float
) -> None:
    loaded = loaded_as(dtype)
    iv = push(loaded, size)
    with pytest.raises(OverflowedError):
        side_effects(loaded, encode_neutral(loaded, TEXTS, 1000), iv)
    with pytest.raises(OverflowedError):
        score_choices(loaded, encode_choices(loaded, DATA, range(4), 1000), iv)
    with pytest.raises(OverflowedError):
        generate_answers(loaded, DATA, [0, 1], iv, 4, 1000)
    with pytest.raises(OverflowedError):
        make_parity(loaded, iv, [("neutral", text) for text in TEXTS])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strong_steering_within_the_range_gives_numbers(dtype: torch.dtype) -> None:
    loaded = loaded_as(dtype)
    found = side_effects(loaded, encode_neutral(loaded, TEXTS, 1000), push(loaded, 1e9))
    assert math.isfinite(found.cross_entropy) and found.kl > 0.5


@pytest.mark.parametrize("place", ["model.layers.1.mlp.down_proj", "model.norm"])
def test_an_unsteered_model_that_overflows_is_refused_with_the_mend(place: str) -> None:
    loaded = loaded_as(torch.float16)
    with torch.no_grad():
        loaded.model.get_submodule(place).get_parameter("weight").mul_(6e4)
    for read in (
        lambda: activations_at_last_token(loaded, TEXTS, 1000),
        lambda: encode_neutral(loaded, TEXTS, 1000),
    ):
        with pytest.raises(UserInputError, match="set model.dtype to bfloat16") as refused:
            read()
        assert not isinstance(refused.value, OverflowedError)


def test_activations_too_large_to_be_stored_are_refused_at_the_first_batch() -> None:
    loaded = loaded_as(torch.float32)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight.mul_(1e6)
    with pytest.raises(UserInputError, match=r"ends at 65504; set extraction.dtype to float32"):
        activations_at(loaded, TEXTS, None, 1000, "layer", largest=65504.0)
    assert activations_at_last_token(loaded, TEXTS, 1000, "layer").abs().max() > 65504
