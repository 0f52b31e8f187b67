"""Speed and memory of extraction and evaluation, beside one prompt at a time on the same machine.

    python -m tests.benchmarks.bench_extraction

The baseline reads a prompt at a time through the whole model and keeps all hidden states, all
logits and the inputs of all output projections, as scripts in the field do. Both read the same
texts; a figure is the median of several rounds, the two taking turns. Peak memory is that of a
process of its own that extracts shard after shard.
"""

import argparse
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from real_tasks.evaluation.answers.choices import encode_choices, score_choices
from real_tasks.evaluation.answers.greedy import generate_answers
from real_tasks.evaluation.side_effects import encode_neutral, side_effects
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.models.places import output_projections
from real_tasks.reading.activations import activations_at_last_token
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.vocabulary.types import Answer, BehaviourData, Question
from tests.benchmarks.arguments import parsed, parser_of
from tests.unit.tiny_models import MARKS, SPECIAL, random_intervention, tiny_tokenizer

WORDS = tuple(f"w{i}" for i in range(230 - len(SPECIAL) - len(MARKS)))
N_NEW_TOKENS = 8
SHARD = 512
TARGET = 4.0


def demo_sized(device: str) -> LoadedModel:
    """A random Llama of the embedded demo model's size: 1.0 M parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=230,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=2,
    )
    return prepare(LlamaForCausalLM(config), tiny_tokenizer(words=WORDS), device)


def texts_of(n: int, mean: int, longest: int, seed: int) -> list[str]:
    """Texts whose numbers of words are spread as those of questions are: log-normally."""
    draw = random.Random(seed)
    lengths = [min(longest, 2 + int(draw.lognormvariate(0, 0.5) * mean)) for _ in range(n)]
    return [" ".join(draw.choices(WORDS, k=length)) for length in lengths]


def demo_sized_data() -> BehaviourData:
    """31 questions with 233 answers of about 15 tokens in all, and 48 neutral texts of about 45."""
    draw = random.Random(0)

    def words(low: int, high: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    questions = []
    for q in range(31):
        answers = [
            Answer(f"{q}/{i}", f"{words(2, 5)} .", int(i < 3), i == 0) for i in range(8 - q % 2)
        ]
        questions.append(Question(str(q), f"{words(4, 7)} ?", "any", tuple(answers)))
    neutral = tuple(words(30, 58) for _ in range(48))
    return BehaviourData("demo-sized", tuple(questions), neutral, stop=())


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


def seconds(rounds: int, *tasks: Callable[[], object]) -> list[float]:
    """Median wall time of each task; they take turns, so that a busy machine hurts all alike."""
    for task in tasks:
        task()
    times: list[list[float]] = [[] for _ in tasks]
    for _ in range(rounds):
        for task, taken in zip(tasks, times, strict=True):
            start = time.perf_counter()
            task()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def bench_speed(loaded: LoadedModel, rounds: int, console: Console) -> None:
    """Print milliseconds of each pass and of its baseline."""
    data = demo_sized_data()
    everywhere = random_intervention(loaded, "all", scale=0.1)
    unrelated = texts_of(400, mean=15, longest=60, seed=0)
    answers = [data.full_text(q, a) for q in data.questions for a in q.answers]
    choices = encode_choices(loaded, data, range(31), 16384)
    neutral = encode_neutral(loaded, data.neutral_texts, 16384)
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "extraction, 233 answers to 31 questions": (
            lambda: activations_at_last_token(loaded, answers, 8192),
            lambda: one_prompt_at_a_time(loaded, answers),
        ),
        "extraction, 400 unrelated texts": (
            lambda: activations_at_last_token(loaded, unrelated, 8192),
            lambda: one_prompt_at_a_time(loaded, unrelated),
        ),
        "choices, 233 answers to 31 questions": (
            lambda: score_choices(loaded, choices, everywhere),
            lambda: one_answer_at_a_time(loaded, data, everywhere),
        ),
        "side effects, 48 texts": (
            lambda: side_effects(loaded, neutral, everywhere),
            lambda: one_text_at_a_time(loaded, data.neutral_texts, everywhere),
        ),
        f"generation, 31 answers of {N_NEW_TOKENS} tokens": (
            lambda: generate_answers(loaded, data, range(31), everywhere, N_NEW_TOKENS, 16384),
            lambda: one_generation_at_a_time(loaded, data, everywhere),
        ),
    }
    table = Table("pass", "ms", "one at a time, ms", f"ratio (target {TARGET:g})")
    for name, (ours, baseline) in pairs.items():
        fast, slow = seconds(rounds, ours, baseline)
        table.add_row(name, f"{1e3 * fast:.1f}", f"{1e3 * slow:.1f}", f"{slow / fast:.1f}")
        if name.startswith("extraction"):
            texts = unrelated if "unrelated" in name else answers
            n_tokens = sum(len(row) for row in loaded.tokenizer(texts)["input_ids"])
            table.add_row("  in tokens/s", f"{n_tokens / fast:,.0f}", f"{n_tokens / slow:,.0f}", "")
    console.print(table)


def peak_of_shards(n_shards: int, device: str) -> float:
    """Extract shard after shard and return this process's peak memory, in MiB."""
    loaded = demo_sized(device)
    for shard in range(n_shards):
        activations_at_last_token(
            loaded, texts_of(SHARD, mean=15, longest=60, seed=shard % 2), 8192
        )
    if loaded.device.type == "cuda":
        return torch.cuda.max_memory_allocated(loaded.device) / 2**20
    # Kibibytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


def bench_memory(device: str, console: Console) -> None:
    """Print the peak memory of few and of eight times as many texts, each in its own process."""
    table = Table("texts, in shards of " + str(SHARD), "peak memory, MiB", "growth")
    peaks: list[float] = []
    for n_shards in (2, 16):
        command = [sys.executable, "-m", "tests.benchmarks.bench_extraction"]
        command += ["--device", device, "--shards", str(n_shards)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks.append(float(out))
        growth = f"{peaks[-1] / peaks[0] - 1:+.1%}"
        table.add_row(f"{SHARD * n_shards:,}", f"{peaks[-1]:.0f}", growth)
    console.print(table)


def main() -> None:
    """Run the benchmarks, or one process of the memory benchmark."""
    parser = parser_of(__doc__)
    parser.add_argument("--shards", type=int, help=argparse.SUPPRESS)
    arguments = parsed(parser)
    if arguments.shards:
        sys.stdout.write(f"{peak_of_shards(arguments.shards, arguments.device)}\n")
        return
    console = Console()
    bench_speed(demo_sized(arguments.device), arguments.rounds, console)
    bench_memory(arguments.device, console)


if __name__ == "__main__":
    main()
