import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from real_tasks.contract.planted import planted_input
from real_tasks.evaluation.tuning import evaluate_method
from real_tasks.experiment.methods.known import known_methods
from real_tasks.experiment.planning.costs import activation_bytes, forward_flops, model_size
from real_tasks.experiment.planning.data_size import size_of_behaviour, stated_size
from real_tasks.experiment.planning.memory import evaluation_bytes, extraction_bytes
from real_tasks.experiment.planning.plan import plan, plan_experiment, planned_shape
from real_tasks.experiment.planning.rows import Plan, fit_sentences, plan_rows, stage_rows
from real_tasks.experiment.planning.workload import DataSize, data_size, evaluation_tokens
from real_tasks.experiment.yaml_files import load_config
from real_tasks.localizers.real import costs
from real_tasks.localizers.real.fitting import ShardProgram
from real_tasks.localizers.real.params import Params
from real_tasks.localizers.real.plan import cross_fit_plan, release_plan
from real_tasks.models.checking import checkpoint_config
from real_tasks.models.families import configured_shape
from real_tasks.reading.activations import activations_at_last_token
from real_tasks.vocabulary.config import KnownShape, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import ModelShape, ModuleKind
from storage.artifacts.activations import write_shard
from tests.unit.tiny_models import random_data, random_texts, tiny_llama, tiny_loaded, tiny_qwen2

SIZE = DataSize(
    n_questions=100,
    n_answers=600,
    mean_tokens=20.0,
    prompt_tokens=30.0,
    measures=("multiple_choice",),
)
SHAPE = ModelShape(n_layers=4, n_heads=8, head_dim=32, d_model=128)


class MatrixProducts(TorchDispatchMode):
    """Counts the FLOPs of matrix products from the shapes of what is multiplied."""

    FIRST_FACTOR = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "baddbmm_": 1}

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        place = self.FIRST_FACTOR.get(func.overloadpacket.__name__)
        if place is not None:
            self.flops += 2 * args[place].numel() * args[place + 1].shape[-1]
        return func(*args, **(kwargs or {}))


def saved(model: PreTrainedModel, folder: Path) -> ModelConfig:
    model.save_pretrained(folder)
    return ModelConfig(path=str(folder))


def tasks(config: ExperimentConfig, size: DataSize = SIZE) -> dict[str, int]:
    return {stage.stage: stage.tasks for stage in planned(config, size).stages}


def planned(config: ExperimentConfig, size: DataSize = SIZE) -> Plan:
    return plan(config, SHAPE, size, model_size(config.model, SHAPE))


@pytest.mark.parametrize("kind", get_args(ModuleKind))
@pytest.mark.parametrize(("dtype", "most_besides"), [("float16", 0.6), ("float32", 0.3)])
def test_planned_bytes_are_those_of_really_written_activations_but_for_their_keys(
    kind: ModuleKind, dtype: Any, most_besides: float, tmp_path: Path
) -> None:
    loaded = tiny_loaded()
    texts = random_texts(300)
    values = activations_at_last_token(loaded, texts, 2048, kind)
    keys = {"model": "tiny", "model_id": "0", "behaviour": "b", "label": 0}
    rows = [{**keys, "question_id": f"q{i}", "answer_id": f"a{i}"} for i in range(len(texts))]
    files = write_shard(tmp_path, 0, rows, values.numpy(), dtype, kind)
    planned = activation_bytes(loaded.shape, (kind,), len(texts), dtype)
    assert planned == values.numel() * {"float16": 2, "float32": 4}[dtype]
    written = sum(file.stat().st_size for file in files)
    if kind == "head":
        assert planned < written < (1 + most_besides) * planned
    assert 0 < written - planned < 20_000 * loaded.shape.n_layers


def test_kinds_of_modules_add_up() -> None:
    both = activation_bytes(SHAPE, ("head", "layer"), 10, "float16")
    assert both == 10 * 2 * (4 * 8 * 32 + 4 * 128)
    others = activation_bytes(replace(SHAPE, d_mlp=300), ("neuron", "final"), 10, "float16")
    assert others == 10 * 2 * (4 * 300 + 128)


def test_the_final_part_is_scored_in_one_task_a_fold_and_seed() -> None:
    layers, final = (
        ExperimentConfig(module_kind=kind, evaluation={"top_k": [1]}, baselines=())
        for kind in ("layer", "final")
    )
    assert tasks(layers)["scores"] == 4 * tasks(final)["scores"]


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_without_weights_and_tied_ones_once(
    tied: bool, tmp_path: Path
) -> None:
    model = tiny_llama()
    model.config.tie_word_embeddings = tied
    model = LlamaForCausalLM(model.config)
    options = saved(model, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as stored:
        counted = sum(stored.get_tensor(name).numel() for name in stored.keys())  # noqa: SIM118
    (tmp_path / "model.safetensors").unlink()
    shape = planned_shape(ExperimentConfig(model=options))
    found = model_size(options, shape)
    assert found.counted
    assert (found.d_model, found.kv_width, found.mlp_width) == (32, 4 * 12, 48)
    assert found.parameters == counted == sum(p.numel() for p in model.parameters())
    assert found.weight_bytes == 4 * counted
    half = model_size(options.model_copy(update={"dtype": "bfloat16"}), shape)
    assert half.weight_bytes == 2 * counted


def test_the_size_of_a_checkpoint_that_is_not_there_is_what_is_stated_or_a_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shape = KnownShape(n_layers=4, n_heads=8, head_dim=32, d_model=128)
    absent = ModelConfig(path="nobody/nothing-of-this-name", shape=shape)
    assert planned_shape(ExperimentConfig(model=absent)) == SHAPE
    ruled = model_size(absent, SHAPE)
    assert (ruled.parameters, ruled.counted) == (12 * 4 * 128**2, False)
    stated = absent.model_copy(update={"shape": shape.model_copy(update={"parameters": 10**9})})
    assert planned_shape(ExperimentConfig(model=stated)) == SHAPE
    assert model_size(stated, SHAPE).parameters == 10**9
    without = ModelConfig(path="nobody/nothing-of-this-name")
    with pytest.raises(UserInputError, match="nothing-of-this-name"):
        planned_shape(ExperimentConfig(model=without))


def test_a_folder_with_a_configuration_alone_gives_the_shape_of_the_whole_checkpoint(
    tmp_path: Path,
) -> None:
    loaded = tiny_loaded()
    options = saved(loaded.model, tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    whole = configured_shape(checkpoint_config(tmp_path))
    for file in tmp_path.iterdir():
        if file.name != "config.json":
            file.unlink()
    assert planned_shape(ExperimentConfig(model=options)) == whole == loaded.shape


def test_forward_flops_are_those_of_a_model_without_much_attention() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    ids = torch.randint(0, 64, (5, 8))
    with MatrixProducts() as counter, torch.no_grad():
        model(ids)
    parameters = sum(p.numel() for p in model.parameters())
    assert forward_flops(parameters, ids.numel()) == pytest.approx(counter.flops, rel=0.05)


@pytest.mark.parametrize(
    ("params", "d", "n_questions"),
    [
        (Params(epochs=6, prior_epochs=4), 32, 48),
        (Params(epochs=4, prior_epochs=1, codebook_size=32, units=4), 64, 48),
        (Params(epochs=1, prior_epochs=5, prior_hidden=48, prior_embedding=24), 16, 48),
        (Params(protocol="release", epochs=4, prior_epochs=3), 48, 80),
    ],
)
def test_training_flops_are_those_of_the_products_that_training_makes(
    params: Params, d: int, n_questions: int
) -> None:
    data = planted_input(3, relevant=[0], n_questions=n_questions, d=d)
    data = replace(data, train=torch.ones_like(data.train))
    released = params.protocol == "release"
    of_fits = release_plan(data, 0) if released else cross_fit_plan(data, params.cross_folds, 0)
    program = ShardProgram(data.values, data.modules, of_fits, params, 0)
    with torch.no_grad():
        with MatrixProducts() as counter:
            autoencoders = program._train_autoencoders(data.labels)
        codes, _, _ = program._encode(autoencoders)
        with counter:
            program._train_priors(codes)
    planned = len(data.modules) * costs.flops(params, d, len(data.labels))
    assert planned == pytest.approx(counter.flops, rel=0.1)


def test_tasks_are_counted_stage_by_stage() -> None:
    config = load_config(None, ["methods=[unsteered, real, iti, random, random_direction]"])
    assert config.seeds == (0, 1, 2) and config.data.n_folds == 2
    # real and random have three seeds, iti and causal one; each of 2 folds and 4 layers.
    assert tasks(config) == {
        "dataset": 1,
        "checkpoint": 1,
        "activations": 1,
        "scores": (3 + 3 + 1 + 1) * 2 * 4,
        "fits": (1 + 3) * 2,
        "evaluation": (1 + 3 + 1 + 3 + 3) * 2,
    }


def test_samples_are_cut_into_shards_for_each_kind_of_module() -> None:
    config = load_config(None, ["extraction.samples_per_shard=250", "methods=[unsteered, caa]"])
    found = planned(config)
    assert found.sample_shards == 3
    assert found.modules == {"head": 32, "layer": 4}
    assert tasks(config)["activations"] == 6
    # CAA's layer is found by its effect: one ranking more, without seeds.
    assert tasks(config)["scores"] == (3 + 3 + 1 + 1 + 1) * 2 * 4


def test_effects_read_the_validation_answers_once_for_every_module_and_task() -> None:
    changes = ["localizer.name=random", "localizer.params={}", "baselines=[{name: causal}]"]
    config = load_config(None, [*changes, "methods=[causal]"])
    (scores,) = [one for one in planned(config).stages if one.stage == "scores"]
    validation = 600 * 0.5 * 0.34
    assert scores.model_tokens == pytest.approx(2 * (32 + 4) * validation * 30.0)
    assert scores.model_flops == pytest.approx(2 * 12 * 4 * 128**2 * scores.model_tokens)


def test_training_through_the_model_is_counted_for_the_modules_that_are_steered() -> None:
    methods = "methods=[iti, {name: mine, like: bipo, top_k: [1, 2]}, lqr]"
    (fits,) = [one for one in planned(load_config(None, [methods])).stages if one.stage == "fits"]
    # 60 batches of 4 prompts with 2 answers of 30 tokens, read, and twice that for gradients, for 2
    # layers, on 2 folds with 3 seeds; 50 texts, the last token once for each of 128 dimensions.
    trained, linearised = 60 * 4 * 2 * 30 * 3 * 2 * 2 * 3, 50 * (24 + 128 * 3) * 2
    assert fits.model_tokens == trained + linearised


@dataclass(frozen=True)
class _Spec:
    """What tuning needs of a steering spec."""

    top_k: int
    alpha: float = 1.0
    gated: bool = False

    def with_alpha(self, alpha: float) -> "_Spec":
        return replace(self, alpha=alpha)


class _Measurement:
    questions = (0,)

    def metrics(self) -> dict[str, float]:
        return {"mc1": 0.5, "kl": 0.0}


class CountingEvaluator:
    """Counts the tokens that an evaluator reads; like a real one, it reads no setting twice."""

    objective, n_texts = ("mc1",), 1

    def __init__(self, of_part: Mapping[str, float], neutral: float) -> None:
        self.of_part, self.neutral = of_part, neutral
        self.measured: set[Any] = set()
        self.effects: set[Any] = set()

    @property
    def tokens(self) -> float:
        measured = sum(self.of_part[part] for part, _ in self.measured)
        return measured + len(self.effects) * self.neutral + 2 * self.neutral

    def side_effects(self, part: str, spec: _Spec | None) -> tuple[float, float]:
        self.effects.add((part, spec))
        return 1.0, 1e-4 * spec.alpha**2 if spec else 0.0

    def measure(self, part: str, spec: _Spec | None) -> _Measurement:
        self.measured.add((part, spec))
        self.side_effects(part, spec)
        return _Measurement()


@pytest.mark.parametrize("name", ["unsteered", "real", "all"])
def test_tokens_of_an_evaluation_are_those_that_tuning_and_testing_read(name: str) -> None:
    config = load_config(None, ["evaluation.neutral_texts=2", "methods=[real, all, unsteered]"])
    method = known_methods(config)[name]
    answers = {"validation": 600 * 0.5 * 0.34, "test": 600 * 0.5}
    of_part = {part: count * 30.0 for part, count in answers.items()}
    evaluator: Any = CountingEvaluator(of_part, neutral=256)
    ks = {"unsteered": (), "real": config.evaluation.top_k, "all": (32,)}[name]
    candidates: Any = {k: _Spec(k) for k in ks}
    evaluate_method(evaluator, candidates, config.evaluation)
    planned = evaluation_tokens(method, config, SIZE)
    assert planned == pytest.approx(evaluator.tokens, rel=0.05)
    raced = config.evaluation.model_copy(update={"search": "race"})
    fewer = evaluation_tokens(method, config.model_copy(update={"evaluation": raced}), SIZE)
    assert fewer == planned if name == "unsteered" else fewer < 0.8 * planned


def test_generated_answers_count_their_prompts_and_their_own_tokens() -> None:
    config = load_config(None, ["evaluation.max_new_tokens=50", "evaluation.neutral_texts=2"])
    unsteered = known_methods(config)["unsteered"]
    reading = evaluation_tokens(unsteered, config, SIZE)
    both = replace(SIZE, measures=("multiple_choice", "generation"))
    share = 0.5 * 0.34 + 0.5
    more = evaluation_tokens(unsteered, config, both) - reading
    assert more == pytest.approx(2 * share * 100 * (30.0 + 50))
    alone = replace(SIZE, measures=("generation",))
    generating = evaluation_tokens(unsteered, config, alone)
    assert generating - 4 * 256 == pytest.approx(more)
    chosen = load_config(None, ["evaluation.measures=[generation]"])
    assert planned(chosen) == planned(load_config(None, []), alone)


def test_more_of_anything_costs_more() -> None:
    before = planned(load_config(None, []))
    bigger = {"scores": "localizer.params.epochs=80", "evaluation": "evaluation.top_k=[1, 2, 3, 4]"}
    for stage, change in bigger.items():
        after = planned(load_config(None, [change]))
        for one, other in zip(before.stages, after.stages, strict=True):
            costs = [(s.model_tokens, s.flops) for s in (one, other)]
            assert (costs[1] > costs[0]) == (one.stage == stage), one.stage


def test_a_plan_knows_its_data_from_the_behaviour() -> None:
    data = random_data(10)
    words = data_size(data, lambda text: float(len(text.split())))
    texts = [data.full_text(q, a) for q in data.questions for a in q.answers]
    assert (words.n_questions, words.n_answers) == (10, len(texts))
    assert words.mean_tokens == pytest.approx(sum(len(t.split()) for t in texts) / len(texts))
    longer = data_size(replace(data, preamble="one two three "), lambda t: float(len(t.split())))
    assert longer.prompt_tokens == pytest.approx(words.prompt_tokens + 3)
    assert longer.mean_tokens == words.mean_tokens


def test_a_plan_of_a_checkpoint_has_the_flops_of_its_parameters(tmp_path: Path) -> None:
    options = saved(tiny_qwen2(), tmp_path)
    changes = ["evaluation.top_k=[2]", "localizer.params.units=4", "baselines=[iti]"]
    config = load_config(None, [*changes, "methods=[unsteered, real]"])
    config = config.model_copy(update={"model": options})
    known = plan_experiment(config, SIZE)
    extraction = next(one for one in known.stages if one.stage == "activations")
    assert extraction.model_tokens == 600 * 20.0
    assert extraction.flops == 2.0 * known.model.parameters * 600 * 20.0
    assert all(row["value"] is not None for row in plan_rows(known))
    *stages, everything = stage_rows(known)
    assert everything["flops"] == known.flops == sum(row["flops"] for row in stages)


def test_a_plan_that_does_not_fit_the_shape_is_refused() -> None:
    with pytest.raises(UserInputError, match="top_k holds 33"):
        planned(load_config(None, ["evaluation.top_k=[33]"]))
    with pytest.raises(UserInputError, match="units=5 does not divide"):
        planned(load_config(None, ["localizer.params.units=5"]))


def test_what_answers_of_a_question_share_is_read_once() -> None:
    data = random_data(10)

    def words(text: str) -> float:
        return float(len(text.split()))

    size = data_size(data, words)
    distinct = sum(
        words(data.context(q))
        + sum(words(data.full_text(q, a)) - words(data.context(q)) for a in q.answers)
        for q in data.questions
    )
    assert size.read_tokens == pytest.approx(distinct)
    assert size.read_tokens < size.n_answers * size.mean_tokens


def test_a_long_beginning_of_all_prompts_is_read_once_for_each_measurement() -> None:
    data = random_data(10)
    long = replace(data, preamble="word " * 50)
    words = [
        replace(data_size(d, lambda text: float(len(text.split()))), measures=("multiple_choice",))
        for d in (data, long)
    ]
    assert [size.prefix_tokens for size in words][0] == 0.0
    assert words[1].prefix_tokens >= 50
    config = load_config(None, ["methods=[unsteered]"])
    method = known_methods(config)["unsteered"]
    plain, primed = (evaluation_tokens(method, config, size) for size in words)
    # Validation and test questions, once each.
    assert primed - plain == pytest.approx(2 * words[1].prefix_tokens, rel=0.3)


def test_planned_memory_of_extraction_is_what_a_batch_really_allocates() -> None:
    loaded = tiny_loaded()
    texts = random_texts(300)
    options = load_config(None, ["extraction.batch_tokens=100000"])
    ids = [len(row) for row in loaded.tokenizer(texts)["input_ids"]]
    size = replace(SIZE, n_answers=300, mean_tokens=sum(ids) / len(ids))
    model = model_size(ModelConfig(), loaded.shape)
    model = replace(model, parameters=1, itemsize=4, mlp_width=48)
    planned = extraction_bytes(model, loaded.shape, "head", options, size)
    with Allocated() as memory:
        activations_at_last_token(loaded, texts, 100_000, "head")
    assert planned == pytest.approx(memory.peak, rel=1.0)
    assert planned > 0.5 * memory.peak


class Allocated(TorchDispatchMode):
    """Follows how much memory tensors that operations make take at most at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return made

    def _follow(self, storage: torch.UntypedStorage) -> None:
        place, n = storage.data_ptr(), storage.nbytes()
        if not n or place in self._known:
            return
        self._known.add(place)
        self._now += n
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._freed, place, n)

    def _freed(self, place: int, n: int) -> None:
        self._known.discard(place)
        self._now -= n


def test_evaluation_needs_room_for_keys_and_values_of_generated_answers() -> None:
    model = model_size(ModelConfig(), SHAPE)
    reading = load_config(None, ["evaluation.measures=[multiple_choice]"])
    writing = load_config(None, ["evaluation.measures=[generation]"])
    many = replace(SIZE, n_questions=10_000)
    without, with_cache = (evaluation_bytes(model, config, many) for config in (reading, writing))
    tokens = writing.evaluation.batch_tokens
    cached = tokens * 2 * 4 * 8 * 32 * 4
    assert model.weight_bytes < without
    assert with_cache >= model.weight_bytes + cached


def test_stated_sizes_take_the_place_of_data_that_are_not_there() -> None:
    size = stated_size(100, 6.0, 12.0, prompt_tokens=48.0)
    assert (size.n_questions, size.n_answers) == (100, 600)
    assert size.read_tokens == 600 * 12.0
    assert size.n_answers * size.prompt_tokens * size.prompt_share == pytest.approx(600 * 12.0)
    with pytest.raises(UserInputError, match="positive"):
        stated_size(0, 6.0, 12.0)


def test_without_data_the_error_says_how_to_plan_all_the_same(tmp_path: Path) -> None:
    missing = f"behaviour={{name: jsonl, params: {{path: {tmp_path / 'none.jsonl'}}}}}"
    with pytest.raises(UserInputError, match="--questions 800"):
        size_of_behaviour(load_config(None, [missing, "evaluation.measures=[multiple_choice]"]))


def test_a_checkpoint_s_own_tokenizer_counts_where_it_is_there(tmp_path: Path) -> None:
    loaded = tiny_loaded()
    loaded.tokenizer.save_pretrained(tmp_path)
    config = load_config(None, [])
    here = config.model_copy(update={"model": ModelConfig(path=str(tmp_path))})
    ruled, counted = size_of_behaviour(config), size_of_behaviour(here)
    # The tiny tokenizer takes a word for a token; the rule four characters.
    assert counted.n_answers == ruled.n_answers
    assert counted.mean_tokens != ruled.mean_tokens


def test_a_device_that_is_too_small_is_named_with_the_mend() -> None:
    config = load_config(None, ["methods=[unsteered, real]"])
    found = planned(config)
    assert fit_sentences(found, 16e9) == []
    (sentence,) = fit_sentences(replace(found, evaluation_bytes=10**11), 16e9)
    assert "100 GB" in sentence and "evaluation.batch_tokens" in sentence
    huge = replace(found.model, parameters=10**11, itemsize=1)
    spread = replace(found, extraction_bytes=10**11, model=huge)
    assert "device_map" in fit_sentences(spread, 16e9)[0]


def test_fewer_questions_and_text_of_the_hub_are_planned_for_without_fetching() -> None:
    hub = "evaluation.neutral=hub:nobody/nothing:c:s:t"
    all_of_them, some = (
        size_of_behaviour(load_config(None, changes)) for changes in ([], ["data.limit=20", hub])
    )
    assert (all_of_them.n_questions > 100, some.n_questions) == (True, 20)
    assert (some.n_neutral, some.neutral_tokens) == (None, 256)
