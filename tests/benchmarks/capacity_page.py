"""The tables of deployments/CAPACITY.md; ``python -m tests.benchmarks.capacity_page`` prints."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from real_tasks.experiment.planning.costs import size_of_shape
from real_tasks.experiment.planning.plan import plan
from real_tasks.experiment.planning.rows import Plan
from real_tasks.experiment.planning.workload import DataSize
from real_tasks.experiment.yaml_files import load_config
from real_tasks.vocabulary.config import KnownShape, ModelConfig
from real_tasks.vocabulary.types import ModelShape

EXPERIMENTS = Path(__file__).parents[2] / "deployments/experiments"
TRUTHFULQA = DataSize(
    n_questions=817,
    n_answers=6202,
    mean_tokens=14.5,
    prompt_tokens=173.0,
    measures=("multiple_choice",),
    prompt_share=14.3 / 173,
    prefix_tokens=145.0,
)
"""Counted in TruthfulQA.csv with four characters a token; the primer of six shots is the prefix."""

LLAMA_2_70B = KnownShape(
    n_layers=80, n_heads=64, head_dim=128, d_model=8192, parameters=68_976_648_192
)
"""config.json of meta-llama/Llama-2-70b-hf."""
MODELS = {
    "Llama 2 7B": "llama-2-7b-hf",
    "Qwen 2.5 7B": "qwen2.5-7b",
    "Llama 3.1 8B": "llama-3.1-8b-instruct",
    "Llama 2 13B": "llama-2-13b-chat-hf",
    "Llama 2 70B": None,
}
QUESTIONS = (100, 817, 10_000)


def planned(model: str, protocol: str, size: DataSize) -> Plan:
    """Plan one of `MODELS` without looking for its checkpoint, locally or on the Hub."""
    name = MODELS[model]
    files = [EXPERIMENTS / "models" / f"{name}.yaml"] if name else []
    config = load_config([*files, EXPERIMENTS / f"{protocol}.yaml"], [])
    known = config.model.shape if name else LLAMA_2_70B
    assert known is not None
    shape = ModelShape(known.n_layers, known.n_heads, known.head_dim, known.d_model)
    model_config = ModelConfig(path=model, dtype="float16", shape=known)
    return plan(config, shape, size, size_of_shape(model_config, shape))


def tables() -> Iterator[str]:
    """Yield the lines of both tables."""
    yield (
        "| model | heads | weights | activations on disk | memory: extraction, evaluation | "
        "localizer | FLOPs: model, localizer |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for model in MODELS:
        yield _model_row(model, planned(model, "paper", TRUTHFULQA))
    yield ""
    yield (
        "| questions (7.6 answers each) | model | activations on disk | shards | localizer memory "
        "| FLOPs, `paper` | FLOPs, `sweep` |"
    )
    yield "|---:|---|---:|---:|---:|---:|---:|"
    for model in ("Llama 2 7B", "Llama 2 70B"):
        for n in QUESTIONS:
            yield _questions_row(n, model)


def _model_row(model: str, found: Plan) -> str:
    of_model = sum(stage.model_flops for stage in found.stages)
    of_localizer = sum(stage.localizer_flops for stage in found.stages)
    return (
        f"| {model} | {found.modules['head']:,} | {_gb(found.model.weight_bytes)} | "
        f"{_gb(found.activation_bytes)} | {_gb(found.extraction_bytes)}, "
        f"{_gb(found.evaluation_bytes)} | {_gb(found.localizer_bytes)} | "
        f"{of_model:.1e}, {of_localizer:.1e} |"
    )


def _questions_row(n: int, model: str) -> str:
    scale = n / TRUTHFULQA.n_questions
    size = replace(TRUTHFULQA, n_questions=n, n_answers=round(scale * TRUTHFULQA.n_answers))
    paper, sweep = (planned(model, protocol, size) for protocol in ("paper", "sweep"))
    return (
        f"| {n:,} | {model} | {_gb(paper.activation_bytes)} | {paper.sample_shards} | "
        f"{_gb(paper.localizer_bytes)} | {paper.flops:.1e} | {sweep.flops:.1e} |"
    )


def _gb(n: float) -> str:
    return f"{n / 1e9:.1f} GB" if n < 1e10 else f"{n / 1e9:.0f} GB"


if __name__ == "__main__":
    for line in tables():
        sys.stdout.write(f"{line}\n")
