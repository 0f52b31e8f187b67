"""Artifacts behind several homes that share a store: what one makes, the others find."""

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from storage.artifacts.store import (
    CACHE_RECORD,
    MANIFEST,
    NOT_HERE,
    ArtifactRef,
    ArtifactStore,
    prepare_home,
)
from storage.errors import DamagedArtifactError, StorageError
from storage.paths import Home, full_url
from storage.shared.objects import Objects, StoreUnavailableError
from tests.unit.storage_rows import never, writing


@pytest.fixture
def homes(tmp_path: Path) -> Callable[[str], Home]:
    Objects(str(tmp_path / "store")).check(used=False)
    return lambda name: Home(tmp_path / name, str(tmp_path / "store"))


@pytest.fixture
def stores(homes: Callable[[str], Home]) -> Callable[[str], ArtifactStore]:
    return lambda name: ArtifactStore(homes(name))


def test_what_one_home_made_another_finds_and_opens_and_does_not_make(
    stores: Callable[[str], ArtifactStore],
) -> None:
    ref = stores("a").make("kind", "key", writing("a", seconds=1.5), inputs={"x": 1})
    other = stores("b")
    assert other.find("kind", "key") == ref
    assert other.make("kind", "key", never) == ref
    assert (other.open(ref) / "part" / "a.txt").read_text() == "a"
    assert other.facts(ref) == {"seconds": 1.5}
    assert other.manifest(ref)["inputs"] == {"x": 1}
    assert sorted(p.name for p in other.folder("kind", "key").iterdir()) == [
        "b.txt",
        MANIFEST,
        "part",
    ]


def test_the_files_come_when_they_are_opened_and_not_before(
    stores: Callable[[str], ArtifactStore],
) -> None:
    ref = stores("a").make("kind", "key", writing("a", layers=4))
    other = stores("b")
    other.make("kind", "key", never)
    folder = other.folder("kind", "key")
    assert other.facts(ref) == {"layers": 4}
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, NOT_HERE]
    (folder / CACHE_RECORD).write_text('{"of": "the orchestrator"}')
    other.heal("kind", "key")
    other.open(ref)
    assert (folder / CACHE_RECORD).is_file()
    assert not (folder / NOT_HERE).exists()


def test_a_reference_is_opened_by_a_home_that_never_asked_for_its_key(
    stores: Callable[[str], ArtifactStore],
) -> None:
    ref = stores("a").make("kind", "key", writing("a", seconds=2))
    assert stores("b").facts(ref) == {"seconds": 2}
    assert (stores("c").open(ref) / "b.txt").read_text() == "b"
    with pytest.raises(DamagedArtifactError, match="missing"):
        stores("c").open(ArtifactRef(kind="kind", key="other", digest="0"))


def test_what_fetching_left_when_it_was_killed_does_no_harm(
    stores: Callable[[str], ArtifactStore],
) -> None:
    ref = stores("a").make("kind", "key", writing("a"))
    other = stores("b")
    other.make("kind", "key", never)
    folder = other.folder("kind", "key")
    (folder / "part").mkdir()
    (folder / "part" / "a.txt").write_text("ha")
    assert (other.open(ref) / "part" / "a.txt").read_text() == "a"


def test_a_home_without_a_store_shares_nothing_and_needs_none(tmp_path: Path) -> None:
    ArtifactStore(Home(tmp_path / "a")).make("kind", "key", writing("a"))
    assert ArtifactStore(Home(tmp_path / "b")).find("kind", "key") is None
    assert not (tmp_path / "a" / "shared").exists()


def test_what_a_home_had_before_it_got_a_store_is_shared_when_it_is_asked_for(
    stores: Callable[[str], ArtifactStore], tmp_path: Path
) -> None:
    alone = ArtifactStore(Home(tmp_path / "a"))
    made = alone.make("kind", "1", writing("a"))
    healed = alone.make("kind", "2", writing("b"))
    stores("a").make("kind", "1", never)
    stores("a").heal("kind", "2")
    assert stores("b").make("kind", "1", never) == made
    assert stores("b").make("kind", "2", never) == healed


def test_without_its_store_a_home_makes_again_what_it_does_not_hold(
    stores: Callable[[str], ArtifactStore], tmp_path: Path
) -> None:
    ref = stores("a").make("kind", "key", writing("a"))
    stores("b").make("kind", "key", never)
    alone = ArtifactStore(Home(tmp_path / "b"))
    with pytest.raises(DamagedArtifactError, match="set REAL_STORE"):
        alone.open(ref)
    alone.heal("kind", "key")
    assert alone.make("kind", "key", writing("a")) == ref
    assert alone.open(ref).is_dir()


def test_of_many_machines_at_once_all_get_what_one_of_them_made(
    stores: Callable[[str], ArtifactStore],
) -> None:
    start = threading.Barrier(6)

    def make(number: int) -> ArtifactRef:
        mine = stores(str(number))
        start.wait(timeout=10)
        return mine.make("kind", "key", writing(str(number)))

    with ThreadPoolExecutor(6) as pool:
        refs = set(pool.map(make, range(6)))
    assert len(refs) == 1
    ref = refs.pop()
    texts = {
        (stores(name).open(ref) / "part" / "a.txt").read_text() for name in (*"012345", "other")
    }
    assert len(texts) == 1 and texts <= {*"012345"}


def five_files(text: str) -> Any:
    def write(folder: Path) -> dict[str, Any]:
        for number in range(5):
            (folder / f"{number}.txt").write_text(text)
        return {"by": text}

    return write


def test_who_looks_while_many_publish_finds_whole_artifacts_or_none(
    stores: Callable[[str], ArtifactStore],
) -> None:
    keys = [str(number) for number in range(12)]
    start = threading.Barrier(4)

    def publish(name: str) -> None:
        start.wait(timeout=10)
        for key in keys:
            stores(name).make("kind", key, five_files(name))

    def look(name: str) -> dict[str, str]:
        mine, found = stores(name), dict[str, str]()
        start.wait(timeout=10)
        while len(found) < len(keys):
            for key in keys:
                ref = mine.find("kind", key)
                if ref is not None:
                    folder, by = mine.open(ref), mine.facts(ref)["by"]
                    texts = [(folder / f"{number}.txt").read_text() for number in range(5)]
                    assert texts == 5 * [by]
                    assert found.setdefault(key, by) == by
        return found

    with ThreadPoolExecutor(4) as pool:
        makers = [pool.submit(publish, name) for name in "ab"]
        looks = [pool.submit(look, name) for name in "cd"]
        for maker in makers:
            maker.result()
        assert looks[0].result() == looks[1].result()


def test_of_two_that_made_it_differently_both_get_the_first(
    stores: Callable[[str], ArtifactStore], caplog: pytest.LogCaptureFixture
) -> None:
    first: list[ArtifactRef] = []

    def overtaken(folder: Path) -> dict[str, Any]:
        first.append(stores("a").make("kind", "key", writing("a")))
        return dict(writing("not the same to the bit")(folder))

    mine = stores("b")
    ref = mine.make("kind", "key", overtaken)
    assert ref == first[0]
    assert "not the same to the bit" in caplog.text
    assert (mine.open(ref) / "part" / "a.txt").read_text() == "a"


def test_publications_at_the_same_moment_do_not_replace_each_other(
    stores: Callable[[str], ArtifactStore], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first: list[ArtifactRef] = []

    class Overtaken(Objects):
        def write(self, name: str, content: bytes | Path) -> None:
            super().write(name, content)
            if not first:
                alone = ArtifactStore(Home(tmp_path / "a"))
                first.append(alone.make("kind", "key", writing("theirs")))
                stores("a").heal("kind", "key")

    monkeypatch.setattr("storage.shared.remote.Objects", Overtaken)
    ref = stores("b").make("kind", "key", writing("mine"))
    assert ref == first[0] == stores("c").find("kind", "key")
    assert (stores("b").open(ref) / "part" / "a.txt").read_text() == "theirs"


def test_a_reference_to_what_came_second_is_still_good(
    stores: Callable[[str], ArtifactStore], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    offline = ArtifactStore(Home(tmp_path / "b")).make("kind", "key", writing("b"))
    ref = stores("a").make("kind", "key", writing("a"))
    assert stores("b").make("kind", "key", never) == offline
    assert "which others use" in caplog.text
    assert stores("c").find("kind", "key") == ref
    assert (stores("d").open(offline) / "part" / "a.txt").read_text() == "b"


class Broken(Objects):
    """A store that goes away after some writes."""

    left = 0

    def write(self, name: str, content: bytes | Path) -> None:
        self._use()
        super().write(name, content)

    def create(self, name: str, content: bytes) -> bool:
        self._use()
        return super().create(name, content)

    def _use(self) -> None:
        if Broken.left == 0:
            raise StoreUnavailableError("gone")
        Broken.left -= 1


@pytest.mark.parametrize("writes", [0, 1, 2, 3])  # two files, their manifest, the publication
def test_when_the_store_goes_away_the_work_is_kept_and_others_see_nothing_of_it(
    stores: Callable[[str], ArtifactStore], monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("storage.shared.remote.Objects", Broken)
        Broken.left = writes
        with pytest.raises(StoreUnavailableError, match="gone"):
            stores("a").make("kind", "key", writing("a"))
    assert stores("b").find("kind", "key") is None
    ref = stores("a").make("kind", "key", never)
    assert stores("b").make("kind", "key", never) == ref
    assert stores("b").open(ref).is_dir()


def test_a_store_that_went_away_is_not_begun_anew_by_the_next_run(
    homes: Callable[[str], Home], tmp_path: Path
) -> None:
    prepare_home(homes("a"))
    (tmp_path / "store").rename(tmp_path / "away")
    with pytest.raises(StoreUnavailableError, match="was there and is gone"):
        prepare_home(homes("a"))
    assert not (tmp_path / "store").exists()
    (tmp_path / "away").rename(tmp_path / "store")
    prepare_home(homes("a"))


def test_an_error_in_the_work_leaves_nothing_and_another_machine_makes_it(
    stores: Callable[[str], ArtifactStore], tmp_path: Path
) -> None:
    def failing(folder: Path) -> dict[str, Any]:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        stores("a").make("kind", "key", failing)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["format.txt"]
    ref = stores("b").make("kind", "key", writing("a"))
    assert stores("a").make("kind", "key", never) == ref


def damage_content(content: Path) -> None:
    (content / "b.txt").write_text("B")


def damage_by_removal(content: Path) -> None:
    (content / "part" / "a.txt").unlink()


@pytest.mark.parametrize("damage", [damage_content, damage_by_removal])
@pytest.mark.parametrize("remade", ["a", "not the same to the bit"])
def test_a_damaged_object_is_found_and_whoever_makes_it_again_mends_the_store(
    stores: Callable[[str], ArtifactStore],
    tmp_path: Path,
    damage: Callable[[Path], None],
    remade: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ref = stores("a").make("kind", "key", writing("a"))
    damage(tmp_path / "store" / "artifacts" / "kind" / "key" / ref.digest)
    mine = stores("b")
    mine.make("kind", "key", never)
    with pytest.raises(DamagedArtifactError, match="run again"):
        mine.open(ref)
    assert not mine.folder("kind", "key").exists()
    mended = mine.make("kind", "key", writing(remade))
    assert "damaged artifact in the store, making it again" in caplog.text
    assert (mended == ref) == (remade == "a")
    assert (stores("c").open(mended) / "part" / "a.txt").read_text() == remade
    assert stores("c").find("kind", "key") == mended


def test_what_another_machine_has_mended_is_not_made_again(
    stores: Callable[[str], ArtifactStore], tmp_path: Path
) -> None:
    ref = stores("a").make("kind", "key", writing("a"))
    file = tmp_path / "store" / "artifacts" / "kind" / "key" / ref.digest / "b.txt"
    file.write_text("B")
    with pytest.raises(DamagedArtifactError):
        stores("b").open(ref)
    file.write_text("b")
    assert stores("b").make("kind", "key", never) == ref
    assert stores("b").open(ref).is_dir()


def test_an_unreadable_manifest_counts_as_nothing_and_is_replaced(
    stores: Callable[[str], ArtifactStore], tmp_path: Path
) -> None:
    ref = stores("a").make("kind", "key", writing("a"))
    (tmp_path / "store" / "artifacts" / "kind" / "key" / MANIFEST).write_text('{"digest": ')
    assert stores("b").find("kind", "key") is None
    assert stores("b").make("kind", "key", writing("a")) == ref
    assert stores("c").make("kind", "key", never) == ref


def test_a_manifest_cannot_name_files_outside_of_the_artifact(
    stores: Callable[[str], ArtifactStore], tmp_path: Path
) -> None:
    from storage.references import digest_of

    files = {"../../escaped.txt": "0"}
    digest = digest_of("kind", files)
    ref = ArtifactRef(kind="kind", key="key", digest=digest)
    manifest = ref.model_dump() | {"files": files, "facts": {}, "inputs": None}
    folder = tmp_path / "store" / "artifacts" / "kind" / "key"
    (folder / digest).mkdir(parents=True)
    for path in (folder / MANIFEST, folder / digest / MANIFEST):
        path.write_text(json.dumps(manifest))
    with pytest.raises(DamagedArtifactError, match="escaped"):
        stores("b").open(ref)


def test_several_threads_open_what_the_store_has(stores: Callable[[str], ArtifactStore]) -> None:
    ref = stores("a").make("kind", "key", writing("a"))
    other = stores("b")
    with ThreadPoolExecutor(6) as pool:
        folders = set(pool.map(lambda _: other.open(ref), range(12)))
    assert folders == {other.folder("kind", "key")}


def test_the_store_of_a_home_is_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REAL_HOME", str(tmp_path))
    monkeypatch.delenv("REAL_STORE", raising=False)
    assert Home.current() == Home(tmp_path)
    monkeypatch.setenv("REAL_STORE", "s3://bucket/prefix/")
    assert Home.current() == Home(tmp_path, "s3://bucket/prefix")
    monkeypatch.chdir(tmp_path)
    assert full_url("here") == str(tmp_path / "here")


def test_a_store_that_cannot_be_used_is_an_error_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="file' cannot be the store .it is no folder"):
        prepare_home(Home(tmp_path / "home", str(tmp_path / "file")))
    with pytest.raises(StorageError, match="'sftp://host/folder'.*expected s3://"):
        prepare_home(Home(tmp_path / "home", "sftp://host/folder"))


def test_the_log_says_nothing_where_all_is_well(
    stores: Callable[[str], ArtifactStore], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        ref = stores("a").make("kind", "key", writing("a"))
        stores("b").open(stores("b").make("kind", "key", never))
        stores("b").heal("kind", "key")
        assert stores("a").make("kind", "key", never) == ref
    assert not caplog.records
