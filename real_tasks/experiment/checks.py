"""What can be wrong with an experiment, looked at before any expensive work."""

from real_tasks.evaluation.harness.tasks import check_tasks
from real_tasks.evaluation.judges import JUDGES, judging_library
from real_tasks.experiment.methods.known import methods_of, rankings_of, with_methods
from real_tasks.experiment.needs import check_needs, with_allowed_methods
from real_tasks.experiment.question_checks import check_behaviour, check_texts
from real_tasks.experiment.sources import dataset_of
from real_tasks.experiment.work import work_of
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.checking import check_model, checkpoint_config
from real_tasks.models.checkpoints import check_attention
from real_tasks.models.devices import resolve_device
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.families import check_kind
from real_tasks.models.text_model import TextModel
from real_tasks.steering.fitters import FITTERS
from real_tasks.vocabulary.errors import Faults, UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import BehaviourData, ModelShape


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
    if data is not None and faults.sound("methods"):
        with faults.told("methods", "behaviour", spoils="methods"):
            config = with_allowed_methods(config, data)
    with faults.told("methods", "localizer", "baselines", "execution.device_map"):
        _check_access(config)
    if shape is not None and config.model.path not in EMBEDDED_MODELS:
        with faults.told("model", "module_kind", "methods", spoils="module_kind"):
            _check_kinds(config)
    if shape is not None and faults.sound("module_kind"):
        with faults.told("model", "module_kind", "evaluation.top_k"):
            _check_top_k(shape, config)
    if shape is not None and faults.sound("methods"):
        with faults.told("model", "module_kind", "localizer", "baselines"):
            _check_localizers(shape, config)
    if data is not None:
        _check_data(data, model, config, faults)
    return data, shape


def _check_data(
    data: BehaviourData, model: TextModel | None, config: ExperimentConfig, faults: Faults
) -> None:
    measured = ("measures", "objective", "neutral", "neutral_texts", "max_new_tokens")
    asked = ("behaviour", "data", *(f"evaluation.{name}" for name in measured))
    with faults.told(*asked, spoils="needs"):
        check_behaviour(data, config)
    if faults.sound("behaviour", "data", "needs", "methods", "localizer", "baselines"):
        with faults.told("behaviour", "data", "methods"):
            check_needs(data, config)
    if model is not None:
        with faults.told(*asked, "model"):
            check_texts(model, data, config)


def _model_of(config: ExperimentConfig) -> tuple[ModelShape, TextModel | None]:
    if config.model.path not in EMBEDDED_MODELS:
        return check_model(config.model)
    embedded = EMBEDDED_MODELS.made(config.model.path, config.model.params)
    return embedded.shape(), embedded.texts()


def _check_kinds(config: ExperimentConfig) -> None:
    model = config.model
    architecture = checkpoint_config(model.path, model.revision, model.trust_remote_code)
    check_kind(architecture, config.module_kind)
    config = with_methods(config)
    for kind in dict.fromkeys(kind for kind, _ in work_of(config).readings):
        check_kind(architecture, kind)
    for method in methods_of(config):
        check_kind(architecture, method.kind)


def _check_access(config: ExperimentConfig) -> None:
    if config.execution.device_map is None:
        return
    for method in methods_of(with_methods(config)):
        if method.fitter is None:
            continue
        access = FITTERS[method.fitter.name].access
        if access in ("weights", "gradients"):
            raise UserInputError(
                f"the method {method.name!r}: its fitter {method.fitter.name!r} asks for {access}, "
                "but execution.device_map spreads the model, so that weights may be elsewhere when "
                "they are needed; set execution.device_map to null (model.dtype: bfloat16 takes "
                "half the memory), or leave the method out"
            )


def check_modules(shape: ModelShape, config: ExperimentConfig) -> None:
    """Check that K and the localizers' parameters fit the model's shape.

    Raises:
        UserInputError: K exceeds the number of modules, or a localizer does not fit their width.
    """
    _check_top_k(shape, config)
    _check_localizers(shape, config)


def _check_top_k(shape: ModelShape, config: ExperimentConfig) -> None:
    kind = config.module_kind
    n_modules = shape.n_layers_of(kind) * shape.modules_per_layer(kind)
    if not n_modules:
        raise UserInputError(
            f"module_kind is {kind!r}, but nothing says how many {config.model.path!r} has; give "
            "model.shape.d_mlp, or choose another kind"
        )
    too_large = [k for k in config.evaluation.top_k if k > n_modules]
    if too_large:
        raise UserInputError(
            f"evaluation.top_k holds {too_large[0]}, but {config.model.path!r} has {n_modules} "
            f"modules of the kind {kind!r} ({shape.n_layers_of(kind)} layers x "
            f"{shape.modules_per_layer(kind)}); choose at most {n_modules}"
        )
    for method in methods_of(with_methods(config)):
        n_own = shape.n_layers_of(method.kind) * shape.modules_per_layer(method.kind)
        if method.top_k and max(method.top_k) > n_own:
            raise UserInputError(
                f"the method {method.name!r} chooses among top_k {list(method.top_k)}, but "
                f"{config.model.path!r} has {n_own} modules of the kind {method.kind!r}; give it "
                f"fewer: {{name: mine, like: {method.name}, top_k: [1]}}"
            )


def _check_localizers(shape: ModelShape, config: ExperimentConfig) -> None:
    for ranking in rankings_of(with_methods(config)):
        localizer = LOCALIZERS.made(ranking.localizer.name, ranking.localizer.params)
        localizer.check(shape.width(ranking.kind))
