"""A method as it is run: nothing of it is left to the experiment any more."""

from typing import Literal

from real_tasks.experiment.parameters import complete
from real_tasks.localizers import LOCALIZERS
from real_tasks.steering.fitters import FITTERS
from real_tasks.steering.gates import GATES
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.config import Frozen, PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.method_config import EXPERIMENT, MethodConfig
from real_tasks.vocabulary.scopes import Scope
from real_tasks.vocabulary.types import PARTED, ModuleKind

_WRITTEN: tuple[ModuleKind, ...] = ("residual_in", "residual_mid", "layer", "attention", "mlp")
"""Parts as wide as the residual stream, one in a layer."""


class Method(Frozen):
    """A way of steering.

    Attributes:
        name: as in the tables.
        kind: of the modules that are ranked and fitted.
        localizer: who ranks the modules; None where all are steered, or none.
        weighting: whether strengths follow the scores.
        fitter: who finds the operator's tensors; None where nothing is steered.
        operator: what is done.
        gate: when; None: always.
        scope: the positions.
        keep_norm: whether activations keep their length.
        where: the modules that are edited; see `MethodConfig`.
        top_k: the numbers of modules to choose from; none where no localizer ranks them.
        strengths: to choose from.
    """

    name: str
    kind: ModuleKind = "head"
    localizer: str | None = None
    weighting: Literal["score", "equal"] = "equal"
    fitter: PlugIn | None = None
    operator: PlugIn = PlugIn(name="add")
    gate: PlugIn | None = None
    scope: Scope = "all"
    keep_norm: bool = False
    where: Literal["selected", "writers"] = "selected"
    top_k: tuple[int, ...] = ()
    strengths: tuple[float, ...] = ()

    @property
    def columns(self) -> dict[str, str | None]:
        """What tables say of it: its name and its parts."""
        return {
            "method": self.name,
            "localizer": self.localizer,
            "fitter": self.fitter.name if self.fitter else None,
            "operator": self.operator.name if self.fitter else None,
            "gate": self.gate.name if self.gate else None,
            "scope": str(self.scope),
        }

    @property
    def rankings(self) -> list[tuple[str, ModuleKind]]:
        """The localizers that it needs, each with the kind of modules: its own, its fitter's."""
        own = (self.localizer, self.kind) if self.localizer else None
        fitters = FITTERS[self.fitter.name].ranking if self.fitter else None
        return [one for one in (own, fitters) if one]

    @property
    def seeded(self) -> bool:
        """Whether the localizer's seed, or that of the fitter, changes the outcome."""
        stochastic = self.localizer is not None and LOCALIZERS[self.localizer].stochastic
        return stochastic or self.fitter_seeded

    @property
    def fitter_seeded(self) -> bool:
        """Whether the fitter's seed changes the outcome."""
        return self.fitter is not None and FITTERS[self.fitter.name].stochastic

    @property
    def trained_k(self) -> int | None:
        """The largest K, where only the modules that are steered are fitted: each is trained."""
        alone = self.fitter is not None and FITTERS[self.fitter.name].trained_alone()
        return max(self.top_k) if alone and self.localizer else None

    @property
    def largest_strength(self) -> float:
        """The operator's largest strength; infinite where its effect is not bounded."""
        return OPERATORS[self.operator.name].highest

    @property
    def modules(self) -> list[str]:
        """The code modules of its plug-ins that act while it is evaluated."""
        gate = [GATES[self.gate.name].__module__] if self.gate else []
        return [OPERATORS[self.operator.name].__module__, *gate]


def resolved_method(said: MethodConfig, config: ExperimentConfig) -> Method:
    """Return a method with all named that it leaves to the experiment.

    Raises:
        UserInputError: an unknown plug-in.
    """
    localizer = config.localizer.name if said.localizer == EXPERIMENT else said.localizer
    operator, evaluation = OPERATORS[said.operator.name], config.evaluation
    weighting = said.weighting
    if weighting == "localizer":
        weighting = LOCALIZERS[localizer].weighting if localizer else "equal"
    kind = config.module_kind if said.part == EXPERIMENT else said.part
    _check_parts(said, kind)
    _check_beside(said, kind, localizer)
    own = evaluation.alphas if said.operator.name == "add" else operator.strengths
    return Method(
        name=said.name,
        kind=kind,
        localizer=localizer,
        weighting=weighting,
        fitter=said.fitter and complete(FITTERS, said.fitter, f"methods.{said.name}.fitter"),
        operator=complete(OPERATORS, said.operator, f"methods.{said.name}.operator"),
        gate=said.gate and complete(GATES, said.gate, f"methods.{said.name}.gate"),
        scope=said.scope or evaluation.token_scope,
        keep_norm=said.keep_norm,
        where=said.where,
        top_k=(said.top_k or evaluation.top_k) if localizer else (),
        strengths=(said.strengths or own) if said.fitter else (),
    )


def _check_beside(said: MethodConfig, kind: ModuleKind, localizer: str | None) -> None:
    """Check that localizer and fitter know which part to see beside modules of a kind."""
    fitter = said.fitter and FITTERS[said.fitter.name].beside
    for name, beside in (
        (localizer, LOCALIZERS[localizer].beside if localizer else {}),
        (said.fitter and said.fitter.name, fitter or {}),
    ):
        if beside and kind not in beside:
            raise UserInputError(
                f"the method {said.name!r}: {name!r} is for modules of the kinds "
                f"{', '.join(beside)}, not {kind!r}; let the method say part: {next(iter(beside))}"
            )


def _check_parts(said: MethodConfig, kind: ModuleKind) -> None:
    """Check that fitter, operator, part and strengths go together."""
    operator = OPERATORS[said.operator.name]
    if said.fitter is None:
        return
    gives = FITTERS[said.fitter.name].gives
    gate = GATES[said.gate.name] if said.gate else None
    needs = {*operator.needs, *(gate.needs if gate and gate.of_module else ())}
    missing = sorted(needs - set(gives))
    if missing:
        able = [name for name in FITTERS if needs <= set(FITTERS[name].gives)]
        raise UserInputError(
            f"the method {said.name!r}: the operator {said.operator.name!r}, or its gate, needs "
            f"{', '.join(missing)}, which the fitter {said.fitter.name!r} does not give; choose "
            f"another fitter: {', '.join(able) or 'none that is installed does'}"
        )
    if said.where == "writers" and said.part not in _WRITTEN:
        raise UserInputError(
            f"the method {said.name!r} edits what writes to the residual stream, by tensors of "
            f"{said.part!r}; expected part to be one of {', '.join(_WRITTEN)}"
        )
    if operator.writes and (kind not in PARTED or said.keep_norm):
        raise UserInputError(
            f"the method {said.name!r}: the operator {said.operator.name!r} changes what modules "
            f"write, and leaves their activations as they are; part is {kind!r}, keep_norm "
            f"{said.keep_norm}; expected one of {', '.join(PARTED)}, and keep_norm false"
        )
    beyond = [strength for strength in said.strengths if strength > operator.highest]
    if beyond:
        raise UserInputError(
            f"the method {said.name!r}: strengths of {', '.join(f'{s:g}' for s in beyond)}, but "
            f"those of {said.operator.name!r} end at {operator.highest:g} ({operator.unit})"
        )
