"""Which code a stage's result depends on: the project's modules that it imports, closed under import."""

import ast
import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

_PACKAGE = "real_tasks"
# Values of configurations and of registries reach a key as inputs; their declarations would only make
# every edit of a description train every model anew.
_NOT_CODE = {
    "real_tasks",
    "real_tasks.config",
    "real_tasks.errors",
    "real_tasks.registry",
    "real_tasks.localizers",
    "real_tasks.behaviours",
    "real_tasks.organism",
    "real_tasks.evaluation.judges",
}


@lru_cache
def code_version(*roots: str) -> str:
    """Return a hash of the source of the modules ``roots`` and of all project modules they import."""
    names: set[str] = set()
    for root in roots:
        _collect(root, names)
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode() + _source(name))
    return digest.hexdigest()


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
