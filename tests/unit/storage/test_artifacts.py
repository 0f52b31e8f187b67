import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from storage.artifacts.store import (
    CACHE_RECORD,
    MANIFEST,
    NOT_HERE,
    ArtifactRef,
    ArtifactStore,
    fingerprint,
    prepare_home,
    sha256_of,
)
from storage.errors import DamagedArtifactError, StorageError
from storage.paths import Home
from tests.unit.storage_rows import never, writing


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(Home(tmp_path))


def failing(folder: Path) -> dict[str, Any]:
    (folder / "half.txt").write_text("half")
    raise RuntimeError("out of memory")


def left_over(root: Path) -> list[str]:
    """Everything in the artifacts' folder but the locks."""
    found = (root / "artifacts").rglob("*")
    return sorted(p.name for p in found if p.is_file() and p.parent.name != ".locks")


def test_what_was_made_is_found_opened_and_never_made_again(store: ArtifactStore) -> None:
    assert store.find("kind", "key") is None
    ref = store.make("kind", "key", writing("a", seconds=1.5), inputs={"x": 1})
    assert store.make("kind", "key", never) == ref == store.find("kind", "key")
    folder = store.open(ref)
    assert folder == store.folder("kind", "key")
    assert (folder / "part" / "a.txt").read_text() == "a"
    assert store.facts(ref) == {"seconds": 1.5}
    assert store.manifest(ref)["inputs"] == {"x": 1}
    assert set(store.manifest(ref)["files"]) == {"part/a.txt", "b.txt"}


def test_others_may_read_what_a_library_wrote_for_its_owner_alone(store: ArtifactStore) -> None:
    def write(folder: Path) -> dict[str, Any]:
        (folder / "part").mkdir(mode=0o700)
        (folder / "part" / "model.safetensors").touch(mode=0o600)
        return {}

    folder = store.open(store.make("kind", "key", write))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}
    assert modes.pop("part") == modes.pop(folder.name) == 0o755
    assert set(modes) >= {"model.safetensors", MANIFEST} and set(modes.values()) == {0o644}


def test_another_store_on_the_same_home_finds_the_artifact(
    store: ArtifactStore, tmp_path: Path
) -> None:
    ref = store.make("kind", "key", writing("a"))
    other = ArtifactStore(Home(tmp_path))
    assert other.make("kind", "key", never) == ref
    assert other.open(ref) == store.folder("kind", "key")


def test_what_fails_half_way_leaves_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        store.make("kind", "key", failing)
    assert store.find("kind", "key") is None
    assert not store.folder("kind", "key").exists()
    assert left_over(tmp_path) == []
    assert store.find("kind", store.make("kind", "key", writing("a")).key) is not None


def test_nothing_is_published_before_all_is_written(store: ArtifactStore) -> None:
    def write(folder: Path) -> dict[str, Any]:
        (folder / "a.txt").write_text("a")
        assert store.find("kind", "key") is None
        assert not store.folder("kind", "key").exists()
        return {}

    assert (store.open(store.make("kind", "key", write)) / "a.txt").is_file()


def test_a_folder_without_a_manifest_is_replaced(store: ArtifactStore) -> None:
    folder = store.folder("kind", "key")
    folder.mkdir(parents=True)
    (folder / "stale.txt").write_text("of an older version")
    store.open(store.make("kind", "key", writing("a")))
    assert not (folder / "stale.txt").exists()


def test_the_digest_follows_the_files_and_not_key_facts_or_inputs(store: ArtifactStore) -> None:
    one = store.make("kind", "1", writing("a", seconds=1), inputs={"device": "cpu"})
    same = store.make("kind", "2", writing("a", seconds=2), inputs={"device": "cuda"})
    other = store.make("kind", "3", writing("A", seconds=1), inputs={"device": "cpu"})
    other_kind = store.make("sort", "1", writing("a"))
    assert one.digest == same.digest
    assert len({one.digest, other.digest, other_kind.digest}) == 3


def test_of_many_threads_one_writes_and_all_get_the_same(tmp_path: Path) -> None:
    writes, start = [], threading.Barrier(8)

    def write(folder: Path) -> dict[str, Any]:
        writes.append(folder)
        time.sleep(0.05)
        (folder / "a.txt").write_text("a")
        return {}

    store = ArtifactStore(Home(tmp_path))

    def make(_: int) -> ArtifactRef:
        start.wait(timeout=10)
        return store.make("kind", "key", write)

    with ThreadPoolExecutor(8) as pool:
        refs = list(pool.map(make, range(8)))
    assert len(writes) == 1
    assert len(set(refs)) == 1


def test_different_artifacts_are_written_at_the_same_time(store: ArtifactStore) -> None:
    both = threading.Barrier(2)

    def write(folder: Path) -> dict[str, Any]:
        both.wait(timeout=10)  # would time out if one waited for the other
        return {}

    with ThreadPoolExecutor(2) as pool:
        refs = list(pool.map(lambda key: store.make("kind", key, write), ["1", "2"]))
    assert [ref.key for ref in refs] == ["1", "2"]


MAKER = """
import sys, time
from pathlib import Path
from storage.artifacts.store import ArtifactStore
from storage.paths import Home

root = Path(sys.argv[1])

def write(folder):
    with (root / "writes.txt").open("a") as log:
        log.write("x")
    (folder / "a.txt").write_text("half" if sys.argv[2] == "hang" else "whole")
    (root / "begun").touch()
    time.sleep(60 if sys.argv[2] == "hang" else 0.2)
    return {}

while not (root / "go").exists():
    time.sleep(0.005)
print(ArtifactStore(Home(root)).make("kind", "key", write).digest)
"""


def maker(root: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, str(root), how], stdout=subprocess.PIPE, text=True
    )


def test_of_several_processes_one_writes_and_all_get_the_same(tmp_path: Path) -> None:
    makers = [maker(tmp_path, "quick") for _ in range(3)]
    time.sleep(0.5)
    (tmp_path / "go").touch()
    digests = {process.communicate(timeout=30)[0] for process in makers}
    assert [process.returncode for process in makers] == [0, 0, 0]
    assert len(digests) == 1
    assert (tmp_path / "writes.txt").read_text() == "x"


def test_a_writer_that_is_killed_publishes_nothing_and_blocks_nobody(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    process = maker(tmp_path, "hang")
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "begun").exists()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    store = ArtifactStore(Home(tmp_path))
    assert store.find("kind", "key") is None
    assert not store.folder("kind", "key").exists()
    with ThreadPoolExecutor(1) as pool:
        ref = pool.submit(store.make, "kind", "key", writing("a")).result(timeout=10)
    assert (store.open(ref) / "part" / "a.txt").read_text() == "a"
    assert not list((tmp_path / "artifacts").glob(".kind-*"))  # what it had begun is gone


def damage_content(folder: Path) -> None:
    (folder / "b.txt").write_text("B")


def damage_by_removal(folder: Path) -> None:
    (folder / "part" / "a.txt").unlink()


def damage_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[: len(text) // 2])


def damage_by_removing_the_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def damage_a_checksum_in_the_manifest(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    damage_content(folder)
    manifest["files"]["b.txt"] = sha256_of("B")
    (folder / MANIFEST).write_text(json.dumps(manifest))


def damage_by_emptying_the_manifest(folder: Path) -> None:
    digest = json.loads((folder / MANIFEST).read_text())["digest"]
    (folder / MANIFEST).write_text(json.dumps({"digest": digest}))


DAMAGES = [
    damage_content,
    damage_by_removal,
    damage_manifest,
    damage_by_removing_the_manifest,
    damage_a_checksum_in_the_manifest,
    damage_by_emptying_the_manifest,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_artifact_is_not_opened(store: ArtifactStore, damage: Any) -> None:
    ref = store.make("kind", "key", writing("a"))
    store.open(ref)
    damage(store.folder("kind", "key"))
    with pytest.raises(DamagedArtifactError):
        store.open(ref)
    assert issubclass(DamagedArtifactError, StorageError)


@pytest.mark.parametrize("damage", DAMAGES)
def test_healing_removes_a_damaged_artifact_with_a_warning(
    store: ArtifactStore, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ref = store.make("kind", "key", writing("a"))
    (store.folder("kind", "key") / CACHE_RECORD).write_text("{}")
    damage(store.folder("kind", "key"))
    with caplog.at_level(logging.WARNING):
        store.heal("kind", "key")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "damaged artifact, making it again" in caplog.text
    assert str(store.folder("kind", "key")) in caplog.text
    assert not store.folder("kind", "key").exists()
    assert store.make("kind", "key", writing("a")) == ref
    assert store.open(ref).is_dir()


def test_several_healers_at_once_remove_a_damaged_artifact_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = []

    def write(folder: Path) -> dict[str, Any]:
        writes.append(folder)
        return dict(writing("a")(folder))

    def slow(self: ArtifactStore, folder: Path, ref: ArtifactRef) -> None:
        try:
            verify(self, folder, ref)
        finally:
            time.sleep(0.03)

    def heal_and_make(_: int) -> ArtifactRef:
        store = ArtifactStore(Home(tmp_path))
        store.heal("kind", "key")
        return store.make("kind", "key", write)

    damage_content(ArtifactStore(Home(tmp_path)).open(heal_and_make(0)))
    verify = ArtifactStore._verify
    monkeypatch.setattr(ArtifactStore, "_verify", slow)
    with ThreadPoolExecutor(4) as pool:
        refs = set(pool.map(heal_and_make, range(4)))
    assert len(writes) == 2
    assert len(refs) == 1


def test_healing_leaves_what_is_sound(
    store: ArtifactStore, caplog: pytest.LogCaptureFixture
) -> None:
    ref = store.make("kind", "key", writing("a"))
    (store.folder("kind", "key") / CACHE_RECORD).write_text('{"of": "the orchestrator"}')
    store.heal("kind", "key")
    store.heal("kind", "never made")
    assert not caplog.records
    assert store.make("kind", "key", never) == ref
    assert (store.folder("kind", "key") / CACHE_RECORD).is_file()


@pytest.mark.parametrize("what", ["a file", "a link to nowhere"])
def test_what_lies_where_an_artifact_should_be_makes_way_for_it(
    store: ArtifactStore, what: str
) -> None:
    ref = store.make("kind", "key", writing("a"))
    folder = store.folder("kind", "key")
    shutil.rmtree(folder)
    folder.write_text("x") if what == "a file" else folder.symlink_to("nowhere")
    assert store.heal("kind", "key") is None
    assert store.make("kind", "key", writing("a")) == ref
    assert store.open(ref).is_dir() and not folder.is_symlink()


@pytest.mark.parametrize("note", [b"", b"\xff\x00", b"null", None])
def test_a_damaged_note_of_where_the_files_are_has_the_artifact_made_again(
    store: ArtifactStore, note: bytes | None
) -> None:
    ref = store.make("kind", "key", writing("a"))
    path = store.folder("kind", "key") / NOT_HERE
    path.mkdir() if note is None else path.write_bytes(note)
    assert store.heal("kind", "key") is None
    assert store.make("kind", "key", writing("a")) == ref


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b"null", b"[1]", b"{}"])
def test_a_manifest_that_cannot_be_read_is_named(store: ArtifactStore, content: bytes) -> None:
    ref = store.make("kind", "0" * 64, writing("x"))
    path = store.folder(ref.kind, ref.key) / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(DamagedArtifactError, match=r"manifest\.json is damaged"):
        store.manifest(ref)


def test_a_cache_record_does_not_count_as_damage(store: ArtifactStore) -> None:
    ref = store.make("kind", "key", writing("a"))
    (store.folder("kind", "key") / CACHE_RECORD).write_text("{}")
    assert store.open(ref).is_dir()


def test_a_reference_to_other_content_is_not_opened(store: ArtifactStore) -> None:
    ref = store.make("kind", "key", writing("a"))
    with pytest.raises(DamagedArtifactError, match="not the artifact with digest"):
        store.open(ref.model_copy(update={"digest": "0" * 64}))


class Point(BaseModel):
    x: float
    y: float = 0.0


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert sha256_of({"a": 1, "b": [2, 3]}) == sha256_of({"b": (2, 3), "a": 1})
    assert sha256_of([2, 3]) != sha256_of([3, 2])


def test_the_hash_tells_types_apart() -> None:
    values: list[Any] = [1, 1.0, "1", True, None, "None", [1], {"1": 1}, [], {}, "", [[]], 0, False]
    assert len({sha256_of(value) for value in values}) == len(values)


def test_the_hash_keeps_all_bits_of_a_float() -> None:
    assert sha256_of(0.1 + 0.2) != sha256_of(0.3)
    assert sha256_of(0.0) != sha256_of(-0.0)
    assert sha256_of(1e-320) != sha256_of(0.0)
    assert sha256_of(0.1) == sha256_of(1 / 10)


def test_models_hash_by_all_their_fields_defaults_included() -> None:
    assert sha256_of(Point(x=1)) == sha256_of(Point(x=1, y=0))
    assert sha256_of(Point(x=1)) != sha256_of(Point(x=1, y=2))


def test_references_hash_by_what_came_out_not_by_how_it_was_made() -> None:
    one = ArtifactRef(kind="k", key="1", digest="d")
    assert sha256_of([one]) == sha256_of([one.model_copy(update={"key": "2"})])
    assert sha256_of([one]) != sha256_of([one.model_copy(update={"digest": "e"})])


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), {"deep": [complex(1)]}, print])
def test_what_has_no_canonical_form_raises(value: Any) -> None:
    with pytest.raises(TypeError, match="no canonical form"):
        sha256_of(value)


def test_a_fingerprint_follows_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = fingerprint(tmp_path)
    os.utime(tmp_path / "a", (0, 0))
    assert fingerprint(tmp_path) == first
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = fingerprint(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, renamed, fingerprint(tmp_path)}) == 3


def test_a_home_that_cannot_be_written_to_is_an_error_that_names_the_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="not writable .*--home or REAL_HOME"):
        prepare_home(Home(tmp_path / "file"))
    prepare_home(Home(tmp_path / "new" / "home"))
    assert (tmp_path / "new" / "home" / "artifacts").is_dir()
