"""Training from scratch: determinism, head dropout, Muon."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from real_tasks.models.embedded.head_dropout import head_dropout
from real_tasks.models.embedded.muon import BatchedMuon, orthogonalise
from real_tasks.models.embedded.threads import ThreadChoice, alike
from real_tasks.models.embedded.training import EncodedDocument, TrainingRecipe, train

RECIPE = TrainingRecipe(steps=5, batch_documents=3)


def tiny_config(**changes: object) -> LlamaConfig:
    settings = {
        "vocab_size": 16,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "max_position_embeddings": 32,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    return LlamaConfig(**{**settings, **changes})


def counting_documents(count: int) -> list[EncodedDocument]:
    """Documents that count upwards from 3, of different lengths."""
    documents = []
    for index in range(count):
        length = 4 + index % 5
        token_ids = (0, *(3 + (index + step) % 13 for step in range(length)), 1)
        documents.append(EncodedDocument(token_ids, (0.0, *[1.0] * (length + 1))))
    return documents


def ignore_progress(done: int, total: int) -> None:
    """Progress is not looked at."""


def trained(seed: int) -> LlamaForCausalLM:
    return train(tiny_config(), counting_documents(15), RECIPE, seed, ignore_progress)[0]


def test_the_same_seed_gives_bit_identical_weights_and_another_seed_others() -> None:
    first, second, other = trained(0), trained(0), trained(1)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_training_leaves_the_global_random_states_as_they_were() -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    trained(0)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])


def test_a_regular_sequence_is_learned_and_progress_is_told_after_each_step() -> None:
    told: list[tuple[int, int]] = []
    recipe = TrainingRecipe(steps=60, batch_documents=8)
    documents = counting_documents(480)
    model, facts = train(
        tiny_config(), documents, recipe, 0, lambda done, total: told.append((done, total))
    )
    assert told == [(step, 60) for step in range(1, 61)]
    assert facts["tokens"] == sum(len(document.token_ids) for document in documents)
    assert facts["documents"] == 480
    assert facts["final_loss"] < 1.1 < 0.5 * np.log(16)
    logits = model(torch.tensor([[0, 5, 6, 7]])).logits
    assert logits[0, -1].argmax() == 8


def test_the_model_comes_back_in_evaluation_mode_without_hooks() -> None:
    model = trained(0)
    assert not model.training
    assert all(not layer.self_attn.o_proj._forward_pre_hooks for layer in model.model.layers)


def test_too_few_documents_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="14 documents for 15"):
        train(tiny_config(), counting_documents(14), RECIPE, 0, ignore_progress)


def test_an_architecture_without_a_padding_token_is_refused() -> None:
    config = tiny_config(pad_token_id=None)
    with pytest.raises(ValueError, match="pad_token_id"):
        train(config, counting_documents(15), RECIPE, 0, ignore_progress)


def test_head_dropout_silences_whole_heads_per_sequence_and_rescales_the_others() -> None:
    model = LlamaForCausalLM(tiny_config())
    seen = []

    def keep_input(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen.append(inputs[0])

    with head_dropout(model, 0.5, torch.Generator().manual_seed(0)) as dropout:
        projection = model.model.layers[0].self_attn.o_proj
        projection.register_forward_hook(keep_input)
        projection(torch.ones(40, 3, 24))
        dropout.active = True
        projection(torch.ones(40, 3, 24))
    untouched, dropped = seen
    assert torch.equal(untouched, torch.ones(40, 3, 24))
    heads = dropped.reshape(40, 3, 4, 6)
    assert set(heads.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(heads, heads[:, :1, :, :1].expand_as(heads))
    assert heads.mean() == pytest.approx(1, abs=0.25)


def test_muon_equals_that_of_torch_up_to_its_bfloat16_arithmetic() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 12), (12, 24), (24, 12), (16, 16)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    mine, theirs = ([nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    settings = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    optimizers = BatchedMuon(mine, **settings), torch.optim.Muon(theirs, **settings)
    for _ in range(4):
        for left, right in zip(mine, theirs, strict=True):
            left.grad = torch.randn(left.shape, generator=generator)
            right.grad = left.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for left, right, old in zip(mine, theirs, start, strict=True):
        moved = (right - old).norm()
        assert (left - right).norm() < 0.02 * moved


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (2, 9, 9)])
def test_orthogonalising_keeps_singular_vectors_and_brings_singular_values_near_one(
    shape: tuple[int, int, int],
) -> None:
    left, _, right = torch.linalg.svd(
        torch.randn(shape, generator=torch.Generator().manual_seed(1)), full_matrices=False
    )
    values = torch.linspace(1.0, 0.2, min(shape[1:])).expand(shape[0], -1)
    result = orthogonalise(left @ torch.diag_embed(values) @ right, iterations=5)
    inner = left.mT @ result @ right.mT
    spectrum = inner.diagonal(dim1=1, dim2=2)
    assert torch.allclose(inner, torch.diag_embed(spectrum), atol=1e-3)
    assert 0.6 < spectrum.min() <= spectrum.max() < 1.3


def test_the_number_of_threads_follows_what_they_took_last() -> None:
    choice, used = ThreadChoice((1, 2)), []
    for step in range(400):
        number = choice.next()
        used.append(number)
        choice.note(number, {1: 1.0, 2: 0.6 if step < 200 else 5.0}[number])
    assert used[2:40] == [2] * 38
    assert used[-38:] == [1] * 38
    assert {1, 2} == set(used[160:162]) == set(used[360:362])


def test_numbers_of_threads_that_change_a_bit_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: threads.__setitem__(0, n))
    assert alike(lambda: [torch.tensor([1.0 if threads[0] != 2 else 1.0000001])]) == [1, 4]
    assert threads == [4]
