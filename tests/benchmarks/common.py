"""What benchmarks share: their options, rows and clock, a small model and texts for it."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.vocabulary.types import Answer, BehaviourData, Question
from tests.unit.tiny_models import MARKS, SPECIAL, tiny_tokenizer

WORDS = tuple(f"w{i}" for i in range(230 - len(SPECIAL) - len(MARKS)))
BATCH_TOKENS = 16384
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How to measure: torch's device and threads (0: its default), rounds of a median, sizes."""

    device: str = "cpu"
    threads: int = 0
    rounds: int = 3
    small: bool = False

    def sized(self, full: T, small: T) -> T:
        return small if self.small else full


@dataclass(frozen=True)
class Row:
    """What is measured, with its unit, ours and the baseline's; both in the same run."""

    what: str
    ours: float
    instead: float
    baseline: str
    rate: bool = False
    """More is better."""
    least: float | None = None
    """The least ratio that will do."""
    short: bool = False
    """Shown in the README, too."""

    @property
    def ratio(self) -> float:
        """How many times as good as the baseline."""
        return self.ours / self.instead if self.rate else self.instead / self.ours

    @property
    def enough(self) -> bool:
        return self.least is None or self.ratio >= self.least


def seconds(
    rounds: int, *tasks: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Median time of each task; they take turns, so that a busy machine hurts all alike."""
    for task in tasks:
        task()
    times: list[list[float]] = [[] for _ in tasks]
    for _ in range(rounds):
        for task, taken in zip(tasks, times, strict=True):
            start = clock()
            task()
            taken.append(clock() - start)
    return [statistics.median(taken) for taken in times]


def small_llama(device: str, d_model: int = 128, n_layers: int = 5) -> LoadedModel:
    """A random Llama with room for long prompts; as it is, of the embedded demo model's size."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=230,
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=max(32, d_model // 8),
        max_position_embeddings=1024,
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
