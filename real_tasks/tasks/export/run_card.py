"""The model card that lies beside every export of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from real_tasks.experiment.methods.known import known_methods
from real_tasks.export.bake import Baked
from real_tasks.export.card import CardContent, Format, base_model, render_card
from real_tasks.export.parity import Parity
from real_tasks.export.snippets import CARD, snippet_of
from real_tasks.tasks.export.steered_runs import SteeredRun
from storage.tables.parquet import read_run


def write_card(
    run: SteeredRun,
    folder: Path,
    format: Format,
    baked: Baked | None = None,
    parity: Parity | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write the card of what lies in a folder, in which a run's method is taken away."""
    run_id = run.row["run_id"]
    content = CardContent(
        format=format,
        spec=run.spec,
        config=run.config,
        method=run.method,
        fold=run.fold,
        seed=run.seed,
        evaluations=read_run(run.home, "evaluations", run_id),
        comparisons=read_run(run.home, "comparisons", run_id),
        selected=read_run(run.home, "selected_modules", run_id),
        source=run.record["source"],
        facts=_facts(run),
        snippet=snippet_of(format, "THIS_FOLDER", base_model(run.config)),
        model_type=run.model_type,
        baked=baked,
        parity=parity,
        notes=notes,
        warnings=run.record["warnings"],
    )
    (folder / CARD).write_text(render_card(content), encoding="utf-8")


def _facts(run: SteeredRun) -> dict[str, str]:
    versions: Mapping[str, str] = run.record["versions"]
    shown = ("real-steering", "torch", "transformers")
    commit = run.record["checkpoint"].get("revision")
    facts = {"commit of the base model on the Hub": commit} if commit else {}
    method = known_methods(run.config)[run.method]
    return facts | {
        "directions": (method.fitter.name if method.fitter else "–").replace("_", " "),
        "modules ranked by": method.localizer or "nothing: all of them are steered",
        "run": run.row["run_id"],
        "made": f"{run.row['started_at']:%Y-%m-%d} on {run.record['device']}",
        "code": run.row["git_commit"] or "not from a git checkout",
        "versions": ", ".join(f"{name} {versions[name]}" for name in shown),
        "configuration (SHA-256)": run.row["config_digest"],
    }
