"""Speed of evaluation after a long common preamble, with and without reading it only once.

    python -m tests.benchmarks.bench_prefix

Both calls read the same questions with the same model under the same intervention and differ in
``share_prefix`` alone; a figure is the median of several rounds, the two taking turns. The largest
difference between their log-likelihoods, or how many generated answers differ, stands beside it.
"""

from dataclasses import replace
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from real_tasks.evaluation.answers.choices import EncodedChoices, encode_choices, score_choices
from real_tasks.evaluation.answers.greedy import generate_answers
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.vocabulary.types import BehaviourData
from tests.benchmarks.arguments import parsed, parser_of
from tests.benchmarks.bench_extraction import (
    N_NEW_TOKENS,
    WORDS,
    demo_sized_data,
    seconds,
    texts_of,
)
from tests.unit.tiny_models import random_intervention, tiny_tokenizer

PREAMBLES = (50, 200, 400)
"""Tokens before every question; TruthfulQA's six-shot primer has about 200."""


def small_llama(device: str, d_model: int, n_layers: int) -> LoadedModel:
    """A random Llama with room for long prompts."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=230,
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=d_model // 8,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=2,
    )
    return prepare(LlamaForCausalLM(config), tiny_tokenizer(words=WORDS), device)


def bench_preambles(loaded: LoadedModel, rounds: int, batch_tokens: int, console: Console) -> None:
    """Print milliseconds with and without a shared prefix, by the preamble's length."""
    iv = random_intervention(loaded, "all", scale=0.1)
    table = Table(
        "pass", "tokens before", "read once, ms", "read always, ms", "ratio", "difference"
    )
    for n_tokens in PREAMBLES:
        (preamble,) = texts_of(1, mean=10 * n_tokens, longest=n_tokens, seed=0)
        data = replace(demo_sized_data(), preamble=f"{preamble} . ")
        once, always = (
            encode_choices(loaded, data, range(31), batch_tokens, share_prefix=share)
            for share in (True, False)
        )

        def scored(encoded: EncodedChoices) -> Tensor:
            return torch.tensor(sum(score_choices(loaded, encoded, iv), []))

        def said(share: bool, data: BehaviourData = data) -> list[str]:
            return generate_answers(
                loaded, data, range(31), iv, N_NEW_TOKENS, batch_tokens, share_prefix=share
            )

        worst = float((scored(once) - scored(always)).abs().max())
        differ = sum(a != b for a, b in zip(said(True), said(False), strict=True))
        pairs = {
            "choices, 233 answers": (partial(scored, once), partial(scored, always)),
            f"generation, {N_NEW_TOKENS} tokens": (partial(said, True), partial(said, False)),
        }
        for (name, pair), found in zip(
            pairs.items(), (f"{worst:.1e} nats", f"{differ} answers"), strict=True
        ):
            fast, slow = seconds(rounds, *pair)
            numbers = (f"{1e3 * fast:.1f}", f"{1e3 * slow:.1f}", f"{slow / fast:.1f}")
            table.add_row(name, str(len(once.prefix)), *numbers, found)
    console.print(table)


def main() -> None:
    """Run the benchmark."""
    parser = parser_of(__doc__)
    parser.add_argument("--batch-tokens", type=int, default=16384, help="most tokens of a batch")
    parser.add_argument("--width", type=int, default=128, help="width of the residual stream")
    parser.add_argument("--layers", type=int, default=5)
    arguments = parsed(parser)
    loaded = small_llama(arguments.device, arguments.width, arguments.layers)
    bench_preambles(loaded, arguments.rounds, arguments.batch_tokens, Console())


if __name__ == "__main__":
    main()
