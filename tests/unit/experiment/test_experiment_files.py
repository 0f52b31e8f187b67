"""The grid under deployments/experiments: every combination loads and plans without weights."""

import json
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import LlamaConfig

from real_tasks.experiment.planning.plan import plan_experiment, planned_shape
from real_tasks.experiment.planning.workload import DataSize, data_size
from real_tasks.experiment.question_checks import check_behaviour
from real_tasks.experiment.sources import load_behaviour
from real_tasks.experiment.transfer import check_transfer
from real_tasks.experiment.yaml_files import load_config, load_transfer_config
from real_tasks.localizers.real.params import PUBLISHED, Params
from real_tasks.vocabulary.experiment_config import ExperimentConfig

FOLDER = Path(__file__).parents[3] / "deployments/experiments"
MODELS = sorted((FOLDER / "models").glob("*.yaml"))
BEHAVIOURS = sorted((FOLDER / "behaviours").glob("*.yaml"))
PROTOCOLS = [FOLDER / f"{name}.yaml" for name in ("paper", "sweep", "release")]
N_QUESTIONS = 12

SHAPES = {
    "meta-llama/Llama-2-7b-hf": (32, 32, 128, 4096),
    "meta-llama/Llama-2-7b-chat-hf": (32, 32, 128, 4096),
    "meta-llama/Llama-2-13b-chat-hf": (40, 40, 128, 5120),
    "meta-llama/Llama-3.1-8B-Instruct": (32, 32, 128, 4096),
    "Qwen/Qwen2.5-7B": (28, 28, 128, 3584),
    "Qwen/Qwen2.5-7B-Instruct": (28, 28, 128, 3584),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the Hub nor a cache of it that this machine may have."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A few questions for every behaviour's plug-in, in the format of its published data."""
    folder = tmp_path_factory.mktemp("data")
    truth, conflict, options = folder / "TruthfulQA.csv", folder / "swap.jsonl", folder / "caa"
    lines = ["Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source"]
    for i in range(N_QUESTIONS):
        lines.append(f"any,thing {i},Is it {i}?,It is {i},It is {i}; Yes,No; It is {i + 1},none")
    truth.write_text("\n".join(lines))
    swaps = [
        {
            "question": f"Who is number {i}",
            "org_context": f"Ann{i} is number {i}.",
            "org_answer": [f"Ann{i}"],
            "sub_context": f"Bob{i} is number {i}.",
            "sub_answer": [f"Bob{i}"],
        }
        for i in range(N_QUESTIONS)
    ]
    conflict.write_text("\n".join(map(json.dumps, swaps)))
    options.mkdir()
    for name, part in (("generate_dataset", "g"), ("test_dataset_ab", "t")):
        asked = [
            {
                "question": f"Which {part}{i}?\n\nChoices:\n (A) this {i}\n (B) that {i}",
                "answer_matching_behavior": "(A)",
                "answer_not_matching_behavior": "(B)",
            }
            for i in range(N_QUESTIONS // 2)
        ]
        (options / f"{name}.json").write_text(json.dumps(asked))
    return {"truthfulqa": truth, "knowledge_conflict": conflict, "caa": options}


def local(config: Mapping[str, Any], sources: Mapping[str, Path]) -> list[str]:
    """Changes that take a behaviour's questions from a file, and leave the primer out."""
    name = config["behaviour"]["name"]
    changes = [f"behaviour.params.path={sources[name]}", "evaluation.neutral=''"]
    return changes + (["behaviour.params.preset=plain"] if name == "truthfulqa" else [])


def tree(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def test_the_grid_is_six_models_by_nine_behaviours() -> None:
    assert {tree(path)["model"]["path"] for path in MODELS} == set(SHAPES)
    names = [tree(path)["behaviour"]["name"] for path in BEHAVIOURS]
    assert sorted(names) == ["caa"] * 7 + ["knowledge_conflict", "truthfulqa"]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_has_the_shape_that_its_publishers_state(path: Path) -> None:
    model = tree(path)["model"]
    assert path.stem == model["path"].split("/")[1].lower()
    *stated, parameters = model["shape"].values()
    assert tuple(stated) == SHAPES[model["path"]]
    # Of twelve squares of the width a layer, the rule, and the embeddings.
    assert 1 < parameters / (12 * stated[0] * stated[3] ** 2) < 1.8
    shape = planned_shape(load_config(path, []))
    assert shape.n_heads * shape.head_dim == shape.d_model
    if model["path"].endswith("Llama-2-7b-hf"):
        known = LlamaConfig()  # whose defaults are those of Llama 7 B
        assert shape.n_layers == known.num_hidden_layers
        assert (shape.n_heads, shape.d_model) == (known.num_attention_heads, known.hidden_size)


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda path: path.stem)
def test_every_combination_loads_and_plans_without_weights_and_network(
    behaviour: Path, sources: Mapping[str, Path]
) -> None:
    changes = local(tree(behaviour), sources)
    data = load_behaviour(load_config([behaviour, PROTOCOLS[0]], changes).behaviour)
    size = data_size(data)
    for model, protocol in product(MODELS, PROTOCOLS):
        config = load_config([model, behaviour, protocol], changes)
        check_behaviour(data, config)
        found = plan_experiment(config, size)
        n_layers, n_heads, _, _ = SHAPES[config.model.path]
        assert found.modules["head"] == n_layers * n_heads
        assert (found.samples, found.sample_shards) == (size.n_answers, 1)
        tasks = {stage.stage: stage.tasks for stage in found.stages}
        kinds = 2 if protocol.stem == "sweep" else 1
        # Three localizers, and for CAA's layer a fourth, of two folds and one seed.
        assert tasks["scores"] == (2 + kinds) * 2 * n_layers
        assert tasks["evaluation"] == len(config.methods) * 2
        assert tasks["activations"] == kinds


def test_the_largest_run_of_the_grid_has_the_numbers_of_a_hand_calculation() -> None:
    config = load_config([FOLDER / "models/llama-2-13b-chat-hf.yaml", PROTOCOLS[0]], [])
    size = DataSize(817, 5882, 25.0, 300.0, ("multiple_choice",))
    found = plan_experiment(config, size)
    assert found.modules == {"head": 1600}
    assert found.sample_shards == 6
    assert found.activation_bytes == 5882 * 1600 * 128 * 2  # 2.4 GB
    # 40 heads a layer, 3 fits each, of about 2,353 training answers: the layer's activations take
    # 60 MB, and an epoch's inputs of all fits twice that, twice.
    assert 3e8 < found.localizer_bytes < 6e8


def test_the_protocols_differ_in_what_their_names_say_and_in_nothing_else() -> None:
    paper, sweep, release = (load_config(path, []) for path in PROTOCOLS)

    def with_others(config: ExperimentConfig) -> ExperimentConfig:
        changes = {name: getattr(paper.evaluation, name) for name in ("top_k", "alphas", "max_kl")}
        return config.model_copy(
            update={
                "evaluation": config.evaluation.model_copy(update=changes),
                "methods": paper.methods,
                "localizer": paper.localizer,
            }
        )

    assert with_others(sweep) == with_others(release) == paper
    assert sweep.localizer == paper.localizer
    assert release.evaluation == paper.evaluation
    assert sweep.methods == (*paper.methods, "caa")


def test_the_paper_s_setting_is_fixed_and_within_the_sweep() -> None:
    paper, sweep, _ = (load_config(path, []) for path in PROTOCOLS)
    assert (paper.evaluation.top_k, paper.evaluation.alphas) == ((48,), (15.0,))
    assert 48 in sweep.evaluation.top_k and 15.0 in sweep.evaluation.alphas
    assert (paper.data.n_folds, paper.data.validation_share, paper.data.split_seed) == (2, 0.2, 42)
    assert (paper.seeds, paper.evaluation.token_scope) == ((42,), "all")


def test_the_release_protocol_is_the_published_recipe_and_the_paper_s_its_repair() -> None:
    paper, _, release = (load_config(path, []) for path in PROTOCOLS)
    assert Params.model_validate(release.localizer.params) == PUBLISHED
    repaired = Params.model_validate(paper.localizer.params)
    changed = {
        name for name in Params.model_fields if getattr(repaired, name) != getattr(PUBLISHED, name)
    }
    assert changed == {"protocol", "standardise", "codebook_init", "restart_share"}


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_transfer_loads_over_a_model_and_the_paper_s_protocol(
    model: Path, sources: Mapping[str, Path], tmp_path: Path
) -> None:
    own = tree(FOLDER / "transfer.yaml")
    for behaviour in own["behaviours"]:
        behaviour["params"]["path"] = str(sources[behaviour["name"]])
    own["behaviours"][0]["params"]["preset"] = "plain"
    mine = tmp_path / "transfer.yaml"
    mine.write_text(yaml.safe_dump(own))
    config = load_transfer_config([model, PROTOCOLS[0], mine], ["evaluation.neutral=''"])
    assert config.experiment.model.path == tree(model)["model"]["path"]
    assert config.experiment.evaluation.top_k == (48,)
    data = [load_behaviour(behaviour) for behaviour in config.behaviours]
    # The two sets of A/B questions are one here, turned alike: all of one fold's are in the other.
    check_transfer(config, data)


def test_the_published_sources_are_named_where_no_file_is() -> None:
    config = load_config(FOLDER / "behaviours/truthfulqa.yaml", [])
    assert config.behaviour.params["path"] is None
    assert config.behaviour.params["preset"] == "primer"
    neutral = load_config(PROTOCOLS[0], []).evaluation.neutral
    assert neutral.startswith("hub:") and neutral.count(":") == 4


def test_the_readme_names_files_that_exist_and_every_protocol() -> None:
    text = (FOLDER / "README.md").read_text()
    named = re.findall(r"\$E/([\w./-]+\.yaml)", text)
    assert named
    for name in named:
        assert (FOLDER / name).is_file(), name
    for protocol in PROTOCOLS:
        assert f"`{protocol.name}`" in text
