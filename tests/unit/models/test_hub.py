import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from real_tasks.models.checking import checkpoint_config
from real_tasks.models.families import configured_shape
from real_tasks.models.hub import local_checkpoint, resolved_revision
from real_tasks.models.loading import load_model
from real_tasks.vocabulary.config import ExecutionConfig
from real_tasks.vocabulary.errors import UserInputError
from tests.unit.tiny_models import tiny_llama, tiny_tokenizer

NAME = "somebody/tiny-llama"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "89abcdef0123456789abcdef0123456789abcdef"


class Cache:
    """The Hub's cache, in its layout on disk: blobs, snapshots that link to them, and refs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def repository(self, name: str = NAME) -> Path:
        return self.root / f"models--{name.replace('/', '--')}"

    def snapshot(self, commit: str = COMMIT, name: str = NAME) -> Path:
        return self.repository(name) / "snapshots" / commit

    def add(self, commit: str, refs: tuple[str, ...], name: str = NAME, seed: int = 0) -> Path:
        folder = self.snapshot(commit, name)
        written = self.root / "written"
        tiny_llama(seed).save_pretrained(written)
        tiny_tokenizer().save_pretrained(written)
        blobs = self.repository(name) / "blobs"
        for made in (folder, blobs, self.repository(name) / "refs"):
            made.mkdir(parents=True, exist_ok=True)
        for file in written.iterdir():
            blob = blobs / f"{commit[:8]}-{file.name}"
            shutil.move(file, blob)
            (folder / file.name).symlink_to(blob)
        for ref in refs:
            (self.repository(name) / "refs" / ref).write_text(commit)
        return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty cache, without a network; huggingface_hub read the environment at its import."""
    root = tmp_path / "hub"
    root.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return Cache(root)


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert local_checkpoint(str(tmp_path), None) == tmp_path
    assert local_checkpoint(str(tmp_path), None, config_only=True) == tmp_path
    assert resolved_revision(tmp_path) is None


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="only a Hugging Face id has revisions"):
        local_checkpoint(str(tmp_path), "main")


def test_an_id_is_found_in_the_cache_and_its_commit_is_known(cache: Cache) -> None:
    snapshot = cache.add(COMMIT, ("main",))
    folder = local_checkpoint(NAME, None)
    assert folder == snapshot
    assert resolved_revision(folder) == COMMIT
    ids = torch.tensor([[1, 9, 12]])
    loaded = load_model(folder, execution=ExecutionConfig(device="cpu"))
    torch.testing.assert_close(loaded.model(ids).logits, tiny_llama().eval()(ids).logits)


def test_an_id_of_one_part_is_found_as_well(cache: Cache) -> None:
    cache.add(COMMIT, ("main",), name="gpt2")
    assert local_checkpoint("gpt2", None) == cache.snapshot(name="gpt2")


@pytest.mark.parametrize("revision", ["v1", OLDER])
def test_a_revision_is_a_tag_or_a_commit(cache: Cache, revision: str) -> None:
    cache.add(COMMIT, ("main",))
    cache.add(OLDER, ("v1",), seed=1)
    assert resolved_revision(local_checkpoint(NAME, revision)) == OLDER
    assert resolved_revision(local_checkpoint(NAME, None)) == COMMIT


def test_planning_a_shape_reads_the_configuration_alone(cache: Cache) -> None:
    for file in cache.add(COMMIT, ("main",)).iterdir():
        if file.name != "config.json":
            file.unlink()
    shape = configured_shape(checkpoint_config(NAME))
    assert (shape.n_layers, shape.n_heads, shape.head_dim, shape.d_model) == (3, 8, 12, 32)


def test_planning_a_shape_from_a_folder_reads_no_weights(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights at all")
    assert configured_shape(checkpoint_config(tmp_path)).d_model == 32


def test_what_is_not_in_the_cache_is_named_with_how_to_get_it(cache: Cache) -> None:
    for config_only in (False, True):
        with pytest.raises(UserInputError) as failed:
            local_checkpoint(NAME, "v2", config_only)
        said = str(failed.value)
        for part in (f"{NAME} at revision v2", str(cache.root), "HF_HUB_OFFLINE is set"):
            assert part in said
        assert f"`hf download {NAME} --revision v2`" in said
        assert "the path of a folder" in said


def test_a_snapshot_without_a_configuration_is_no_checkpoint(cache: Cache) -> None:
    (cache.add(COMMIT, ("main",)) / "config.json").unlink()
    with pytest.raises(UserInputError, match=r"has no config\.json, so it is no checkpoint"):
        local_checkpoint(NAME, None, config_only=True)


def test_the_environment_says_where_the_cache_is_and_that_there_is_no_network(
    tmp_path: Path, cache: Cache
) -> None:
    cache.add(COMMIT, ("main",))
    asked = (
        "from real_tasks.models.hub import *\nprint(resolved_revision(local_checkpoint(%r, None)))"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment = {k: v for k, v in environment.items() if k != "HF_HUB_CACHE"}
    run = subprocess.run(
        [sys.executable, "-c", asked % NAME],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == COMMIT


def test_a_snapshot_without_its_weights_says_how_to_get_them(cache: Cache) -> None:
    (cache.add(COMMIT, ("main",)) / "model.safetensors").unlink()
    with pytest.raises(UserInputError, match=r"no complete safetensors.*`hf download somebody"):
        local_checkpoint(NAME, None)


def test_a_snapshot_with_weights_in_another_format_only_is_refused(cache: Cache) -> None:
    snapshot = cache.add(COMMIT, ("main",))
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    with pytest.raises(UserInputError, match="other formats are not read"):
        local_checkpoint(NAME, None)


def test_a_snapshot_without_a_tokenizer_is_refused(cache: Cache) -> None:
    (cache.add(COMMIT, ("main",)) / "tokenizer.json").unlink()
    with pytest.raises(UserInputError, match=r"missing: a tokenizer"):
        local_checkpoint(NAME, None)


def test_a_cache_with_all_that_is_needed_serves_though_the_hub_lists_more(cache: Cache) -> None:
    cache.add(COMMIT, ("main",))
    listed = {name: {"size": 1, "blob_id": "x"} for name in ("config.json", "tokenizer.model")}
    trees = cache.repository() / "trees"
    trees.mkdir()
    (trees / f"{COMMIT}.json").write_text(json.dumps(listed))
    assert local_checkpoint(NAME, None) == cache.snapshot()


@pytest.mark.parametrize(
    "path", ["/no/such/folder", "a/b/c", "./absent", "with blank/x", "-a-", ""]
)
def test_what_is_neither_a_folder_nor_an_id_is_refused(path: str) -> None:
    with pytest.raises(UserInputError, match="is no folder; expected the folder of a Hugging Face"):
        local_checkpoint(path, None)


@pytest.mark.parametrize(
    ("path", "revision"), [(NAME, "r" * 5000), ("n" * 5000, None), ("/".join(["n"] * 5000), None)]
)
def test_a_name_of_any_length_gives_an_error_that_can_be_read(
    cache: Cache, path: str, revision: str | None
) -> None:
    with pytest.raises(UserInputError) as failed:
        local_checkpoint(path, revision)
    assert len(str(failed.value)) < 1000 and "..." in str(failed.value)


class _Refuses(BaseHTTPRequestHandler):
    """A Hub that answers everything with one error."""

    status, code = 404, "RepoNotFound"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Refuses]]:
    class Refuses(_Refuses):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Refuses
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("config_only", [False, True])
@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "RepoNotFound", "the Hub has no 'somebody/tiny-llama'.*known by name: smollm2"),
        (403, "GatedRepo", "accept its terms at .* and log in with `hf auth login`"),
        (403, "", r"does not let you read somebody/tiny-llama \(403\): log in"),
        (404, "RevisionNotFound", "has no revision 'v9'"),
        (501, "", "the Hub cannot be reached"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    hub: type[_Refuses], status: int, code: str, said: str, config_only: bool
) -> None:
    hub.status, hub.code = status, code
    with pytest.raises(UserInputError, match=said):
        local_checkpoint(NAME, "v9", config_only)


def test_what_is_in_the_cache_serves_while_the_hub_is_down(
    hub: type[_Refuses], cache: Cache
) -> None:
    hub.status, hub.code = 503, ""
    cache.add(COMMIT, ("main",))
    assert local_checkpoint(NAME, None) == cache.snapshot()
    assert local_checkpoint(NAME, None, config_only=True) == cache.snapshot()
