"""The configuration of a re-scoring: of which run, what is new, what counts as drift."""

from typing import Annotated, Literal

from pydantic import Field

from real_tasks.vocabulary.config import Frozen, PositiveInt, Resamples

Change = Annotated[str, Field(pattern=r"^(behaviour|model|execution)(\.\w+)*=")]
"""A change of the baseline's configuration, as `--set` takes it."""


class DriftThresholds(Frozen):
    """What counts as drift. Each is compared with the row over all folds and seeds."""

    min_spearman: float = Field(
        0.6, ge=-1, le=1, description="least rank correlation of the scores before and now"
    )
    min_overlap: float = Field(
        0.5, ge=0, le=1, description="least share of the best K modules that are still among them"
    )
    max_auc_drop: float = Field(
        0.05,
        ge=0,
        le=1,
        title="Max AUC drop",
        description="largest fall of the mean ROC-AUC of what were the best K",
    )
    max_gain_drop: float = Field(
        0.1,
        ge=0,
        description="largest fall of what the deployed steering gains, in the unit of the metric "
        "that K and alpha were chosen by",
    )


class RescoreConfig(Frozen):
    """Score a run's modules again, on data that may have grown or with a newer model, and compare.

    Everything but the listed changes is as in the baseline's run. What the baseline steers with is
    measured, and never changed.
    """

    baseline: str | None = Field(
        None,
        description="run of the flow experiment whose steering is in use; the last completed one "
        "without",
    )
    changes: tuple[Change, ...] = Field(
        (),
        description="what is new besides the content of files: PATH=VALUE below behaviour, model "
        "or execution, as behaviour.params.path=questions.jsonl or model.revision=v2",
    )
    method: str = Field(
        "", description="way of steering that is in use; empty: that of the run's localizer"
    )
    against: Literal["last", "baseline"] = Field(
        "last",
        description="scores to compare with: those of the last re-scoring of the baseline (its own "
        "if there is none), or always the baseline's own; the gain is always compared with the "
        "baseline's",
    )
    top_k: PositiveInt | None = Field(
        None,
        title="K (modules)",
        description="how many of the best modules are compared (K); without: as many as the "
        "baseline steers",
    )
    thresholds: DriftThresholds = Field(
        DriftThresholds(), description="what counts as drift, and emits the event"
    )
    bootstrap_samples: Resamples = Field(1000, description="resamples of a confidence interval")
