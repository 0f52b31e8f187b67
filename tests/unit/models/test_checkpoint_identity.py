import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from real_tasks.models import checksums
from real_tasks.models.identity import checkpoint_content, checkpoint_files
from real_tasks.tasks.stages import checkpoint as making
from real_tasks.tasks.stages import models
from real_tasks.tasks.stages.activations import activations
from real_tasks.tasks.stages.models import ModelRef
from real_tasks.vocabulary.config import ExecutionConfig, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.tiny_models import tiny_llama, tiny_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CPU = ExecutionConfig(device="cpu")
IDS = torch.tensor([[1, 9, 12, 30]])


def write(folder: Path, seed: int = 0, **kwargs: Any) -> Path:
    tiny_llama(seed).save_pretrained(folder, **kwargs)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, home: Path) -> Path:
    return write(tmp_path / "model")


def fingerprint(folder: Path) -> str:
    return making.fingerprint_of(ModelConfig(path=str(folder)))


def reference(folder: Path) -> ModelRef:
    model = ModelConfig(path=str(folder))
    made = making.checkpoint.without_prefect(
        model=model, fingerprint=fingerprint(folder), execution=CPU
    )
    return ModelRef(config=model, checkpoint=made)


def test_a_checkpoint_is_the_same_wherever_it_lies(checkpoint: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--m" / "snapshots" / COMMIT
    shutil.copytree(checkpoint, snapshot)
    assert fingerprint(snapshot) == fingerprint(checkpoint)


def test_what_was_made_of_the_same_model_elsewhere_is_used_again(
    checkpoint: Path, tmp_path: Path
) -> None:
    def key(folder: Path, **options: Any) -> str:
        made = reference(folder)
        model = made.model_copy(update={"config": made.config.model_copy(update=options)})
        return activations.key({"model": model, "kind": "head"})

    here, moved, renamed = tmp_path / "llama", tmp_path / "elsewhere" / "llama", tmp_path / "other"
    for copy in (here, moved, renamed):
        shutil.copytree(checkpoint, copy)
    before = key(here)
    assert key(moved) == before
    assert key(renamed) != before  # the name stands in tables
    assert key(here, dtype="bfloat16") != before
    assert key(here, system_prompt="Be brief.") != before
    write(moved, seed=1)
    assert key(moved) != before


@pytest.mark.parametrize(
    "name",
    ["notes.txt", ".DS_Store", "README.md", "training_args.bin", "optimizer.pt", "._config.json"]
    + ["pytorch_model.bin", "trainer_state.json", "other.safetensors", "helper.py", "LICENSE"]
    + ["runs/events.out", "checkpoint-1/config.json", "tokenizer.json.bak", "model.gguf"],
)
def test_files_beside_it_do_not_count(checkpoint: Path, name: str) -> None:
    before = fingerprint(checkpoint)
    (checkpoint / name).parent.mkdir(exist_ok=True)
    (checkpoint / name).write_text("{}")
    assert fingerprint(checkpoint) == before


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    + ["chat_template.jinja", "special_tokens_map.json", "vocab.txt", "merges.txt"]
    + ["added_tokens.json", "tokenizer.model", "chat_template.json", "tekken.json"],
)
def test_whatever_is_read_counts(checkpoint: Path, name: str) -> None:
    before = fingerprint(checkpoint)
    file = checkpoint / name
    file.write_bytes((file.read_bytes() if file.exists() else b"{}") + b"\n")
    assert fingerprint(checkpoint) != before


def test_one_bit_of_one_shard_counts(tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "model", max_shard_size="30KB")
    before = fingerprint(folder)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert fingerprint(folder) != before


def test_python_counts_where_it_is_run(checkpoint: Path) -> None:
    (checkpoint / "own.py").write_text("")
    assert "own.py" not in checkpoint_files(checkpoint)
    assert "own.py" in checkpoint_files(checkpoint, remote_code=True)


def test_a_file_that_stays_is_read_once_and_an_edit_is_seen_whatever_its_times_say(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> None:
        raise AssertionError("a file was read again")

    memory: dict[str, str] = {}
    monkeypatch.setattr(checksums, "SETTLED_SECONDS", -1e9)
    first = checkpoint_content(checkpoint, False, memory)
    with monkeypatch.context() as patched:
        patched.setattr(checksums.hashlib, "file_digest", never)
        assert checkpoint_content(checkpoint, False, memory) == first
    memory |= dict.fromkeys(list(memory)[:1], "0" * 72)  # damaged
    assert checkpoint_content(checkpoint, False, memory) == first
    weights = checkpoint / "model.safetensors"
    stat = weights.stat()
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (
        stat.st_size,
        stat.st_mtime_ns,
    )
    second = checkpoint_content(checkpoint, False, memory)
    assert {name for name in first if first[name] != second[name]} == {"model.safetensors"}


def test_what_was_just_written_is_not_remembered(checkpoint: Path) -> None:
    memory: dict[str, str] = {}
    for path in checkpoint.iterdir():
        path.touch()
    checkpoint_content(checkpoint, False, memory)
    assert memory == {}


def test_the_model_that_is_loaded_is_the_one_that_was_meant(
    checkpoint: Path, tmp_path: Path, home: Path
) -> None:
    ref = reference(checkpoint)
    expected = tiny_llama(0).eval()(IDS).logits
    torch.testing.assert_close(ref.load(CPU).model(IDS).logits, expected)
    write(checkpoint, seed=1)
    with pytest.raises(UserInputError, match=r"another one.*: model\.safetensors changed since"):
        ref.load(CPU)
    other = reference(checkpoint)
    assert other.checkpoint.digest != ref.checkpoint.digest
    expected = tiny_llama(1).eval()(IDS).logits
    torch.testing.assert_close(other.load(CPU).model(IDS).logits, expected)


def test_the_same_files_at_another_place_are_found_by_their_path(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path in two projects: the first one's folder is edited meanwhile."""
    for project in ("a", "b"):
        write(tmp_path / project / "model")
    model = ModelConfig(path="model")
    monkeypatch.chdir(tmp_path / "a")
    made = making.checkpoint.without_prefect(
        model=model, fingerprint=fingerprint(Path("model")), execution=CPU
    )
    write(tmp_path / "a" / "model", seed=1)
    monkeypatch.chdir(tmp_path / "b")
    assert models.checkpoint_folder(made, model) == Path("model")


def test_weights_that_are_not_finite_are_found_before_anything_else_is_made(
    checkpoint: Path,
) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    weights["model.layers.2.self_attn.q_proj.weight"][0, 0] = float("nan")
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserInputError, match=r"NaN or infinity: model\.layers\.2\.self_attn\.q"):
        reference(checkpoint)
