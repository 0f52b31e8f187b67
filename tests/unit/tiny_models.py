"""Tiny random models and tokenizers that tests and benchmarks run on; nothing is downloaded."""

import random
from dataclasses import replace
from typing import Literal

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from real_tasks.interventions import Intervention
from real_tasks.models import LoadedModel, prepare
from real_tasks.types import Answer, BehaviourData, Question, TokenScope

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
MARKS = ("Q:", "A:", "?", ".")
WORDS = tuple(f"w{i}" for i in range(60))


def tiny_tokenizer(
    padding_side: Literal["left", "right"] = "right",
    words: tuple[str, ...] = WORDS,
    ends_with_eos: bool = False,
) -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *MARKS, *words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    template = "<bos> $A <eos>" if ends_with_eos else "<bos> $A"
    tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side=padding_side,
    )


def tiny_llama(seed: int = 0, n_layers: int = 3, max_positions: int = 128) -> PreTrainedModel:
    """Eight heads of 12 on a hidden size of 32: heads times head_dim is not the hidden size."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(MARKS) + len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=n_layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=12,
        max_position_embeddings=max_positions,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def tiny_qwen2(seed: int = 0, sliding_window: int | None = None) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(SPECIAL) + len(MARKS) + len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        use_sliding_window=sliding_window is not None,
        sliding_window=sliding_window,
        max_window_layers=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return Qwen2ForCausalLM(config)


def tiny_loaded(
    seed: int = 0, padding_side: Literal["left", "right"] = "right", **tokenizer: bool
) -> LoadedModel:
    return prepare(tiny_llama(seed), tiny_tokenizer(padding_side, **tokenizer))


def random_texts(n: int, shortest: int = 2, longest: int = 20, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    lengths = [draw.randint(shortest, longest) for _ in range(n)]
    return [" ".join(draw.choice(WORDS) for _ in range(length)) for length in lengths]


def random_data(n_questions: int = 6, seed: int = 0) -> BehaviourData:
    """Questions of 2 to 8 words with 3 to 5 answers of 1 to 6 words, and some neutral texts."""
    draw = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(low, high)))

    questions = []
    for q in range(n_questions):
        labels = [1, 0, *draw.choices((0, 1), k=draw.randint(1, 3))]
        answers = [Answer(f"q{q}a{i}", f"{words(1, 6)} .", label) for i, label in enumerate(labels)]
        answers[0] = replace(answers[0], is_best=True)
        questions.append(Question(f"q{q}", f"{words(2, 8)} ?", "any", tuple(answers)))
    neutral = tuple(random_texts(5, seed=seed + 1))
    return BehaviourData("random", tuple(questions), neutral)


def random_intervention(
    loaded: LoadedModel, scope: TokenScope, seed: int = 0, scale: float = 2.0
) -> Intervention:
    generator = torch.Generator().manual_seed(seed)
    width = loaded.shape.n_heads * loaded.shape.head_dim
    layers = range(0, loaded.shape.n_layers, 2)
    return Intervention({i: scale * torch.randn(width, generator=generator) for i in layers}, scope)
