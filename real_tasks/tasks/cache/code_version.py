"""Which code a stage's result depends on.

That is the stage's function, the functions of `real_tasks.tasks` that it calls, and every pure
module that one of them uses, with all modules that those import.
"""

import ast
import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, get_args

_PACKAGE = "real_tasks"
_TASKS = "real_tasks.tasks"
# Values of configurations and of registries reach a key as inputs; their declarations would only
# make every edit of a description train every model anew. The task factory changes no result.
_NOT_CODE = {
    "real_tasks",
    "real_tasks.vocabulary.config",
    "real_tasks.vocabulary.errors",
    "real_tasks.vocabulary.registry",
    "real_tasks.localizers",
    "real_tasks.questions.behaviours",
    "real_tasks.models.embedded",
    "real_tasks.evaluation.judges",
    "real_tasks.tasks",
    "real_tasks.tasks.cache.stage",
    "real_tasks.tasks.cache.code_version",
    "real_tasks.tasks.cache.machine",
    "real_tasks.tasks.cache.progress",
}


def code_of(function: Callable[..., Any], *plugin_modules: str) -> str:
    """Return a hash of the source that ``function`` runs, with that of ``plugin_modules``."""
    digest = hashlib.sha256(_code_of_function(function).encode())
    digest.update(code_version(*plugin_modules).encode())
    return digest.hexdigest()


@lru_cache
def code_version(*roots: str) -> str:
    """Return a hash of the source of the modules ``roots`` and all project modules they import."""
    names: set[str] = set()
    for root in roots:
        _collect(root, names)
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode() + _source(name))
    return digest.hexdigest()


@lru_cache
def _code_of_function(function: Callable[..., Any]) -> str:
    sources: dict[str, str] = {}
    modules: set[str] = set()
    _follow(function, sources, modules)
    texts = "".join(sources[name] for name in sorted(sources))
    return hashlib.sha256(texts.encode()).hexdigest() + code_version(*sorted(modules))


def _follow(function: Any, sources: dict[str, str], modules: set[str]) -> None:
    """Collect the function's source, that of functions it calls, and the modules they lie in."""
    name = f"{function.__module__}.{function.__qualname__}"
    if name in sources:
        return
    sources[name] = inspect.getsource(function)
    for thing in _things_used(function):
        module = str(getattr(thing, "__module__", ""))
        if not module.startswith(f"{_PACKAGE}.") or module in _NOT_CODE:
            continue
        if not module.startswith(_TASKS):
            modules.add(module)
        elif isinstance(thing, FunctionType):
            _follow(thing, sources, modules)
        elif isinstance(thing, type):
            for method in _methods(thing):
                _follow(method, sources, modules)


def _methods(thing: type) -> Iterator[FunctionType]:
    """Yield the functions that a class is written of, not those that a decorator made."""
    written_in = inspect.getsourcefile(thing)
    for member in vars(thing).values():
        for name in ("fget", "func", "__func__"):  # properties, cached ones, class methods
            member = getattr(member, name, None) or member
        if isinstance(member, FunctionType) and member.__code__.co_filename == written_in:
            yield member


def _things_used(function: FunctionType) -> Iterator[Any]:
    # What a function calls on its parameters is known by their types alone.
    for annotation in function.__annotations__.values():
        yield from (annotation, *get_args(annotation))
    names = set(_names(function.__code__))
    for name in names & function.__globals__.keys():
        thing = function.__globals__[name]
        if isinstance(thing, ModuleType):
            yield from (vars(thing)[member] for member in names & vars(thing).keys())
        else:
            yield inspect.unwrap(thing) if callable(thing) else thing


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _collect(name: str, names: set[str]) -> None:
    if name in names or name in _NOT_CODE:
        return
    names.add(name)
    for imported in _imports(name):
        _collect(imported, names)


def _imports(name: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(_source(name))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [node.module, *(member for member in members if _is_module(member))]
    return [module for module in found if module.split(".")[0] == _PACKAGE]


@lru_cache
def _is_module(name: str) -> bool:
    try:
        return name.split(".")[0] == _PACKAGE and importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a member of a module that is not a package
        return False


@lru_cache
def _source(name: str) -> bytes:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None, name
    return Path(spec.origin).read_bytes()


def module_of(registry: Any, name: str) -> list[str]:
    """Return the module of a plug-in, none where the name is unknown."""
    return [registry[name].__module__] if name in registry else []
