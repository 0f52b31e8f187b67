"""What REAL's parameters do to how well it reads, beside logistic probes.

Run it as `python -m tests.benchmarks.ablate_real MODEL BEHAVIOUR --set KEY=VALUE`, where MODEL is
the folder of a checkpoint. It prints rows of the tables in deployments/docs/real-ablation.md,
which says what the columns are.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from real_tasks.localizers.real.plan import FitPlan, cross_fit_plan
from real_tasks.localizers.roc import roc_auc
from real_tasks.models.loading import load_model
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.folds import split
from real_tasks.questions.groups import question_groups
from real_tasks.questions.samples import samples_of
from real_tasks.reading.activations import activations_at_last_token
from real_tasks.reading.prompts import reading_text
from real_tasks.results.comparing.agreement import spearman
from real_tasks.steering.probes import ProbeParams, fit_probes
from real_tasks.vocabulary.config import DataConfig
from real_tasks.vocabulary.types import BehaviourData, LocalizerInput, ModuleId
from tests.benchmarks.real_variants import Variant, scores_of

BATCH_TOKENS, PROBE_FOLDS = 2048, 3
CHANGES = (
    "",
    "codebook_size=32 learning_rate=1e-3 contrastive_weight=1e-3 temperature=.07 "
    "prior_embedding=64 prior_hidden=64 prior_learning_rate=1e-3",  # The published numbers.
    "contrastive_weight=.03 temperature=.07 epochs=40 prior_epochs=15",  # Earlier defaults.
    "contrastive_weight=30",
    "temperature=3",
    "epochs=12",
    "prior_epochs=6",
    "prior_epochs=15",
    "prior_hidden=64 prior_embedding=64",
    "codebook_size=32",
    "units=4",
    "units=16",
    "cross_folds=5",
    "batch_size=64",
    "standardise=false",
    "seed=1",
    "seeds=2",
    "stop_priors=true",
    "stop_autoencoder=true",
    "stop_autoencoder=true stop_priors=true epochs=40 prior_epochs=30",
    "shared=codebook",
    "shared=codebook by=all",
    "shared=autoencoder",
    "shared=autoencoder by=all",
    "whitening=.1",
    "hidden_dropout=.2",
)


@dataclass(frozen=True)
class Fold(LocalizerInput):
    """The training answers of a fold, and others: of ``test`` questions, or held out."""

    test: Tensor = field(kw_only=True)


Scorer = Callable[[Fold], Tensor]


def values_of(settings: Sequence[str]) -> dict[str, str]:
    """Return the values of KEY=VALUE."""
    return dict(one.split("=", 1) for one in settings)


def chosen_questions(data: BehaviourData, n: int) -> BehaviourData:
    """Return ``n`` of the questions, drawn with seed 0, in their order."""
    chosen = sorted(np.random.default_rng(0).permutation(len(data.questions))[:n].tolist())
    return replace(data, questions=tuple(data.questions[index] for index in chosen))


def folds_of(folder: str, data: BehaviourData, layers: list[int]) -> Iterator[Fold]:
    """Read the heads of some layers (none: all); by fold."""
    loaded, samples = load_model(folder), samples_of(data)
    texts = [reading_text(loaded, data, one.question, one.answer) for one in samples]
    values = activations_at_last_token(loaded, texts, BATCH_TOKENS)
    layers = layers or list(range(values.shape[1]))
    modules = tuple(
        ModuleId("head", layer, head) for layer in layers for head in range(values.shape[2])
    )
    labels = torch.tensor([one.answer.label for one in samples])
    questions = torch.tensor([one.question_index for one in samples])
    values = values[:, layers].flatten(1, 2).transpose(0, 1)
    for fold in range(2):
        parts = split(question_groups(data.questions), fold, DataConfig(validation_share=0.2))
        train, test = (
            torch.isin(questions, torch.tensor(part)) for part in (parts.train, parts.test)
        )
        yield Fold(modules, values, labels, questions, train, test=test)


def out_of_fold(scores: Tensor, plan: FitPlan, data: LocalizerInput) -> Tensor:
    """Join scores [fit, module, sample]: a training answer's by the fit that never saw it."""
    joined = scores.mean(dim=0)
    for fit, scored in enumerate(plan.scored):
        joined[:, scored] = scores[fit][:, scored]
    return joined


def by_real(params: Variant) -> Scorer:
    """Return what scores answers by REAL."""

    def score(data: Fold) -> Tensor:
        scores = []
        for seed in range(params.seed, params.seed + params.seeds):
            plan = cross_fit_plan(data, params.cross_folds, seed)
            held = (~data.train & ~data.test).nonzero().squeeze(1)
            scores.append(out_of_fold(scores_of(data, held, plan, params, seed), plan, data))
        return torch.stack(scores).mean(dim=0)

    return score


def by_probe(data: Fold) -> Tensor:
    """Score by logistic probes on the same folds; test questions by one on all of the training."""
    plan, train = cross_fit_plan(data, PROBE_FOLDS, 0), data.train.nonzero().squeeze(1)
    fits = [
        fit_probes(data.values[:, part], data.labels[part], ProbeParams()).log_odds(data.values)
        for part in (*plan.autoencoder, train)
    ]
    scores = out_of_fold(torch.stack(fits[:-1]), plan, data)
    return torch.where(data.train, scores, fits[-1])


def row(name: str, score: Scorer, folds: list[Fold]) -> str:
    """Measure one localizer: a row of the table."""
    started = time.process_time()
    scores = [score(data) for data in folds]
    seconds = (time.process_time() - started) / sum(len(data.modules) for data in folds)
    pairs = list(zip(scores, folds, strict=True))
    seen, unseen = (
        torch.stack(
            [
                roc_auc(s[:, part], data.labels[part])
                for s, data in pairs
                for part in [getattr(data, name)]
            ]
        )
        for name in ("train", "test")
    )
    rho = spearman(seen[0].numpy(), seen[1].numpy())
    columns = (seen.mean(), unseen.mean(), unseen.amax(dim=1).mean())
    return "".join(
        [
            f"| {name} |",
            *(f" {float(one):.3f} |" for one in columns),
            f" {rho:.2f} | {seconds:.2f} |\n",
        ]
    )


def main() -> None:
    """Parse the arguments and print the rows, each as it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of a checkpoint")
    parser.add_argument("behaviour", help="name of a behaviour")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of its parameters")
    parser.add_argument("--questions", type=int, default=240)
    parser.add_argument("--layers", type=int, nargs="*", default=[], help="none: all")
    parser.add_argument("--changes", nargs="*", default=CHANGES, help="KEY=VALUE ... of REAL's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # Processor seconds then count no waiting threads.
    data = BEHAVIOURS.made(arguments.behaviour, values_of(arguments.set)).load()
    folds = list(
        folds_of(arguments.model, chosen_questions(data, arguments.questions), arguments.layers)
    )
    sys.stdout.write(
        "| localizer | score | unseen | best | rho | s |\n|---|---:|---:|---:|---:|---:|\n"
    )
    sys.stdout.write(row("logistic probe, L2, C = 1", by_probe, folds))
    for change in arguments.changes:
        params = Variant.model_validate(values_of(change.split()))
        sys.stdout.write(row(change or "REAL, defaults", by_real(params), folds))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
