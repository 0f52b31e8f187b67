"""A spec goes to the Hub and comes back the same; a stand-in of its client keeps the files."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

import real_tasks as real
from real_tasks.models import hub_folders
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId
from tests.unit.tiny_models import pushing, tiny_loaded

REPO, COMMIT = "somebody/truth", "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Commit:
    commit_url: str


class Client:
    """Puts what is uploaded into the cache, where a download would put it."""

    private: bool | None = None

    def create_repo(self, repo: str, private: bool, exist_ok: bool) -> None:
        assert repo == REPO and exist_ok
        Client.private = private

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> Commit:
        root = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
        shutil.copytree(folder_path, root / "snapshots" / COMMIT)
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text(COMMIT)
        assert commit_message
        return Commit(f"https://hub/{repo_id}/commit/{COMMIT}")


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hub").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_folders, "HfApi", Client)


def a_spec() -> SteeringSpec:
    along = torch.randn(1, 12, generator=torch.Generator().manual_seed(0))
    return pushing(tiny_loaded(), [ModuleId("head", 1, 3)], along, 2.0)


def test_what_was_pushed_comes_back_with_a_card_beside_it(tmp_path: Path) -> None:
    spec = a_spec()
    assert spec.push_to_hub(REPO, private=True).endswith(COMMIT)
    assert Client.private is True
    found = SteeringSpec.from_pretrained(REPO)
    assert found.alpha == 2.0 and found.modules == spec.modules
    assert torch.equal(found.edits[0].tensors["direction"], spec.edits[0].tensors["direction"])
    card = next((tmp_path / "hub").rglob("README.md")).read_text()
    assert "base_model: tiny" in card and spec.explain() in card


def test_python_takes_up_a_steering_from_the_hub_by_its_name() -> None:
    loaded = tiny_loaded()
    a_spec().push_to_hub(REPO)
    ids = torch.tensor([[1, 9, 12, 30]])
    with torch.no_grad():
        bare = loaded.model(ids).logits
        with real.load(REPO, loaded.model):
            assert not torch.equal(loaded.model(ids).logits, bare)


def test_a_folder_is_read_as_it_is(tmp_path: Path) -> None:
    a_spec().save(tmp_path / "spec")
    assert SteeringSpec.from_pretrained(tmp_path / "spec").alpha == 2.0


def test_what_is_nowhere_is_said_with_what_was_tried() -> None:
    with pytest.raises(
        UserInputError, match=r"is no folder and not.*in the cache.*HF_HUB_OFFLINE is set"
    ):
        SteeringSpec.from_pretrained("somebody/nothing")
    with pytest.raises(UserInputError, match="neither a folder nor a repository"):
        SteeringSpec.from_pretrained("no/such/place")
    with pytest.raises(UserInputError, match="no folder"):
        hub_folders.pushed(Path("nowhere"), REPO)


def test_the_file_of_a_spec_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    a_spec().save(tmp_path)
    with pytest.raises(UserInputError, match=r"steering.json' is a file; expected a spec's folder"):
        SteeringSpec.from_pretrained(tmp_path / "steering.json")


def test_what_could_not_be_written_is_said_without_a_word_on_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Offline(Client):
        def create_repo(self, *_: Any, **__: Any) -> None:
            raise OfflineModeIsEnabled("no network here")

    monkeypatch.setattr(hub_folders, "HfApi", Offline)
    with pytest.raises(
        UserInputError, match="somebody/truth was not written.*no network here"
    ) as e:
        a_spec().push_to_hub(REPO)
    assert "cache" not in str(e.value)


def test_a_token_that_may_not_write_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Client):
        def create_repo(self, *_: Any, **__: Any) -> None:
            asked = httpx.Request("POST", "https://hub")
            raise HfHubHTTPError("Forbidden", response=httpx.Response(403, request=asked))

    monkeypatch.setattr(hub_folders, "HfApi", Refusing)
    with pytest.raises(UserInputError, match="403.*hf auth login.*write access"):
        a_spec().push_to_hub(REPO)
