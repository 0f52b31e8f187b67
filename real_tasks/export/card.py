"""The model card of an export: a README in Markdown with the front matter that model hubs read."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from jinja2 import Environment, StrictUndefined

from real_tasks.evaluation.labels import METRIC_LABELS, metric_label
from real_tasks.export.bake import Baked
from real_tasks.export.parity import PARITY_FILE, Parity
from real_tasks.export.targets import TARGETS, can
from real_tasks.localizers.labels import method_label
from real_tasks.models.hub_folders import public_name
from real_tasks.results.findings import LOWER_IS_BETTER, signed
from real_tasks.results.summary import DECIMALS, Row, wide_rows
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.experiment_config import ExperimentConfig

TEMPLATE = "card.md.j2"
UNSTEERED = "unsteered"
SIDE_EFFECTS = ("kl", "cross_entropy", "perplexity")
Format = Literal["checkpoint", "spec", "lofit", "control-vector", "easysteer", "lora"]


@dataclass(frozen=True)
class CardContent:
    """What a card says.

    Attributes:
        format: what lies beside the card.
        spec: the steering.
        config: the run's configuration.
        method: the way of steering.
        fold: cross-validation fold whose test questions the model was never fitted to.
        seed: of the localizer.
        evaluations: the run's rows of the view ``evaluations``.
        comparisons: the run's rows of the view ``comparisons``.
        selected: the run's rows of the view ``selected_modules``.
        source: where the questions come from.
        facts: how it was made, in order: run, commit, versions and the like.
        snippet: Python that loads it.
        model_type: architecture of the base model; None where it is not known.
        baked: what the checkpoint is; None for other formats.
        parity: of checkpoints and adapters, the parity file; None for other formats.
        notes: what else is to be known of the export.
        warnings: the run's own.
    """

    format: Format
    spec: SteeringSpec
    config: ExperimentConfig
    method: str
    fold: int
    seed: int
    evaluations: Sequence[Row]
    comparisons: Sequence[Row]
    selected: Sequence[Row]
    source: Mapping[str, str]
    facts: Mapping[str, str]
    snippet: str
    model_type: str | None = None
    baked: Baked | None = None
    parity: Parity | None = None
    notes: Sequence[str] = field(default=())
    warnings: Sequence[str] = field(default=())

    @property
    def behaviour(self) -> str:
        """The behaviour's name in tables, which tells apart data of one plug-in."""
        return str(self.spec.provenance.get("behaviour") or self.config.behaviour.name)


def render_card(content: CardContent) -> str:
    """Return the card as Markdown."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["cell"] = lambda value: str(value).replace("|", "\\|").replace("\n", " ")
    source = resources.files("real_tasks.export").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(
        content=content,
        front_matter=front_matter(content),
        method_name=method_label(content.method, content.config.localizer.name),
        base_model=base_model(content.config),
        source={name: _without_folder(value) for name, value in content.source.items()},
        modules=module_rows(content),
        effects=effect_rows(content),
        differences=difference_rows(content),
        adds=any("scale" in edit.tensors for edit in content.spec.edits),
        targets={target: can(content.spec, target, content.model_type) for target in TARGETS}
        if content.model_type
        else {},
        parity_file=PARITY_FILE,
    )


def base_model(config: ExperimentConfig) -> str:
    """Return the base model as others know it."""
    return public_name(config.model.path)


def front_matter(content: CardContent) -> str:
    """Return the YAML that model hubs read."""
    steered = [f"steered-{kind}s" for kind in content.spec.kinds]
    tags = ["activation-steering", *steered, content.behaviour, "real"]
    libraries = {"checkpoint": "transformers", "lora": "peft"}
    given = {
        "base_model": base_model(content.config),
        "library_name": libraries.get(content.format, "real-steering"),
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    return yaml.safe_dump(given, sort_keys=False, allow_unicode=True).strip()


def module_rows(content: CardContent) -> list[dict[str, str]]:
    """Return the steered modules, best first: place, score, and by how much each is displaced."""
    scores = {
        (row["module_kind"], row["layer"], -1 if row["head"] is None else row["head"]): row["score"]
        for row in content.selected
        if _is_this(row, content)
    }
    spec, rows = content.spec, []
    steered = [(m, e, i) for e in spec.edits for i, m in enumerate(e.modules)]
    for rank, (module, edit, row) in enumerate(steered, start=1):
        score = scores.get((module.kind, module.layer, module.head))
        strength = float(edit.weights[row])
        sigma = float(edit.tensors["scale"][row]) if "scale" in edit.tensors else None
        rows.append(
            {
                "rank": str(rank),
                "layer": str(module.layer),
                "head": str(module.head) if module.kind == "head" else "–",
                "score": "–" if score is None else f"{score:.3f}",
                "strength": f"{strength:.3f}",
                "sigma": "–" if sigma is None else f"{sigma:.4g}",
                "length": "–" if sigma is None else f"{spec.alpha * strength * sigma:.4g}",
            }
        )
    return rows


def effect_rows(content: CardContent) -> list[dict[str, str]]:
    """Return every metric on test questions: unsteered, this export, mean over folds and seeds."""
    tested = [row for row in content.evaluations if row["split"] == "test"]
    ours = wide_rows(row for row in tested if row["method"] == content.method)
    this = next((row for row in ours if _is_this(row, content)), {})
    plain = wide_rows(row for row in tested if row["method"] == UNSTEERED)
    before = next((row for row in plain if row["fold"] == content.fold), {})
    known = [name for name in METRIC_LABELS if name in this]
    others = sorted(set(this) - {*known, "method", "fold", "seed", "split", "top_k", "alpha"})
    return [
        {
            "metric": _named(name),
            "before": _number(name, before.get(name)),
            "after": _number(name, this[name]),
            "mean": _spread(name, [float(row[name]) for row in ours if row.get(name) is not None]),
        }
        for name in [*known, *others]
    ]


def difference_rows(content: CardContent) -> list[dict[str, str]]:
    """Return the paired differences to the unsteered model, with their 95 % intervals."""
    return [
        {
            "metric": _named(row["metric"]),
            "difference": signed(row["difference"]),
            "interval": (
                "–" if row["low"] is None else f"[{signed(row['low'])}, {signed(row['high'])}]"
            ),
            "n": str(row["n_questions"]),
        }
        for row in content.comparisons
        if row["method"] == content.method
        and row["baseline"] == UNSTEERED
        and row["basis"] == "tuned"
    ]


def _is_this(row: Row, content: CardContent) -> bool:
    same = (content.fold, content.seed)
    return (row["fold"], row["seed"]) == same and row["method"] == content.method


def _without_folder(value: str) -> str:
    return Path(value).name if Path(value).is_absolute() else value


def _named(metric: str) -> str:
    unit = " (nats/token)" if metric in ("kl", "cross_entropy") else ""
    arrow = "lower is better" if metric in LOWER_IS_BETTER else ""
    cost = " – side effect" if metric in SIDE_EFFECTS else ""
    return metric_label(metric) + unit + cost + (f", {arrow}" if arrow else "")


def _number(metric: str, value: float | None) -> str:
    return "–" if value is None else f"{value:.{DECIMALS.get(metric, 3)}f}"


def _spread(metric: str, values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = _number(metric, statistics.fmean(values))
    if len(values) == 1:
        return f"{mean} (n = 1)"
    return f"{mean} ± {_number(metric, statistics.stdev(values))} (n = {len(values)})"
