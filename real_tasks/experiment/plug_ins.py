"""Plug-ins of a configuration: their parameters checked and made complete."""

from typing import Any

from pydantic import BaseModel, ValidationError

from real_tasks.evaluation.judges import JUDGES
from real_tasks.evaluation.measures import MEASURES
from real_tasks.experiment.methods import with_methods
from real_tasks.experiment.question_checks import unique
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.files.parsing import shortened
from real_tasks.vocabulary.config import ModelConfig, PlugIn
from real_tasks.vocabulary.errors import Faults, UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.registry import Registry


def resolved(config: ExperimentConfig) -> ExperimentConfig:
    """Return the configuration with the parameters of its plug-ins checked and made complete.

    Raises:
        UserInputError: unknown plug-ins, methods or judges, or parameters that do not fit.
    """
    faults = Faults()
    config = resolved_with(config, faults)
    faults.tell()
    return config


def resolved_with(config: ExperimentConfig, faults: Faults) -> ExperimentConfig:
    """Return the configuration as far as it can be made complete; see `resolved`.

    In the place of a localizer that cannot be had stands one that asks for nothing.
    """
    model, judge = config.model, config.evaluation.judge
    with faults.told("model", spoils="model"):
        model = _resolved_model(model)
    with faults.told("model"):
        _check_chat(model)
    with faults.told("evaluation.judge", spoils="evaluation.judge"):
        judge = _complete(JUDGES, judge, "evaluation.judge")
    behaviour, localizer, baselines = config.behaviour, PlugIn(name="random"), []
    with faults.told("behaviour", spoils="behaviour"):
        behaviour = _complete(BEHAVIOURS, behaviour, "behaviour")
    with faults.told("localizer", spoils="localizer"):
        localizer = _complete(LOCALIZERS, config.localizer, "localizer")
    for place, baseline in enumerate(config.baselines):
        with faults.told("baselines", spoils=f"baselines.{place}"):
            baselines.append(_complete(LOCALIZERS, baseline, f"baselines.{place}"))
    evaluation = config.evaluation.model_copy(update={"judge": judge})
    config = config.model_copy(
        update={
            "model": model,
            "evaluation": evaluation,
            "behaviour": behaviour,
            "localizer": localizer,
            "baselines": tuple(baselines),
        }
    )
    _check_names(config, faults)
    return config


def _check_names(config: ExperimentConfig, faults: Faults) -> None:
    names = [localizer.name for localizer in (config.localizer, *config.baselines)]
    evaluation = config.evaluation
    for fields, what, values in (
        ("localizer baselines", "localizer", names),
        ("methods", "method", config.methods),
        ("seeds", "seeds:", config.seeds),
        ("evaluation.alphas", "evaluation.alphas:", evaluation.alphas),
        ("evaluation.top_k", "evaluation.top_k:", evaluation.top_k),
        ("evaluation.measures", "evaluation.measures:", evaluation.measures),
        ("evaluation.objective", "evaluation.objective:", evaluation.objective),
    ):
        with faults.told(*fields.split()):
            unique(what, values)
    with faults.told("methods", "localizer", "baselines", spoils="methods"):
        with_methods(config)
    for measure in evaluation.measures:
        with faults.told("evaluation.measures", spoils="evaluation.measures"):
            MEASURES[measure]


def _resolved_model(model: ModelConfig) -> ModelConfig:
    if model.path in EMBEDDED_MODELS:
        plug_in = PlugIn(name=model.path, params=model.params)
        complete = _complete(EMBEDDED_MODELS, plug_in, "model")
        return model.model_copy(update={"params": complete.params})
    if model.params:
        raise UserInputError(
            f"model.params is {model.params}, but {model.path!r} is not an embedded model "
            f"({', '.join(EMBEDDED_MODELS)}), and only those have parameters; remove them"
        )
    return model


def _check_chat(model: ModelConfig) -> None:
    if model.chat_template and model.path in EMBEDDED_MODELS:
        raise UserInputError(
            f"model.chat_template is true, but the embedded model {model.path!r} has no chat "
            "template; set it to false"
        )
    unsaid = {
        "model.system_prompt": shortened(model.system_prompt) if model.system_prompt else "",
        "model.template_arguments": str(model.template_arguments or ""),
        "model.thinking": "" if model.thinking == "refuse" else repr(model.thinking),
        "model.template_date": str(model.template_date or ""),
    }
    for name, found in unsaid.items():
        if found and not model.chat_template:
            raise UserInputError(
                f"{name} is {found}, but model.chat_template is false, and only the chat template "
                f"has a place for it; set model.chat_template to true or leave {name} out"
            )


def _complete(registry: Registry, plug_in: PlugIn, where: str) -> PlugIn:  # type: ignore[type-arg]
    params_type = registry[plug_in.name].Params
    try:
        params = params_type.model_validate(plug_in.params)
    except ValidationError as error:
        raise UserInputError(
            explained(error, f"{where}.params") + _about_parameters(params_type, error)
        ) from error
    return plug_in.model_copy(update={"params": params.model_dump(mode="json")})


def _about_parameters(params_type: type[BaseModel], error: ValidationError) -> str:
    """Say what the parameters at fault are, and which there are where one is unknown."""
    fields, lines = params_type.model_fields, []
    for name in dict.fromkeys(str(fault["loc"][0]) for fault in error.errors() if fault["loc"]):
        if name in fields:
            lines.append(f"\n  {name}: {fields[name].description}")
    if any(fault["type"] == "extra_forbidden" for fault in error.errors()):
        lines.append(f"\n  known: {', '.join(fields) or 'no parameters'}")
    return "".join(lines)


def explained(error: ValidationError, where: str = "") -> str:
    """Return a validation error as lines of ``dotted.path: what is wrong (found ...)``."""
    return "\n".join(line for _, line in faults_of(error, where))


def faults_of(error: ValidationError, where: str = "") -> list[tuple[Any, str]]:
    """Return the faults of a validation error, each with its line of `explained`.

    That a list is too short since a value in it is wrong is none of its own.
    """
    lines, places = [], [fault["loc"] for fault in error.errors()]
    for fault in error.errors():
        place = fault["loc"]
        if any(other != place and other[: len(place)] == place for other in places):
            continue
        path = ".".join(str(part) for part in ([where] if where else []) + list(place))
        found = "" if fault["type"] == "missing" else f" (found {_shown(fault['input'])})"
        message = fault["msg"].removeprefix("Value error, ")
        message = "unknown key" if fault["type"] == "extra_forbidden" else message
        lines.append((fault, f"{path}: {message}{found}"))
    return lines


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
