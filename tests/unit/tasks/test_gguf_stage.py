import shutil
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType as Quantised

from real_tasks.models.identity import weights_fingerprint
from real_tasks.tasks.model_here import model_here
from real_tasks.tasks.stages import checkpoint as making
from real_tasks.tasks.stages import models
from real_tasks.tasks.stages.models import ModelRef
from real_tasks.vocabulary.config import ExecutionConfig, ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from storage.artifacts.store import ArtifactRef
from tests.unit.tiny_gguf import write_gguf
from tests.unit.tiny_models import tiny_family, tiny_tokenizer

CPU = ExecutionConfig(device="cpu")


@pytest.fixture
def file(tmp_path: Path, home: Path) -> Path:
    home.mkdir()
    model = tiny_family("llama", attention_bias=False, head_dim=16, intermediate_size=64)
    return write_gguf(tmp_path / "tiny-8.gguf", model, Quantised.Q8_0)


def made(model: ModelConfig) -> ArtifactRef:
    return making.checkpoint.without_prefect(**making.checkpoint_inputs(model), execution=CPU)


def test_a_gguf_file_is_converted_once_wherever_it_lies(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelConfig(path=str(file))
    ref = ModelRef(config=model, checkpoint=made(model))
    assert ref.columns["model"] == "tiny-8"
    loaded = ref.load(CPU)
    assert loaded.model(torch.tensor([[1, 5, 9]])).logits.isfinite().all()
    folder = models.checkpoint_folder(ref.checkpoint, model)
    assert folder.is_relative_to(tmp_path / "home" / "artifacts")

    monkeypatch.setattr(making, "convert", lambda *_: pytest.fail("converted again"))
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.copy(file, tmp_path / "elsewhere" / "other.gguf")
    file.unlink()
    for path in (moved, moved.parent):
        again = ModelConfig(path=str(path), dtype="bfloat16")
        assert made(again) == ref.checkpoint
    assert ref.load(CPU).shape == loaded.shape


def test_commands_without_a_flow_keep_a_gguf_file_s_model_and_nothing_of_a_checkpoint(
    home: Path, tmp_path: Path
) -> None:
    model = tiny_family("llama", attention_bias=False, head_dim=16, intermediate_size=64)
    model.save_pretrained(tmp_path / "folder")
    tiny_tokenizer().save_pretrained(tmp_path / "folder")
    paths = (tmp_path / "folder", write_gguf(tmp_path / "tiny.gguf", model))
    for path, kept in zip(paths, (False, True), strict=True):
        loaded = model_here(ModelConfig(path=str(path)), CPU)
        assert weights_fingerprint(loaded.model) == weights_fingerprint(model)
        assert home.exists() == kept


def test_a_file_that_changes_meanwhile_is_refused(file: Path) -> None:
    inputs = making.checkpoint_inputs(ModelConfig(path=str(file)))
    with pytest.raises(UserInputError, match="changes while it is read"):
        making.checkpoint.without_prefect(**inputs | {"fingerprint": "0" * 64}, execution=CPU)


def test_another_content_is_another_model(file: Path) -> None:
    before = made(ModelConfig(path=str(file)))
    model = tiny_family("llama", seed=1, attention_bias=False)
    assert made(ModelConfig(path=str(write_gguf(file, model)))).digest != before.digest
