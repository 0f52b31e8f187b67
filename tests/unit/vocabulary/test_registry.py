import importlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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


ELSEWHERE = """
from pydantic import BaseModel

class Kind:
    Params: type[BaseModel]
    def work(self): ...

class Whole:
    class Params(BaseModel): pass
    def work(self): pass

class Lazy:
    class Params(BaseModel): pass

class Bare:
    Params = 3
    def work(self): pass

number = 3
"""


class Elsewhere:
    """Packages that are installed: what they give, under entry points for the things."""

    def __init__(self, site: Path, package: str) -> None:
        self.site, self.package = site, package
        (site / "elsewhere.py").write_text(ELSEWHERE)

    def install(self, name: str, version: str, **points: str) -> None:
        info = self.site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"{one} = {value}" for one, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[real_steering.things]", *lines]))

    def registry(self) -> Registry[Any]:
        registry = registry_of(self.package)
        registry._declared = importlib.import_module("elsewhere").Kind
        return registry


@pytest.fixture
def elsewhere(package: str, tmp_path: Path) -> Iterator[Elsewhere]:
    yield Elsewhere(tmp_path, package)
    for name in ("elsewhere", "failing", "looking"):
        sys.modules.pop(name, None)


def test_a_class_of_another_package_is_one_of_the_plug_ins(elsewhere: Elsewhere) -> None:
    elsewhere.install("others", "1.2", whole="elsewhere:Whole")
    registry = elsewhere.registry()
    assert list(registry) == ["blue", "red", "whole"]
    assert registry["whole"].__module__ == "elsewhere"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("failing:Whole", "RuntimeError: no luck"),
        ("gone:Whole", "ModuleNotFoundError: No module named 'gone'"),
        ("elsewhere:Gone", "AttributeError"),
        ("elsewhere:number", "is a int, expected a class"),
        ("elsewhere:Lazy", "without work, expected a Kind"),
        ("elsewhere:Bare", "3 as its Params"),
        ("leaving:Whole", "SystemExit"),
    ],
)
def test_one_that_cannot_be_had_is_told_once_and_the_rest_goes_on(
    elsewhere: Elsewhere, caplog: pytest.LogCaptureFixture, value: str, said: str
) -> None:
    (elsewhere.site / "failing.py").write_text("raise RuntimeError('no luck')")
    (elsewhere.site / "leaving.py").write_text("raise SystemExit")
    elsewhere.install("others", "1.2", bad=value, whole="elsewhere:Whole")
    registry = elsewhere.registry()
    for _ in range(2):
        assert list(registry) == ["blue", "red", "whole"] and "bad" not in registry
    (told,) = caplog.messages
    assert "thing 'bad'" in told and "others 1.2" in told and said in told
    with pytest.raises(UnknownNameError) as caught:
        registry["bad"]
    assert "others 1.2" in str(caught.value) and said in str(caught.value)
    with pytest.raises(UnknownNameError, match="known: blue, red, whole"):
        registry["green"]


def test_two_of_one_name_are_one_error_that_names_both_packages(elsewhere: Elsewhere) -> None:
    elsewhere.install("others", "1.2", same="elsewhere:Whole")
    elsewhere.install("further", "3.0", same="elsewhere:Whole")
    for _ in range(2):
        with pytest.raises(UserInputError, match=r"thing 'same'.*(others 1\.2|further 3\.0).*and"):
            list(elsewhere.registry())
    with pytest.raises(UserInputError) as caught:
        list(elsewhere.registry())
    assert "others 1.2" in str(caught.value) and "further 3.0" in str(caught.value)


def test_nor_may_a_package_take_the_name_of_one_of_the_project(elsewhere: Elsewhere) -> None:
    elsewhere.install("others", "1.2", red="elsewhere:Whole")
    with pytest.raises(UserInputError, match=rf"'red': {elsewhere.package}\.red and .*others 1\.2"):
        elsewhere.registry()["blue"]


def test_a_plug_in_may_register_itself_too_and_look_up_others_meanwhile(
    elsewhere: Elsewhere,
) -> None:
    (elsewhere.site / "looking.py").write_text(
        f"from {elsewhere.package} import THINGS\nfrom elsewhere import Whole\n"
        "@THINGS.register('looking')\nclass Looking(Whole):\n    other = THINGS['red']\n"
    )
    elsewhere.install("others", "1.2", looking="looking:Looking")
    registry = elsewhere.registry()
    assert registry["looking"].other is registry["red"]
    assert list(registry) == ["blue", "looking", "red"]


def test_a_package_that_is_imported_before_any_look_up_is_no_second_of_its_name(
    elsewhere: Elsewhere,
) -> None:
    (elsewhere.site / "looking.py").write_text(
        f"from {elsewhere.package} import THINGS\nfrom elsewhere import Whole\n"
        "THINGS.register('looking')(type('Looking', (Whole,), {'__module__': __name__}))\n"
        "Looking = THINGS._entries['looking']\n"
    )
    elsewhere.install("others", "1.2", looking="looking:Looking")
    registry = elsewhere.registry()
    found = importlib.import_module("looking").Looking
    assert registry["looking"] is found
