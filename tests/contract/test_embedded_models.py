"""What every embedded model keeps to, over the registry: a new one is tested without being named.

Models are built with as few steps as their parameters allow, where they have any.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from real_tasks.models.checking import checkpoint_config
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.families import configured_shape
from real_tasks.models.loading import LoadedModel, load_model
from real_tasks.vocabulary.config import ExecutionConfig, Frozen
from storage.artifacts.store import fingerprint


def smallest(name: str, **other: Any) -> Frozen:
    """The parameters with one training step."""
    params = EMBEDDED_MODELS[name].Params
    steps = {"steps": 1} if "steps" in params.model_fields else {}
    return params.model_validate({**steps, **other})


@dataclass(frozen=True)
class Built:
    name: str
    folder: Path
    facts: dict[str, Any]
    progress: list[tuple[int, int]]


def build(name: str, folder: Path) -> Built:
    progress: list[tuple[int, int]] = []
    model = EMBEDDED_MODELS[name](smallest(name))
    facts = model.build(folder, lambda done, total: progress.append((done, total)))
    return Built(name, folder, facts, progress)


@pytest.fixture(scope="module", params=list(EMBEDDED_MODELS))
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def loaded(built: Built) -> LoadedModel:
    return load_model(built.folder, execution=ExecutionConfig(device="cpu"))


def test_parameters_are_frozen_have_defaults_and_descriptions(built: Built) -> None:
    params = EMBEDDED_MODELS[built.name].Params
    assert issubclass(params, Frozen)
    assert params() == params.model_validate(params().model_dump(mode="json"))
    assert all(field.description for field in params.model_fields.values())


def test_the_checkpoint_has_the_shape_that_was_told_beforehand(
    built: Built, loaded: LoadedModel
) -> None:
    told = EMBEDDED_MODELS[built.name](smallest(built.name)).shape()
    assert told == configured_shape(checkpoint_config(built.folder)) == loaded.shape
    assert told == EMBEDDED_MODELS[built.name](EMBEDDED_MODELS[built.name].Params()).shape()


def test_it_is_an_ordinary_checkpoint_with_a_tokenizer(built: Built, loaded: LoadedModel) -> None:
    assert (built.folder / "model.safetensors").is_file()
    assert not [p.name for p in built.folder.rglob("*") if p.suffix in (".bin", ".pt", ".py")]
    model = AutoModelForCausalLM.from_pretrained(built.folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(built.folder, local_files_only=True)
    tokens = tokenizer(["Q: a A: b", "Q: a"], return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = model(**tokens).logits
        ours = loaded.model(**tokens).logits
    assert logits.shape[:2] == tokens["input_ids"].shape and bool(logits.isfinite().all())
    assert torch.allclose(logits, ours, atol=1e-5)


def test_its_weights_are_finite_and_its_facts_are_plain_values(
    built: Built, loaded: LoadedModel
) -> None:
    assert all(bool(weight.isfinite().all()) for weight in loaded.model.parameters())
    assert all(isinstance(value, int | float | str | bool) for value in built.facts.values())


def test_progress_rises_to_its_end(built: Built) -> None:
    done = [step for step, _ in built.progress]
    assert done == sorted(set(done))
    assert {total for _, total in built.progress} == {done[-1]}


def test_the_same_parameters_build_the_same_checkpoint(built: Built, tmp_path: Path) -> None:
    torch.manual_seed(54321)
    assert fingerprint(build(built.name, tmp_path).folder) == fingerprint(built.folder)
