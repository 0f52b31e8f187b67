"""What can be wrong with an experiment, looked at before any expensive work."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel, ValidationError

from real_tasks.behaviours import BEHAVIOURS
from real_tasks.checkpoints import check_attention
from real_tasks.config import DataConfig, ExperimentConfig, ModelConfig, PlugIn
from real_tasks.errors import UserInputError
from real_tasks.evaluation.harness import check_tasks
from real_tasks.evaluation.judges import JUDGES, judging_library
from real_tasks.evaluation.measures import MEASURES
from real_tasks.evaluation.measuring import complete_evaluation
from real_tasks.localizers import LOCALIZERS
from real_tasks.methods import rankings_of, with_methods
from real_tasks.models import check_model, checkpoint_shape, resolve_device
from real_tasks.neutral import load_neutral
from real_tasks.organism import EMBEDDED_MODELS
from real_tasks.question_rows import shortened
from real_tasks.registry import Registry
from real_tasks.samples import with_shuffled_labels
from real_tasks.splits import split
from real_tasks.types import BehaviourData, ModelShape, Question


def resolved(config: ExperimentConfig) -> ExperimentConfig:
    """Return the configuration with the parameters of its plug-ins checked and made complete.

    Raises:
        UserInputError: an unknown plug-in, method or judge, or a parameter that does not fit.
    """
    model = _resolved_model(config.model)
    judge = _complete(JUDGES, config.evaluation.judge, "evaluation.judge")
    config = config.model_copy(
        update={
            "model": model,
            "evaluation": config.evaluation.model_copy(update={"judge": judge}),
            "behaviour": _complete(BEHAVIOURS, config.behaviour, "behaviour"),
            "localizer": _complete(LOCALIZERS, config.localizer, "localizer"),
            "baselines": tuple(
                _complete(LOCALIZERS, baseline, f"baselines.{place}")
                for place, baseline in enumerate(config.baselines)
            ),
        }
    )
    names = [localizer.name for localizer in (config.localizer, *config.baselines)]
    _unique("localizer", names)
    _unique("method", config.methods)
    for path, values in (
        ("seeds", config.seeds),
        ("evaluation.alphas", config.evaluation.alphas),
        ("evaluation.top_k", config.evaluation.top_k),
        ("evaluation.measures", config.evaluation.measures),
        ("evaluation.objective", config.evaluation.objective),
    ):
        _unique(f"{path}:", values)
    with_methods(config)
    for measure in config.evaluation.measures:
        MEASURES[measure]
    return config


def check_experiment(config: ExperimentConfig) -> tuple[BehaviourData, ModelShape]:
    """Check a resolved configuration against its data and its model's shape, and return them.

    Loads no weights.

    Raises:
        UserInputError: the first thing found wrong, and how to mend it.
    """
    resolve_device(config.execution.device)
    check_attention(config.model)
    for library in getattr(JUDGES[config.evaluation.judge.name], "libraries", ()):
        judging_library(library)
    if config.evaluation.lm_eval_tasks:
        check_tasks(config.evaluation.lm_eval_tasks, config.evaluation.token_scope)
    embedded = config.model.path in EMBEDDED_MODELS
    shape = shape_of(config) if embedded else check_model(config.model)
    check_modules(shape, config)
    data = dataset_of(config)
    check_behaviour(data, config)
    return data, shape


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


def check_behaviour(data: BehaviourData, config: ExperimentConfig) -> None:
    """Check that questions, answers and labels can be split, scored and evaluated.

    Raises:
        UserInputError: the first thing found wrong, and how to mend it.
    """
    _unique("question id", [question.question_id for question in data.questions])
    asked = [" ".join(f"{question.context} {question.text}".split()) for question in data.questions]
    _unique("question", asked)
    for question in data.questions:
        for presentation in question.presentations:
            _check_question(presentation)
    complete_evaluation(config.evaluation, data)
    n_questions, n_folds = len(data.questions), config.data.n_folds
    least = 4 * n_folds
    if n_questions < least:
        raise UserInputError(
            f"the behaviour {data.name!r} has {n_questions} questions, but {n_folds} folds with "
            f"training and validation parts need at least {least}; add questions or lower "
            "data.n_folds"
        )
    if not data.neutral_texts:
        raise UserInputError(
            f"the behaviour {data.name!r} brings no neutral text to measure side effects on; name "
            "a text file in evaluation.neutral"
        )
    if len(data.neutral_texts) < 2:
        raise UserInputError(
            f"the behaviour {data.name!r} has a single neutral text (evaluation.neutral_texts is "
            f"{config.evaluation.neutral_texts}), but tuning and tests need texts of their own; "
            "take at least 2"
        )
    for fold in range(n_folds):
        parts = split(n_questions, fold, config.data)
        for localizer in (config.localizer, *config.baselines):
            params = LOCALIZERS[localizer.name].Params.model_validate(localizer.params)
            inner = getattr(params, "cross_folds", 2)
            if len(parts.train) < inner:
                raise UserInputError(
                    f"{len(parts.train)} training questions cannot be cut into {inner} parts; "
                    f"lower {localizer.name}'s cross_folds or add questions"
                )


def check_modules(shape: ModelShape, config: ExperimentConfig) -> None:
    """Check that K and the localizers' parameters fit the model's shape.

    Raises:
        UserInputError: K exceeds the number of modules, or a localizer does not fit their width.
    """
    kind = config.module_kind
    n_modules = len(shape.modules(kind))
    too_large = [k for k in config.evaluation.top_k if k > n_modules]
    if too_large:
        raise UserInputError(
            f"evaluation.top_k holds {too_large[0]}, but {config.model.path!r} has {n_modules} "
            f"modules of the kind {kind!r} ({shape.n_layers} layers x "
            f"{shape.modules_per_layer(kind)}); choose at most {n_modules}"
        )
    for ranking in rankings_of(with_methods(config)):
        localizer = LOCALIZERS.made(ranking.localizer.name, ranking.localizer.params)
        localizer.check(shape.width(ranking.kind))


def _resolved_model(model: ModelConfig) -> ModelConfig:
    if model.path in EMBEDDED_MODELS:
        plug_in = PlugIn(name=model.path, params=model.params)
        complete = _complete(EMBEDDED_MODELS, plug_in, "model")
        model = model.model_copy(update={"params": complete.params})
        if model.chat_template:
            raise UserInputError(
                f"model.chat_template is true, but the embedded model {model.path!r} has no chat "
                "template; set it to false"
            )
    elif model.params:
        raise UserInputError(
            f"model.params is {model.params}, but {model.path!r} is not an embedded model "
            f"({', '.join(EMBEDDED_MODELS)}), and only those have parameters; remove them"
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
    return model


def _check_question(question: Question) -> None:
    where = f"question {question.question_id!r} ({question.text})"
    labels = {answer.label for answer in question.answers}
    if labels != {0, 1}:
        raise UserInputError(
            f"{where} has answers with the labels {sorted(labels)} only; "
            "it needs at least one aligned (1) and one violating (0)"
        )
    if sum(answer.is_best for answer in question.answers if answer.label == 1) != 1:
        raise UserInputError(f"{where} needs exactly one best answer, among the aligned ones")
    texts = [" ".join(answer.text.split()) for answer in question.answers]
    for answer in question.answers:
        same = [other for other in question.answers if other.text == answer.text]
        if len({other.label for other in same}) > 1:
            raise UserInputError(
                f"{where} has the answer {answer.text!r} as aligned and as violating; "
                "keep one of them"
            )
    _unique(f"answer of {where}", texts)
    _unique(f"answer id of {where}", [answer.answer_id for answer in question.answers])


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
    lines = []
    for fault in error.errors():
        path = ".".join(str(part) for part in ([where] if where else []) + list(fault["loc"]))
        found = "" if fault["type"] == "missing" else f" (found {_shown(fault['input'])})"
        message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"]
        lines.append(f"{path}: {message}{found}")
    return "\n".join(lines)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _unique(what: str, values: Sequence[object]) -> None:
    value, count = Counter(values).most_common(1)[0] if values else ("", 0)
    if count > 1:
        raise UserInputError(f"{what} {value!r} appears {count} times; each must be there once")
