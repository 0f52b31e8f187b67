"""Taking a steered model away: from a run's folder and tables to an export.

Not a task of a flow: an export is asked for once, by a person, and its parts are pure functions.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from real_tasks.export.affine import check_baking
from real_tasks.export.bake import bake, copy_companions, keep_tokenizer
from real_tasks.export.behind_blocks import behind_blocks, check_behind_blocks, loss_in_words
from real_tasks.export.card import Format, base_model
from real_tasks.export.control_vector import control_vectors, save_control_vector
from real_tasks.export.easysteer import save_easysteer
from real_tasks.export.lofit import save_heads
from real_tasks.export.lora import check_lora, save_lora
from real_tasks.export.parity import PARITY_FILE, Parity, make_parity
from real_tasks.export.parity_prompts import parity_prompts
from real_tasks.export.recognition import Comparison, compare
from real_tasks.export.routes import OTHER_ROUTE
from real_tasks.export.served import check_export, saved_log_probs
from real_tasks.export.snippets import HEADS, VECTOR, snippet_of
from real_tasks.models.adapters import base_of, check_peft
from real_tasks.models.loading import LoadedModel
from real_tasks.questions.folds import split
from real_tasks.questions.groups import question_groups
from real_tasks.tasks.export.registering import log_steered_model
from real_tasks.tasks.export.run_card import write_card
from real_tasks.tasks.export.steered_runs import SteeredRun, find_steered_run
from real_tasks.tasks.stages import references
from real_tasks.vocabulary.errors import UserInputError
from storage.paths import MLFLOW_VARIABLE, Home
from storage.whole_files import make_readable

__all__ = ["ExportFormat", "Exported", "check_export", "export_run"]

ExportFormat = Format | Literal["mlflow"]


@dataclass(frozen=True)
class Exported:
    """What was exported: into a folder with files, or to the URI of a model in MLflow.

    The snippet says how to use it, in Python or as a shell command; the sentences what to know.
    """

    location: str
    files: tuple[str, ...]
    snippet: str
    sentences: tuple[str, ...]


def export_run(
    home: Home,
    run_id: str | None,
    method: str | None,
    to: Path | None,
    format: ExportFormat,
    fold: int = 0,
    seed: int | None = None,
    approximate: bool = False,
) -> Exported:
    """Export what a run found: by default the last completed one, its method, its smallest seed.

    Args:
        home: where the run is.
        run_id: the run.
        method: the way of steering.
        to: folder to write, not there or empty; not used for ``mlflow``.
        format: ``checkpoint``, a Hugging Face checkpoint with the steering baked in; ``spec``, the
            steering spec; ``lofit``, a list of heads; ``control-vector``, llama.cpp's;
            ``easysteer``, vectors for it; ``lora``, an adapter of peft; ``mlflow``, a
            registered model.
        fold: cross-validation fold whose directions, K and alpha are taken.
        seed: of the localizer.
        approximate: of a ``control-vector``, add behind blocks what is added to their heads.

    Raises:
        UserInputError: an unknown method, fold or seed; a method that steers nothing; a folder that
            is not empty; steering that cannot be put into that format.
        StorageError: no such run, or one without results.
    """
    if approximate and format != "control-vector":
        raise UserInputError(f"--approximate is for --format control-vector, not for {format}")
    run = find_steered_run(home, run_id, method, fold, seed)
    if format == "mlflow":
        return _registered(run)
    if to is None:
        raise UserInputError("say which folder to write (--to DIR)")
    writers: dict[str, Callable[[SteeredRun, Path, str], Sequence[str]]] = {
        "checkpoint": _checkpoint,
        "spec": _spec,
        "lofit": _lofit,
        "control-vector": partial(_control_vector, approximate=approximate),
        "easysteer": _easysteer,
        "lora": _lora,
    }
    with _whole_or_not_at_all(to.absolute()) as folder:
        sentences = writers[format](run, folder, str(to))
    files = tuple(sorted(path.name for path in to.iterdir()))
    snippet = snippet_of(format, str(to), base_model(run.config))
    return Exported(str(to), files, snippet, tuple(sentences))


def _registered(run: SteeredRun) -> Exported:
    uri = log_steered_model(run)
    uri_of_record = run.home.mlflow_uri if run.home.owns_mlflow else f'"${MLFLOW_VARIABLE}"'
    where = f"MLFLOW_TRACKING_URI={uri_of_record}"
    command = f"{where} mlflow models serve -m {uri} --env-manager local --port 5001"
    asked = '{"dataframe_split": {"columns": ["prompt"], "data": [["Q: ... A:"]]}}'
    ask = f"curl localhost:5001/invocations -H 'Content-Type: application/json' -d '{asked}'"
    base = run.config.model.path
    within = "inside it" if run.made_checkpoint else f"loaded from {base}"
    sentences = (
        f"Registered in MLflow as {uri}; the base model is {within}.",
        'It completes the texts of the column "prompt"; its parameter is max_new_tokens.',
    )
    return Exported(uri, (), f"{command}\n{ask}", sentences)


def _checkpoint(run: SteeredRun, folder: Path, shown: str) -> list[str]:
    spec, model_type = run.spec, run.model_type
    if model_type is not None:
        check_baking(spec.intervention(), model_type)
    loaded, parity = _loaded(run)
    baked = bake(loaded, spec.intervention(), run.checkpoint, folder)
    device = str(loaded.device)
    del loaded  # or two models would have to fit the device
    parity, found = _compared(run, folder, parity, device)
    write_card(run, folder, "checkpoint", baked, parity)
    declared = "" if baked.architecture == baked.was else f", declared as {baked.architecture}"
    return [
        f"{baked.was}{declared}, in {baked.dtype}, steered by {baked.counts}.",
        f"Loaded by plain transformers: {found.sentence()}",
        f"Once it is served: real export --check URL --parity {shown}/{PARITY_FILE}",
        *baked.notes,
    ]


def _lora(run: SteeredRun, folder: Path, shown: str) -> list[str]:
    spec, model = run.spec, run.config.model
    if run.model_type is not None:
        check_lora(spec.intervention(), run.model_type)
    check_peft("the adapter that is written is compared with the hooks", OTHER_ROUTE)
    loaded, parity = _loaded(run)
    hub_id = base_model(run.config)
    named = (hub_id, model.revision) if "/" in hub_id else (str(run.checkpoint), None)
    made = save_lora(loaded, spec.intervention(), *named, folder)
    copy_companions(base_of(run.checkpoint), folder)
    keep_tokenizer(loaded.tokenizer, folder)
    device = str(loaded.device)
    del loaded
    parity, found = _compared(run, folder, parity, device)
    write_card(run, folder, "lora", parity=parity)
    sentences = [
        f"An adapter of rank {made.rank} for {len(made.modules)} weights of {named[0]}.",
        f"Loaded by transformers and peft: {found.sentence()}",
        f"Once it is served: real export --check URL --parity {shown}/{PARITY_FILE}",
    ]
    if made.unties:
        sentences.append(
            "Embedding and head of the model share a weight, of which it changes one: do not merge "
            "it with peft, which would change both."
        )
    return sentences


def _loaded(run: SteeredRun) -> tuple[LoadedModel, Parity]:
    """Return the base model, and what it says when hooks steer it."""
    loaded, spec = run.load_model(), run.spec
    with spec.applied_to(loaded):
        pass  # refuses a checkpoint that has changed since the run
    data = references.load_dataset(run.outcome.dataset)
    test = split(question_groups(data.questions), run.fold, run.config.data).test
    return loaded, make_parity(loaded, spec.intervention(), parity_prompts(loaded, data, test))


def _compared(
    run: SteeredRun, folder: Path, parity: Parity, device: str
) -> tuple[Parity, Comparison]:
    """Read what was written, and save the parity file with how far it is off."""
    readings = saved_log_probs(folder, parity, device, run.config.execution.device_map)
    found = compare(parity, readings)
    if found.verdict not in ("steered", "too weak to tell"):
        raise UserInputError(
            f"what was exported does not say what the hooked model says: {found.sentence()} "
            f"In {run.config.model.dtype} the steering does not survive rounding; export "
            "from a run with model.dtype=float32, or export the steering spec (--format spec)"
        )
    parity = parity.with_measured(found.from_steered)
    parity.save(folder)
    return parity, found


def _spec(run: SteeredRun, folder: Path, shown: str) -> list[str]:  # noqa: ARG001
    spec = run.spec
    spec.save(folder)
    write_card(run, folder, "spec")
    n = len(spec.modules)
    what = f"A steering spec of {n} module{'s' * (n > 1)} for {run.config.model.path}."
    return [what, *spec.explain().splitlines()]


def _lofit(run: SteeredRun, folder: Path, shown: str) -> list[str]:  # noqa: ARG001
    modules = run.spec.modules
    save_heads(modules, folder / HEADS)
    write_card(run, folder, "lofit")
    return [f"{len(modules)} heads as [layer, head], best first."]


def _control_vector(run: SteeredRun, folder: Path, shown: str, approximate: bool) -> list[str]:
    spec, notes = run.spec, list[str]()
    added, model_type = spec.intervention(), run.model_type or spec.model
    if approximate and any(edit.kind == "head" for edit in added.edits):
        check_behind_blocks(added, model_type)
        loaded, parity = _loaded(run)
        added = behind_blocks(loaded, added)
        notes.append(loss_in_words(loaded, added, parity))
    n_blocks = len(control_vectors(added, spec.shape))
    save_control_vector(added, spec.shape, model_type, folder / VECTOR)
    write_card(run, folder, "control-vector", notes=notes)
    return [
        f"Added to the output of {n_blocks} block{'s' * (n_blocks > 1)}, at the scale 1 as tuned.",
        *notes,
        f"llama.cpp: llama-cli -m MODEL.gguf --control-vector {shown}/{VECTOR}",
    ]


def _easysteer(run: SteeredRun, folder: Path, shown: str) -> list[str]:  # noqa: ARG001
    spec = run.spec
    algorithms = save_easysteer(
        spec.intervention(), spec.shape, run.model_type or spec.model, folder
    )
    write_card(run, folder, "easysteer")
    return [
        f"Added to {len(spec.modules)} modules, at the scale 1 as tuned, by "
        f"{' and '.join(algorithms)}"
        + (" (start the server with --steer-multi-vector)" if len(algorithms) > 1 else "")
        + ", after EasySteer's documentation; not tried on its server.",
        "Compare what is served: real export --check URL, with the parity file of a checkpoint "
        "export of the same run.",
    ]


@contextmanager
def _whole_or_not_at_all(target: Path) -> Iterator[Path]:
    """Give a folder beside the target, which becomes the target when all went well.

    An empty folder that is there is filled and not replaced: a shell may stand in it.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserInputError(f"{target} is there and not empty; name a new or an empty folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield made
        make_readable(made)
        if target.exists():
            for path in made.iterdir():
                path.rename(target / path.name)
        else:
            made.rename(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)
