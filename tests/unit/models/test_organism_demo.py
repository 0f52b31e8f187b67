"""The embedded demo model is an ordinary checkpoint with an ordinary tokenizer."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.embedded.corpus import generate_corpus
from real_tasks.models.embedded.demo import DemoModel, build_tokenizer, encode
from real_tasks.models.embedded.world import generate_world
from real_tasks.questions.behaviours import BEHAVIOURS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    build(folder)
    return folder


def build(folder: Path, **params: int) -> dict[str, object]:
    model = DemoModel(DemoModel.Params(steps=5, **params))
    return model.build(folder, ignore_progress)


def ignore_progress(done: int, total: int) -> None:
    """Progress is not looked at."""


def test_the_demo_is_registered_by_its_name() -> None:
    assert EMBEDDED_MODELS["demo"] is DemoModel


def test_the_checkpoint_loads_through_the_auto_classes_with_its_shape(checkpoint: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (8, 4)
    assert model.config.head_dim == 32 != model.config.hidden_size // 8
    assert all(layer.self_attn.o_proj.in_features == 256 for layer in model.model.layers)
    shape = DemoModel(DemoModel.Params()).shape()
    assert shape.n_layers == len(model.model.layers) == 5


def test_the_checkpoint_generates_and_knows_its_special_tokens(checkpoint: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    special = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    assert len({*special, tokenizer.unk_token_id}) == 4
    generation = model.generation_config
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == special
    prompt = tokenizer("Q: what is", return_tensors="pt", return_token_type_ids=False)
    assert model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[1] <= 7


def test_the_same_parameters_give_bit_identical_files_and_another_seed_others(
    checkpoint: Path, tmp_path: Path
) -> None:
    build(tmp_path / "again")
    build(tmp_path / "other", seed=1)
    weights = [
        load_file(folder / "model.safetensors")
        for folder in (checkpoint, tmp_path / "again", tmp_path / "other")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_the_facts_of_a_build_are_plain_numbers(tmp_path: Path) -> None:
    facts = build(tmp_path)
    assert facts["steps"] == 5
    assert facts["parameters"] == 1_009_920
    assert all(isinstance(value, int | float) for value in facts.values())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_tokenizer_knows_every_word_of_the_behaviour_and_gives_texts_back(seed: int) -> None:
    tokenizer = build_tokenizer(generate_world(seed))
    behaviour = BEHAVIOURS["demo_truth"]
    data = behaviour(behaviour.Params(world_seed=seed)).load()
    texts = [data.full_text(question, a) for question in data.questions for a in question.answers]
    for text in [*texts, *data.neutral_texts]:
        token_ids = tokenizer(text).input_ids
        assert token_ids[0] == tokenizer.bos_token_id
        assert tokenizer.unk_token_id not in token_ids
        assert len(token_ids) == 1 + len(text.split())
        assert tokenizer.decode(token_ids, skip_special_tokens=True) == text


def test_the_tokenizer_of_the_checkpoint_is_the_one_it_was_trained_with(checkpoint: Path) -> None:
    world = generate_world(0)
    loaded, built = AutoTokenizer.from_pretrained(checkpoint), build_tokenizer(world)
    for document in generate_corpus(world, 20, seed=0):
        text = " ".join(document.words)
        assert loaded(text).input_ids == built(text).input_ids


def test_words_of_questions_weigh_little_and_an_unknown_word_is_unk() -> None:
    world = generate_world(0)
    tokenizer = build_tokenizer(world)
    assert tokenizer("zzz").input_ids == [tokenizer.bos_token_id, tokenizer.unk_token_id]
    for document in generate_corpus(world, 20, seed=0):
        encoded = encode(document, tokenizer)
        assert len(encoded.token_ids) == len(encoded.loss_weights) == len(document.words) + 2
        weights = encoded.loss_weights
        assert (weights[0], weights[-1]) == (0.0, 1.0)
        for weight, asked in zip(weights[1:-1], document.in_question, strict=True):
            assert weight == (0.1 if asked else 1.0)
