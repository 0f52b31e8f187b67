"""What can be wrong with an experiment, looked at before any expensive work."""

from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from real_tasks.behaviours import BEHAVIOURS
from real_tasks.checkpoints import check_attention
from real_tasks.config import DataConfig, ExperimentConfig, ModelConfig, PlugIn
from real_tasks.errors import Faults, UserInputError
from real_tasks.evaluation.harness import check_tasks
from real_tasks.evaluation.judges import JUDGES, judging_library
from real_tasks.evaluation.measures import MEASURES
from real_tasks.localizers import LOCALIZERS
from real_tasks.methods import rankings_of, with_methods
from real_tasks.models import check_model, checkpoint_shape, resolve_device
from real_tasks.neutral import load_neutral
from real_tasks.organism import EMBEDDED_MODELS
from real_tasks.question_checks import check_behaviour, check_texts, unique
from real_tasks.question_rows import shortened
from real_tasks.registry import Registry
from real_tasks.samples import with_shuffled_labels
from real_tasks.text_model import TextModel
from real_tasks.types import BehaviourData, ModelShape, Question


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


def check_experiment(
    config: ExperimentConfig, faults: Faults
) -> tuple[BehaviourData | None, ModelShape | None]:
    """Check a resolved configuration against its data and its model; return its data and shape.

    Loads no weights. Where one of them is missing, ``faults`` says why.
    """
    execution, evaluation = config.execution, config.evaluation
    with faults.told("execution.device", spoils="execution.device"):
        resolve_device(execution.device)
    with faults.told("model.attn_implementation", "execution.device"):
        check_attention(config.model)
    with faults.told("evaluation.judge"):
        for library in getattr(JUDGES[evaluation.judge.name], "libraries", ()):
            judging_library(library)
    with faults.told("evaluation.lm_eval_tasks", "evaluation.token_scope"):
        if evaluation.lm_eval_tasks:
            check_tasks(evaluation.lm_eval_tasks, evaluation.token_scope)
    shape, model, data = None, None, None
    if faults.sound("model.path", "model.params"):
        with faults.told("model", spoils="model"):
            shape, model = _model_of(config)
    if faults.sound("behaviour"):
        with faults.told("data.limit", "evaluation.neutral", "evaluation.neutral_texts"):
            data = dataset_of(config)
    if shape is not None:
        with faults.told("model", "module_kind", "evaluation.top_k"):
            _check_top_k(shape, config)
    if shape is not None and faults.sound("methods"):
        with faults.told("model", "module_kind", "localizer", "baselines"):
            _check_localizers(shape, config)
    measured = ("measures", "objective", "neutral", "neutral_texts", "max_new_tokens")
    asked = ("behaviour", "data", *(f"evaluation.{name}" for name in measured))
    if data is not None:
        with faults.told(*asked):
            check_behaviour(data, config)
    if data is not None and model is not None:
        with faults.told(*asked, "model"):
            check_texts(model, data, config)
    return data, shape


def _model_of(config: ExperimentConfig) -> tuple[ModelShape, TextModel | None]:
    if config.model.path not in EMBEDDED_MODELS:
        return check_model(config.model)
    entry = EMBEDDED_MODELS[config.model.path]
    embedded = entry(entry.Params.model_validate(config.model.params))
    return embedded.shape(), embedded.texts()


def load_behaviour(behaviour: PlugIn) -> BehaviourData:
    """Return the data of a behaviour named in a configuration."""
    return BEHAVIOURS.made(behaviour.name, behaviour.params).load()


def dataset_of(config: ExperimentConfig) -> BehaviourData:
    """Return the behaviour's data with the neutral texts and labels that the experiment asks for.

    Raises:
        UserInputError: the data or the neutral texts cannot be had, or are wrong.
    """
    data = load_behaviour(config.behaviour)
    limit, source = config.evaluation.neutral_texts, config.evaluation.neutral
    neutral = load_neutral(source, limit) if source else data.neutral_texts[:limit]
    data = replace(data, neutral_texts=neutral, questions=_limited(data.questions, config.data))
    if source:
        n_words = sum(len(text.split()) for text in neutral)
        said = f"{source}: {len(neutral)} texts, {n_words} words"
        data = replace(data, source={**data.source, "neutral": said})
    if config.data.shuffle_labels:
        return with_shuffled_labels(data, config.data.split_seed)
    return data


def _limited(questions: tuple[Question, ...], config: DataConfig) -> tuple[Question, ...]:
    """Return so many questions as are asked for, evenly spaced: files are often sorted."""
    if config.limit is None or config.limit >= len(questions):
        return questions
    return tuple(questions[i * len(questions) // config.limit] for i in range(config.limit))


def shape_of(config: ExperimentConfig) -> ModelShape:
    """Return the shape of the configured model, from its parameters or its config.json."""
    path = config.model.path
    if path in EMBEDDED_MODELS:
        return EMBEDDED_MODELS.made(path, config.model.params).shape()
    return checkpoint_shape(path, config.model.revision, config.model.trust_remote_code)


def check_modules(shape: ModelShape, config: ExperimentConfig) -> None:
    """Check that K and the localizers' parameters fit the model's shape.

    Raises:
        UserInputError: K exceeds the number of modules, or a localizer does not fit their width.
    """
    _check_top_k(shape, config)
    _check_localizers(shape, config)


def _check_top_k(shape: ModelShape, config: ExperimentConfig) -> None:
    kind = config.module_kind
    n_modules = len(shape.modules(kind))
    too_large = [k for k in config.evaluation.top_k if k > n_modules]
    if too_large:
        raise UserInputError(
            f"evaluation.top_k holds {too_large[0]}, but {config.model.path!r} has {n_modules} "
            f"modules of the kind {kind!r} ({shape.n_layers} layers x "
            f"{shape.modules_per_layer(kind)}); choose at most {n_modules}"
        )


def _check_localizers(shape: ModelShape, config: ExperimentConfig) -> None:
    for ranking in rankings_of(with_methods(config)):
        localizer = LOCALIZERS.made(ranking.localizer.name, ranking.localizer.params)
        localizer.check(shape.width(ranking.kind))


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
