"""The cached stage that draws an experiment's pictures."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from real_tasks.evaluation.labels import headline_metrics
from real_tasks.localizers import LOCALIZERS
from real_tasks.questions.folds import split
from real_tasks.questions.groups import question_groups
from real_tasks.questions.samples import localizer_input
from real_tasks.report.figures.effect_against_kl import MATCHED, TUNED
from real_tasks.report.figures.gallery import draw_gallery
from real_tasks.report.figures.gallery_data import CodebookCounts, GalleryData
from real_tasks.report.figures.latents import Embedding, embed
from real_tasks.report.figures.picture import Picture
from real_tasks.results.summary import Row, at_tuned, counted_kl, wide_rows
from real_tasks.tasks.cache.code_version import modules_of
from real_tasks.tasks.cache.machine import use_threads
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages import references
from real_tasks.tasks.stages.outcome import Outcome, OutcomeTables, Scores
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import ModuleKind, layer_modules
from storage.paths import Home
from storage.runs.files import damaged_run, run_file

FIGURES = "figures"
INDEX = "pictures.json"


@stage(
    "pictures",
    lambda inputs: modules_of(LOCALIZERS, *(one.localizer for one in inputs["outcome"].scores)),
)
def pictures(
    out: Path, *, config: ExperimentConfig, outcome: Outcome, execution: ExecutionConfig
) -> dict[str, Any]:
    """Draw every picture that the experiment has data for."""
    use_threads(execution, alone=True)
    drawn = draw_gallery(_gallery_data(OutcomeTables(config, outcome)))
    write_pictures(out, drawn)
    words = [{n: v for n, v in asdict(picture).items() if n != "png"} for picture in drawn]
    (out / INDEX).write_text(json.dumps(words))
    return {"pictures": len(drawn)}


def write_pictures(folder: Path, drawn: Sequence[Picture]) -> None:
    """Write pictures into a folder, which is made where there is none, a PNG each."""
    folder.mkdir(exist_ok=True)
    for picture in drawn:
        (folder / f"{picture.name}.png").write_bytes(picture.png)


def pictures_of(home: Home, run_id: str) -> list[Picture]:
    """Return the pictures that the stage wrote, from the folder of a run.

    Raises:
        StorageError: one, or what is said of them, is missing or damaged.
    """
    folder = run_file(home, run_id, FIGURES)
    try:
        words = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return [Picture(png=(folder / f"{w['name']}.png").read_bytes(), **w) for w in words]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged_run(home, run_id, folder, str(error)) from error


def _gallery_data(tables: OutcomeTables) -> GalleryData:
    rows, config = tables.rows, tables.config
    rivals = [baseline.name for baseline in config.baselines] or [config.localizer.name]
    data = GalleryData(
        module_scores=_of_kind(rows["module_scores"], config.module_kind),
        selected=_of_kind(rows["selected_modules"], config.module_kind),
        **_doses(tables),
        max_kl=config.evaluation.max_kl,
        matched_kl=config.evaluation.matched_kl,
        comparisons=rows["comparisons"],
        main=config.localizer.name,
        rival=rivals[0],
    )
    main = next(s for s in tables.outcome.scores if s.localizer == config.localizer.name)
    if "latents" not in references.load_evidence(main.shards[0]):
        return data
    return replace(data, embeddings=_embeddings(tables, main), codebooks=_codebooks(main))


def _doses(tables: OutcomeTables) -> dict[str, Any]:
    """Return the doses of every method that were measured on the same questions.

    Those of its K on validation questions; after a race, which asks most of them of a few questions
    only, those that were tested.
    """
    steered: Sequence[Row]
    if any(content.get("race") for _, content in tables.evaluations):
        tested = _tested(tables)
        steered = [row for row in tested if row["alpha"] is not None]
        chosen = [row for row in steered if row["dose"] == TUNED]
        questions = "test questions"
    else:
        rows = tables.rows["evaluations"]
        tested = wide_rows(row for row in rows if row["split"] == "validation")
        final = wide_rows(row for row in rows if row["split"] == "test")
        known = [row for row in tested if row["alpha"] is not None and "kl" in row]
        steered = at_tuned(known, [row for row in final if row["alpha"] is not None])
        steered = [{**row, "dose": row["alpha"], "kl": counted_kl(row)} for row in steered]
        chosen = at_tuned(steered, final, ("top_k", "alpha"))
        questions = "validation questions"
    return {
        "curves": steered,
        "tuned": chosen,
        "unsteered": _unsteered(tested),
        "curve_questions": questions,
    }


def _tested(tables: OutcomeTables) -> list[dict[str, Any]]:
    """Return a row for every dose that was tested: as tuned, and at the KL of comparison."""
    return [
        {
            **{"method": item.method, "fold": item.fold, "seed": item.seed},
            **{"dose": dose, "alpha": content["alpha"], "kl": counted_kl(found)},
            **{name: float(np.mean(values)) for name, values in found["per_question"].items()},
        }
        for item, content in tables.evaluations
        for dose, found in ((TUNED, content["test"]), (MATCHED, content["matched"]))
        if found is not None
    ]


def _of_kind(rows: Sequence[Row], kind: ModuleKind) -> list[Row]:
    """A map has one kind of module; a method of another kind is in the tables."""
    return [row for row in rows if row["module_kind"] == kind]


def _unsteered(measured: Sequence[Row]) -> dict[str, float]:
    rows = [row for row in measured if row["method"] == "unsteered"]
    metrics = headline_metrics(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows])) for name in metrics if rows}


def _embeddings(tables: OutcomeTables, main: Scores) -> list[Embedding]:
    """Activations and latents of the best and the worst head, on answers the encoder never saw."""
    scores = references.load_scores(main.shards).scores
    best = max(scores, key=lambda score: (score.score, -score.module.layer, -score.module.head))
    worst = min(scores, key=lambda score: (score.score, score.module.layer, score.module.head))
    embeddings = []
    for name, score in (("best", best), ("worst", worst)):
        layer, head = score.module.layer, max(score.module.head, 0)
        evidence = references.load_evidence(main.shards[layer])
        samples = evidence["latent_samples"]
        values = references.load_activations(tables.outcome.activations[main.kind], layer)
        modules = layer_modules(main.kind, layer, values.shape[1])
        groups = question_groups(tables.data.questions)
        fold_split = split(groups, main.fold, tables.config.data)
        seen = localizer_input(modules, values, tables.data, fold_split, torch.device("cpu"))
        labels = seen.labels[samples].numpy()
        for space, points in (
            ("activations", seen.values[head, samples]),
            ("code latents", evidence["latents"][head].float()),
        ):
            title = f"{score.module.label} ({name}, {score.score:.2f}): {space}"
            embeddings.append(embed(points.numpy(), labels, title=title))
    return embeddings


def _codebooks(main: Scores) -> CodebookCounts:
    counts = [references.load_evidence(shard)["code_counts"].numpy() for shard in main.shards]
    scores = references.load_scores(main.shards).scores
    return CodebookCounts(
        counts=np.concatenate(counts),
        perplexity=np.array([score.perplexity for score in scores]),
        collapsed=np.array([score.collapsed for score in scores], dtype=bool),
        names=[s.module.label for s in scores],
    )
