"""A spec goes to the Hub and comes back the same; a stand-in of its client keeps the files."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

import real_tasks as real
from real_tasks.export.pushing import push_export
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


def test_a_tried_steering_is_pushed_with_a_card_and_no_path_of_the_machine(tmp_path: Path) -> None:
    tried = replace(a_spec(), model=str(tmp_path / "my-llama"))
    tried.save(tmp_path / "steered")
    push_export(tmp_path / "steered", REPO)
    pushed = next((tmp_path / "hub").rglob("README.md")).parent
    assert "base_model: my-llama" in (pushed / "README.md").read_text()
    assert SteeringSpec.load(pushed).model == "my-llama"


def test_what_is_no_export_is_not_uploaded(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Notes of mine")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserInputError, match="nothing that `real export` or `real try` writes"):
            push_export(folder, REPO)
    assert not list((tmp_path / "hub").iterdir())


def test_an_export_is_pushed_as_it_is(tmp_path: Path) -> None:
    made = tmp_path / "made"
    a_spec().save(made)
    (made / "README.md").write_text("A card of its own")
    push_export(made, REPO)
    assert next((tmp_path / "hub").rglob("README.md")).read_text() == "A card of its own"


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
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "spec").iterdir()} == {0o644}
    assert SteeringSpec.from_pretrained(tmp_path / "spec").alpha == 2.0


def test_what_is_nowhere_is_said_with_what_was_tried() -> None:
    with pytest.raises(
        UserInputError, match=r"not whole, in the cache.*OFFLINE is set.; it is no folder here"
    ):
        SteeringSpec.from_pretrained("somebody/nothing")
    with pytest.raises(UserInputError, match="no name of a repository.*it is no folder here"):
        SteeringSpec.from_pretrained("no/such/place")


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
