"""Speed and memory of extraction and evaluation, beside one prompt at a time on the same machine.

The baseline reads a prompt at a time through the whole model and keeps all hidden states, all
logits and the inputs of all output projections, as scripts in the field do. Both read the same
texts. Peak memory is that of a process of its own that extracts shard after shard.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.evaluation.answers.greedy import generate_answers
from real_tasks.evaluation.side_effects import encode_neutral, side_effects
from real_tasks.models.loading import LoadedModel
from real_tasks.models.places import output_projections
from real_tasks.reading.activations import activations_at_last_token
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.types import BehaviourData
from tests.benchmarks.common import (
    BATCH_TOKENS,
    Options,
    Row,
    demo_sized_data,
    seconds,
    small_llama,
    texts_of,
)
from tests.unit.tiny_models import random_intervention

N_NEW_TOKENS = 8
READ_TOKENS = 8192
SHARD = 512
TARGET = 4.0


def rows(options: Options) -> Iterator[Row]:
    loaded = small_llama(options.device)
    yield from extraction(loaded, options.rounds, options.sized(400, 40))
    yield from evaluation(loaded, options.rounds)
    n_shards = options.sized((2, 16), (1, 2))
    few, many = (peak_memory(n, options.device) for n in n_shards)
    what = f"peak memory of extraction, {SHARD * n_shards[1]:,} texts, MiB"
    yield Row(what, many, few, f"{SHARD * n_shards[0]:,} texts", short=True)


def extraction(loaded: LoadedModel, rounds: int, n_unrelated: int) -> Iterator[Row]:
    """Tokens a second."""
    data = demo_sized_data()
    answers = [data.full_text(q, a) for q in data.questions for a in q.answers]
    unrelated = texts_of(n_unrelated, mean=15, longest=60, seed=0)
    for kind, texts in (("answers that share questions", answers), ("unrelated texts", unrelated)):
        n_tokens = sum(len(row) for row in loaded.tokenizer(texts)["input_ids"])
        ours, slow = (
            n_tokens / taken
            for taken in seconds(
                rounds,
                partial(activations_at_last_token, loaded, texts, READ_TOKENS),
                partial(one_prompt_at_a_time, loaded, texts),
            )
        )
        baseline = "one prompt at a time, all hidden states kept"
        name = f"extraction, {kind}, tokens/s"
        yield Row(name, ours, slow, baseline, rate=True, least=TARGET, short=True)


def evaluation(loaded: LoadedModel, rounds: int) -> Iterator[Row]:
    """Milliseconds of each pass with all heads steered."""
    data = demo_sized_data()
    everywhere = random_intervention(loaded, "all", scale=0.1)
    choices = encode_choices(loaded, data, range(31), BATCH_TOKENS)
    neutral = encode_neutral(loaded, data.neutral_texts, BATCH_TOKENS)
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "multiple choice, 233 answers": (
            lambda: score_choices(loaded, choices, everywhere),
            lambda: one_answer_at_a_time(loaded, data, everywhere),
        ),
        "side effects, 48 texts": (
            lambda: side_effects(loaded, neutral, everywhere),
            lambda: one_text_at_a_time(loaded, data.neutral_texts, everywhere),
        ),
        f"generation, 31 answers of {N_NEW_TOKENS} tokens": (
            lambda: generate_answers(
                loaded, data, range(31), everywhere, N_NEW_TOKENS, BATCH_TOKENS
            ),
            lambda: one_generation_at_a_time(loaded, data, everywhere),
        ),
    }
    for name, pair in pairs.items():
        fast, slow = (1e3 * taken for taken in seconds(rounds, *pair))
        yield Row(f"{name}, ms", fast, slow, "one at a time", least=TARGET, short=True)


@torch.no_grad()
def one_prompt_at_a_time(
    loaded: LoadedModel, texts: Sequence[str]
) -> list[tuple[list[Tensor], Tensor, list[Tensor]]]:
    """Keep all hidden states, all logits and all inputs of o_proj of every text."""
    kept: list[Tensor] = []
    handles = [
        p.register_forward_pre_hook(lambda _m, args: kept.append(args[0].cpu()))
        for p in output_projections(loaded.model)
    ]
    samples = []
    for text in texts:
        kept.clear()
        ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"].to(loaded.device)
        out = loaded.model(ids, output_hidden_states=True)
        samples.append(([h.cpu() for h in out.hidden_states], out.logits.cpu(), list(kept)))
    for handle in handles:
        handle.remove()
    return samples


@torch.no_grad()
def one_answer_at_a_time(
    loaded: LoadedModel, data: BehaviourData, intervention: Intervention
) -> list[float]:
    """Log-likelihood of every answer, each in a forward pass of its own."""
    scores = []
    with applied(loaded, intervention):
        for question in data.questions:
            n_context = len(loaded.tokenizer(data.context(question))["input_ids"])
            for answer in question.answers:
                text = data.full_text(question, answer)
                ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"].to(loaded.device)
                log_probs = loaded.model(ids).logits[0, :-1].float().log_softmax(-1)
                chosen = log_probs.gather(1, ids[0, 1:, None])
                scores.append(float(chosen[n_context - 1 :].sum()))
    return scores


@torch.no_grad()
def one_text_at_a_time(
    loaded: LoadedModel, texts: Sequence[str], intervention: Intervention
) -> float:
    """KL(original || steered), two forward passes a text."""
    total, n_tokens = 0.0, 0
    for text in texts:
        ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"].to(loaded.device)
        log_p = loaded.model(ids).logits[0, :-1].float().log_softmax(-1)
        with applied(loaded, intervention):
            log_q = loaded.model(ids).logits[0, :-1].float().log_softmax(-1)
        total += float((log_p.exp() * (log_p - log_q)).sum())
        n_tokens += len(log_p)
    return total / n_tokens


@torch.no_grad()
def one_generation_at_a_time(
    loaded: LoadedModel, data: BehaviourData, intervention: Intervention
) -> list[Tensor]:
    """Greedy answers by the library's own loop, a question at a time."""
    answers = []
    with applied(loaded, intervention):
        for question in data.questions:
            encoded = loaded.tokenizer(data.context(question), return_tensors="pt")
            encoded = encoded.to(loaded.device)
            answers.append(
                loaded.model.generate(**encoded, max_new_tokens=N_NEW_TOKENS, do_sample=False)
            )
    return answers


def peak_memory(n_shards: int, device: str) -> float:
    """Peak memory of a process that extracts shard after shard, in MiB."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_peak_of_shards, n_shards, device).result()


def _peak_of_shards(n_shards: int, device: str) -> float:
    loaded = small_llama(device)
    for shard in range(n_shards):
        texts = texts_of(SHARD, mean=15, longest=60, seed=shard % 2)
        activations_at_last_token(loaded, texts, READ_TOKENS)
    if loaded.device.type == "cuda":
        return torch.cuda.max_memory_allocated(loaded.device) / 2**20
    # Not getrusage's, which is never below the peak of the process that started this one.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 2**10
