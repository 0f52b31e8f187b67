"""The library of named queries: a file of SQL each, under ``named_queries/``.

A file is called as its query. Its comment says, in a line each, what it answers and what its
parameters are::

    -- The heads that a localizer scores highest.
    -- model VARCHAR: the language model
    -- k INTEGER = 10: how many heads

A parameter with a default may be left out; as ``$model``, it is bound when the query is prepared,
never pasted into its text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import StorageError

if TYPE_CHECKING:
    import pyarrow as pa

Value = str | int | float | None

_FOLDER = Path(__file__).with_name("named_queries")
_PARAMETER = re.compile(r"-- (\w+) (VARCHAR|INTEGER|DOUBLE)(?: = ('[^']*'|[^:]+))?: (.+)")
_KINDS = {"VARCHAR": "text", "INTEGER": "a whole number", "DOUBLE": "a number"}


class UnknownQueryError(StorageError):
    """There is no named query of that name, or it has no such parameter."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a named query, ``$name`` in the SQL: VARCHAR, INTEGER or DOUBLE."""

    name: str
    type: str
    description: str
    required: bool
    default: Value = None

    def value_of(self, text: str) -> Value:
        """Return the value that a person wrote.

        Raises:
            UnknownQueryError: it is no value of this type.
        """
        try:
            if self.type == "VARCHAR":
                return text
            return int(text) if self.type == "INTEGER" else float(text)
        except ValueError:
            raise UnknownQueryError(
                f"found {self.name}={text}, expected {_KINDS[self.type]}"
            ) from None

    def __str__(self) -> str:
        if self.required:
            return f"{self.name}=..."
        return f"[{self.name}]" if self.default is None else f"[{self.name}={self.default}]"


@dataclass(frozen=True)
class NamedQuery:
    """A query that has a name: what it answers, its parameters as declared, the statement."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    sql: str

    def bind(self, given: Mapping[str, str]) -> dict[str, Value]:
        """Return the value of every parameter, given what a person wrote.

        Raises:
            UnknownQueryError: a parameter is unknown, missing, or has no value of its type.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        unknown = [name for name in given if name not in known]
        missing = [p.name for p in self.parameters if p.required and p.name not in given]
        if unknown or missing:
            found = [f"unknown: {', '.join(unknown)}"] if unknown else []
            found += [f"missing: {', '.join(missing)}"] if missing else []
            raise UnknownQueryError(f"@{self.name}: {'; '.join(found)}; expected {self.usage()}")
        return {
            name: parameter.value_of(given[name]) if name in given else parameter.default
            for name, parameter in known.items()
        }

    def usage(self) -> str:
        """Return how it is called, as ``@top-heads model=... [k=10]``."""
        return " ".join([f"@{self.name}", *map(str, self.parameters)])


@lru_cache
def named_queries() -> dict[str, NamedQuery]:
    """Return all named queries by their names."""
    return {path.stem: _read(path) for path in sorted(_FOLDER.glob("*.sql"))}


def find_query(name: str) -> NamedQuery:
    """Return the named query called ``name``.

    Raises:
        UnknownQueryError: there is none; the names that there are are listed.
    """
    known = named_queries()
    if name not in known:
        raise UnknownQueryError(f"no query is called {name!r}; there are {', '.join(known)}")
    return known[name]


def parse_call(words: list[str]) -> tuple[NamedQuery, dict[str, Value]]:
    """Return the query and the values that words call, as ``@top-heads``, ``model=demo``.

    Raises:
        UnknownQueryError: they call no query as it is declared.
    """
    query = find_query(words[0].removeprefix("@"))
    given: dict[str, str] = {}
    for word in words[1:]:
        name, equals, text = word.partition("=")
        if not equals or name in given:
            raise UnknownQueryError(
                f"found {word!r}, expected each parameter once as name=value: {query.usage()}"
            )
        given[name] = text
    return query, query.bind(given)


def describe_queries() -> "pa.Table":
    """Return the library as a table: ``query``, ``description``, ``parameters``."""
    import pyarrow as pa

    return pa.Table.from_pylist(
        [
            {
                "query": f"@{query.name}",
                "description": query.description,
                "parameters": "\n".join(f"{one}: {one.description}" for one in query.parameters),
            }
            for query in named_queries().values()
        ]
    )


def _read(path: Path) -> NamedQuery:
    head: list[str] = []
    parameters: list[Parameter] = []
    sql: list[str] = []
    for line in path.read_text().splitlines():
        found = _PARAMETER.fullmatch(line)
        if sql or not line.startswith("-- "):
            sql.append(line)
        elif found is None:
            head.append(line.removeprefix("-- "))
        else:
            parameters.append(_parameter(*found.groups()))
    return NamedQuery(path.stem, " ".join(head), tuple(parameters), "\n".join(sql))


def _parameter(name: str, kind: str, default: str | None, description: str) -> Parameter:
    plain = Parameter(name, kind, description, default is None)
    if default is None or default == "NULL":
        return plain
    return Parameter(name, kind, description, False, plain.value_of(default.strip("'")))
