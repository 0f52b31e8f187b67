import hashlib
import json
import multiprocessing
import threading
from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.paths import Home
from storage.runs.verdicts import VerdictMemory

KEY = hashlib.sha256(b"one").hexdigest()


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


@pytest.fixture
def memory(tmp_path: Path) -> VerdictMemory:
    return VerdictMemory(Home(tmp_path / "home"))


def fill(root: Path, offset: int) -> None:
    memory = VerdictMemory(Home(root))
    for number in range(20):
        memory[key(number)] = json.dumps({"number": number, "from": offset, "pad": "x" * 2000})


def test_what_is_kept_is_there_again_for_another_object_on_the_same_home(tmp_path: Path) -> None:
    for text in ("true, yes", "", 'two\nlines\r\n"ü"', json.dumps({"said": "no"})):
        VerdictMemory(Home(tmp_path))[KEY] = text
        assert VerdictMemory(Home(tmp_path))[KEY] == text


def test_an_entry_is_a_file_named_by_its_key_below_the_first_two_characters(tmp_path: Path) -> None:
    VerdictMemory(Home(tmp_path))[KEY] = "said"
    assert (tmp_path / "verdicts" / KEY[:2] / f"{KEY}.json").read_text() == "said"


def test_reading_creates_nothing(memory: VerdictMemory, tmp_path: Path) -> None:
    assert KEY not in memory
    assert memory.get(KEY) is None
    assert list(memory) == []
    assert len(memory) == 0
    with pytest.raises(KeyError):
        memory[KEY]
    assert list(tmp_path.iterdir()) == []


def test_it_behaves_as_a_dict_does(memory: VerdictMemory) -> None:
    plain: dict[str, str] = {}
    for mapping in (memory, plain):
        mapping.update({key(n): f"v{n}" for n in range(5)})
        mapping[key(3)] = "again"
        del mapping[key(0)]
        assert mapping.pop(key(1)) == "v1"
        assert mapping.setdefault(key(2), "unused") == "v2"
    assert dict(memory) == plain
    assert len(memory) == len(plain)
    with pytest.raises(KeyError):
        del memory[key(0)]


@pytest.mark.parametrize("wrong", ["", "abc", "../../etc/passwd", "A" * 64, "a/b/c/d", "x" * 200])
def test_a_key_that_is_no_hash_is_refused_and_never_found(
    memory: VerdictMemory, wrong: str
) -> None:
    assert wrong not in memory
    with pytest.raises(StorageError, match="cannot name a verdict"):
        memory[wrong] = "x"


def test_a_file_half_written_by_a_killed_writer_is_no_entry(
    memory: VerdictMemory, tmp_path: Path
) -> None:
    memory[KEY] = "whole"
    (tmp_path / "home" / "verdicts" / KEY[:2] / f".{KEY}.json-x1").write_text("ha")
    assert dict(memory) == {KEY: "whole"}


def test_a_write_that_fails_leaves_the_old_entry_and_no_rubbish(
    memory: VerdictMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory[KEY] = "old"

    def no_space(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", no_space)
        with pytest.raises(StorageError, match="No space left on device"):
            memory[KEY] = "new"
    assert memory[KEY] == "old"
    assert len(list((tmp_path / "home").rglob("*.json*"))) == 1


def test_a_damaged_entry_counts_as_missing_with_a_warning_and_can_be_written_again(
    memory: VerdictMemory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory[KEY] = "x"
    (tmp_path / "home" / "verdicts" / KEY[:2] / f"{KEY}.json").write_bytes(b"\xff\xfe\x00")
    assert memory.get(KEY, "missing") == "missing"
    assert KEY in caplog.text
    memory[KEY] = "y"
    assert memory[KEY] == "y"


def test_several_threads_write_and_read_whole_entries(memory: VerdictMemory) -> None:
    broken: list[str] = []

    def work(offset: int) -> None:
        for number in range(30):
            memory[KEY] = json.dumps({"from": offset, "pad": str(offset) * 3000})
            seen = json.loads(memory[KEY])
            if set(seen["pad"]) != {str(seen["from"])}:
                broken.append(f"{offset} {number}")
            memory[key(100 * offset + number)] = "own"

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    assert len(memory) == 4 * 30 + 1


def test_several_processes_fill_one_home(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fill, args=(tmp_path, n)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    memory = VerdictMemory(Home(tmp_path))
    assert {json.loads(value)["number"] for value in memory.values()} == set(range(20))
