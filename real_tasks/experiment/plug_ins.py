"""Plug-ins of a configuration: their parameters checked and made complete."""

from collections.abc import Collection

from real_tasks.evaluation.judges import JUDGES
from real_tasks.evaluation.measures import MEASURES
from real_tasks.experiment.methods.known import method_names, methods_of, with_methods
from real_tasks.experiment.parameters import complete
from real_tasks.experiment.question_checks import unique
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.questions.files.parsing import shortened
from real_tasks.vocabulary.config import ModelConfig, PlugIn
from real_tasks.vocabulary.errors import Faults, UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig


def resolved(config: ExperimentConfig, doubtful: Collection[str] = ()) -> ExperimentConfig:
    """Return the configuration with the parameters of its plug-ins checked and made complete.

    ``doubtful`` are fields of it that are known to be wrong; see `Faults`.

    Raises:
        UserInputError: unknown plug-ins, methods or judges, or parameters that do not fit.
    """
    faults = Faults(doubtful)
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
        judge = complete(JUDGES, judge, "evaluation.judge")
    behaviour, localizer, baselines = config.behaviour, PlugIn(name="random"), []
    with faults.told("behaviour", spoils="behaviour"):
        behaviour = complete(BEHAVIOURS, behaviour, "behaviour")
    with faults.told("localizer", spoils="localizer"):
        localizer = complete(LOCALIZERS, config.localizer, "localizer")
    for place, baseline in enumerate(config.baselines):
        with faults.told("baselines", spoils=f"baselines.{place}"):
            baselines.append(complete(LOCALIZERS, baseline, f"baselines.{place}"))
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
        ("methods", "method", method_names(config)),
        ("seeds", "seeds:", config.seeds),
        ("evaluation.alphas", "evaluation.alphas:", evaluation.alphas),
        ("evaluation.top_k", "evaluation.top_k:", evaluation.top_k),
        ("evaluation.measures", "evaluation.measures:", evaluation.measures),
        ("evaluation.objective", "evaluation.objective:", evaluation.objective),
    ):
        with faults.told(*fields.split()):
            unique(what, values)
    with faults.told("methods", "localizer", "baselines", spoils="methods"):
        methods_of(with_methods(config))
    for measure in evaluation.measures:
        with faults.told("evaluation.measures", spoils="evaluation.measures"):
            MEASURES[measure]


def _resolved_model(model: ModelConfig) -> ModelConfig:
    if model.path in EMBEDDED_MODELS:
        plug_in = PlugIn(name=model.path, params=model.params)
        params = complete(EMBEDDED_MODELS, plug_in, "model").params
        return model.model_copy(update={"params": params})
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
