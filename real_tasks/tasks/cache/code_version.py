"""Which code a stage's result depends on: its own file's, its plug-ins', and all that they import.

Comments, docstrings, and what fields say of themselves in forms are no code. Nor is this package:
it says when a result may be used again and changes none.
"""

import ast
import hashlib
import importlib.util
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

_PACKAGE = "real_tasks"
_TEXTS = {"title", "description"}
"""What a pydantic field says to people."""


@lru_cache
def code_version(*roots: str) -> str:
    """Return a hash of the code of the modules ``roots`` and all project modules they import."""
    found: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name], imported = _read(_source(name))
            waiting += filter(_is_ours, imported)
    texts = (f"{name}\n{code}\n" for name, code in sorted(found.items()))
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def modules_of(registry: Any, *names: str) -> list[str]:
    """Return the modules of plug-ins, none where a name is unknown."""
    return [registry[name].__module__ for name in names if name in registry]


def _source(name: str) -> bytes:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None, name
    return Path(spec.origin).read_bytes()


@cache
def _read(source: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the code of a module, and what it imports: modules, and their members."""
    tree, imported = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return ast.unparse(_WithoutTexts().visit(tree)), tuple(imported)


@cache
def _is_ours(name: str) -> bool:
    """Say whether it is a module of the project that may change a result."""
    inside = [f"{name}.".startswith(f"{package}.") for package in (_PACKAGE, __package__)]
    try:
        return inside == [True, False] and importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a member of a module that is not a package
        return False


class _WithoutTexts(ast.NodeTransformer):
    """Takes out what is written for people."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:  # noqa: N802
        """Drop a text that stands alone: a docstring."""
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802
        """Drop a field's title and description."""
        if isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [one for one in node.keywords if one.arg not in _TEXTS]
        return self.generic_visit(node)
