"""A method of steering as a configuration has it: localizer, fitter, operator, gate, scope."""

from typing import Annotated, Literal

from pydantic import Field

from real_tasks.vocabulary.config import Frozen, PlugIn, PositiveInt
from real_tasks.vocabulary.config_forms import OneOf
from real_tasks.vocabulary.scopes import Scope
from real_tasks.vocabulary.types import ModuleKind

EXPERIMENT: Literal["experiment"] = "experiment"
"""Stands for the experiment's own localizer, or kind of module."""

Strength = Annotated[float, Field(gt=0, le=1e9)]
"""In the unit of the operator; of ``add`` in standard deviations along the direction."""


class MethodConfig(Frozen):
    """A way of steering. What is left out is that of the method `like`, or the default."""

    name: str = Field(
        pattern=r"^\w[\w.-]*$", description="as in the tables, the report and the legends"
    )
    like: str = Field("", description="method that this one differs from in what is given here")
    label: str = Field("", description="what people read; empty: the name")
    what: str = Field("", description="what it does, in a sentence")
    paper: str = Field("", description="where it comes from")
    notes: str = Field("", description="what is as in the paper, and what is our reading of it")
    place: int = Field(60, description="where it stands in tables, the lowest first")
    default: bool = Field(
        False,
        description="evaluated where an experiment names no methods, if its localizer ranks "
        "modules there anyway",
    )
    part: ModuleKind | Literal["experiment"] = Field(
        EXPERIMENT, description="kind of the modules; experiment: that of the experiment"
    )
    localizer: str | None = Field(
        EXPERIMENT,
        description="what ranks the modules; experiment: the experiment's own; null: all are "
        "steered",
    )
    weighting: Literal["localizer", "score", "equal"] = Field(
        "localizer", description="whether strengths follow the scores; localizer: as it says"
    )
    fitter: Annotated[PlugIn | None, OneOf("fitter")] = Field(
        PlugIn(name="mean_difference"),
        description="what finds the operator's tensors; null: nothing is steered",
    )
    operator: Annotated[PlugIn, OneOf("operator")] = Field(
        PlugIn(name="add"), description="what is done to the activations"
    )
    gate: Annotated[PlugIn | None, OneOf("gate")] = Field(
        None, description="when it is done; null: always"
    )
    scope: Scope | None = Field(
        None, description="positions that are steered; null: evaluation.token_scope"
    )
    keep_norm: bool = Field(False, description="whether activations keep their length")
    where: Literal["selected", "writers"] = Field(
        "selected",
        description="selected: the modules that the localizer chose; writers: whatever writes to "
        "the residual stream (embedding, attention, MLP), all along the chosen module's tensors",
    )
    top_k: tuple[PositiveInt, ...] = Field(
        (), title="K (modules)", description="numbers of modules; empty: evaluation.top_k"
    )
    strengths: tuple[Strength, ...] = Field(
        (), description="to choose from; empty: evaluation.alphas for add, else the operator's own"
    )
