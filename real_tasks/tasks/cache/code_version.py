"""Which code a stage's result depends on: its own file's, its plug-ins', and all that they import.

Comments, docstrings, and what fields say of themselves in forms are no code. Nor is this package:
it says when a result may be used again and changes none.
"""

import ast
import hashlib
import importlib.util
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

_PACKAGE = "real_tasks"
_TEXTS = {"title", "description"}
"""What a pydantic field says to people."""


@lru_cache
def code_version(*roots: str) -> str:
    """Return a hash of the code of the modules ``roots`` and all modules of ours they import.

    Ours are those of the project and of the packages that the roots belong to: a plug-in's helpers
    count as the project's do, the libraries that either uses do not.
    """
    packages = frozenset([_PACKAGE, *(root.partition(".")[0] for root in roots)])
    found: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name], imported = _read(*_source(name))
            waiting += (one for one in imported if _is_ours(one, packages))
    texts = (f"{name}\n{code}\n" for name, code in sorted(found.items()))
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def modules_of(registry: Any, *names: str) -> list[str]:
    """Return the modules of plug-ins, none where a name is unknown."""
    return [registry[name].__module__ for name in names if name in registry]


def _source(name: str) -> tuple[bytes, str]:
    """Return the content of a module's file, and the package that its relative imports are of."""
    spec = _spec(name)
    assert spec is not None, name
    content = Path(spec.origin).read_bytes() if spec.origin else b""  # a folder without __init__
    return content, name.rpartition(".")[0] if spec.submodule_search_locations is None else name


@cache
def _read(source: bytes, package: str) -> tuple[str, tuple[str, ...]]:
    """Return the code of a module, and what it imports: modules, and their members."""
    try:
        tree, imported = ast.parse(source), []
    except (SyntaxError, ValueError):  # a compiled module
        return hashlib.sha256(source).hexdigest(), ()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -(node.level - 1) or None] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            imported += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return ast.unparse(_WithoutTexts().visit(tree)), tuple(imported)


@cache
def _is_ours(name: str, packages: frozenset[str]) -> bool:
    """Say whether it is a module of one of the packages that may change a result."""
    inside = name.partition(".")[0] in packages and not f"{name}.".startswith(f"{__package__}.")
    return inside and _spec(name) is not None


def _spec(name: str) -> ModuleSpec | None:
    """Return where a module is, without importing the packages that it is in; None for a member."""
    package, _, last = name.rpartition(".")
    if not package:
        return importlib.util.find_spec(name)
    above = _spec(package)
    if above is None or above.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(last, above.submodule_search_locations)


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
