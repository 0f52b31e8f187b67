import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.registry import Registry, UnknownNameError

PLUG_IN = """
from {package} import THINGS

@THINGS.register({name!r})
class Thing:
    pass
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package on disk whose files register `blue` and `red` with its registry."""
    name = f"things_of_{abs(hash(tmp_path))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text(
        f"from real_tasks.vocabulary.registry import Registry\nTHINGS = Registry('thing', "
        f"{name!r})\n"
    )
    for plug_in in ("red", "blue"):
        (folder / f"{plug_in}.py").write_text(PLUG_IN.format(package=name, name=plug_in))
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def registry_of(package: str) -> Registry[type]:
    __import__(package)
    registry: Registry[type] = sys.modules[package].THINGS
    return registry


def test_a_file_in_the_package_is_all_that_a_plug_in_takes(package: str) -> None:
    registry = registry_of(package)
    assert f"{package}.red" not in sys.modules
    assert registry["red"] is sys.modules[f"{package}.red"].Thing
    assert registry["red"] is not registry["blue"]
    assert list(registry) == ["blue", "red"]
    assert "red" in registry and "green" not in registry


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(package: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown thing 'green'; known: blue, red"):
        registry_of(package)["green"]
    assert issubclass(UnknownNameError, UserInputError)


def test_a_name_cannot_be_registered_twice(package: str) -> None:
    registry = registry_of(package)
    registry.register("one")(int)
    with pytest.raises(ValueError, match="thing 'one' is registered twice"):
        registry.register("one")(float)
    assert registry["one"] is int


def test_two_files_with_one_name_are_found_at_the_first_look_up(
    package: str, tmp_path: Path
) -> None:
    copy = tmp_path / package / "zzz.py"
    copy.write_text(PLUG_IN.format(package=package, name="red"))
    with pytest.raises(ValueError, match="thing 'red' is registered twice"):
        registry_of(package)["red"]


def test_a_file_that_cannot_be_imported_is_reported_at_every_look_up(
    package: str, tmp_path: Path
) -> None:
    (tmp_path / package / "zzz.py").write_text("import there_is_no_such_module")
    registry = registry_of(package)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module"):
            registry["green"]


def test_threads_that_look_up_meanwhile_wait_until_the_registry_is_full(
    package: str, tmp_path: Path
) -> None:
    slow = tmp_path / package / "aaa.py"
    slow.write_text("import time\ntime.sleep(0.2)\n" + PLUG_IN.format(package=package, name="slow"))
    registry = registry_of(package)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda name: registry[name].__name__, ["slow", "red"] * 2))
    assert found == ["Thing"] * 4


def test_the_decorator_returns_the_class_it_is_given(package: str) -> None:
    class Green:
        pass

    assert registry_of(package).register("green")(Green) is Green
