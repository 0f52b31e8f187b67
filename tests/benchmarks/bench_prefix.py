"""Speed of evaluation after a long common preamble, with and without reading it only once.

Both calls read the same questions with the same model under the same intervention and differ in
``share_prefix`` alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from real_tasks.evaluation.answers.choices import EncodedChoices, encode_choices, score_choices
from real_tasks.evaluation.answers.greedy import generate_answers
from real_tasks.models.loading import LoadedModel
from tests.benchmarks.bench_extraction import N_NEW_TOKENS
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

PREAMBLES = (50, 200, 400)
"""Tokens before every question; TruthfulQA's six-shot primer has about 200."""
TYPICAL = 200
APART = 1e-3
"""Nats by which log-likelihoods may differ."""


def rows(options: Options) -> Iterator[Row]:
    loaded = small_llama(options.device)
    for n_tokens in options.sized(PREAMBLES, (TYPICAL,)):
        for name, pair in both_ways(loaded, n_tokens).items():
            fast, slow = (1e3 * taken for taken in seconds(options.rounds, *pair))
            what = f"{name} after {n_tokens} tokens that all share, ms"
            yield Row(what, fast, slow, "read for each", short=n_tokens == TYPICAL)


def both_ways(loaded: LoadedModel, n_tokens: int) -> dict[str, tuple[Callable[[], object], ...]]:
    """What is measured, with the preamble read once and for each question."""
    iv = random_intervention(loaded, "all", scale=0.1)
    (preamble,) = texts_of(1, mean=10 * n_tokens, longest=n_tokens, seed=0)
    data = replace(demo_sized_data(), preamble=f"{preamble} . ")
    once, always = (
        encode_choices(loaded, data, range(31), BATCH_TOKENS, share_prefix=share)
        for share in (True, False)
    )

    def scored(encoded: EncodedChoices) -> Tensor:
        return torch.tensor(sum(score_choices(loaded, encoded, iv), []))

    def said(share: bool) -> list[str]:
        return generate_answers(
            loaded, data, range(31), iv, N_NEW_TOKENS, BATCH_TOKENS, share_prefix=share
        )

    assert float((scored(once) - scored(always)).abs().max()) < APART
    return {
        "multiple choice": (partial(scored, once), partial(scored, always)),
        "generation": (partial(said, True), partial(said, False)),
    }
