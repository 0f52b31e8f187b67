"""Hostile statements and arguments of `real sql`: one error each, in time, and nothing else.

Run as ``python -m tests.drill.sql --home HOME --seed 1`` (on a copy of the home), or as part of the
whole drill. The calls of functions are drawn from all that DuckDB has.
"""

import argparse
import io
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from pathlib import Path
from random import Random
from unittest.mock import patch

import duckdb

from flows.cli import main as command
from storage.paths import Home
from tests.drill.homes import require, tail, variables
from tests.drill.statements import ARGUMENTS, BYTES, EXPENSIVE, REACHING, STRANGE, TYPED, VALUES
from tests.terminal import REAL

LIMIT_S = 3.0
"""What a statement may take."""
BEYOND_S = 30.0
"""What a command may take beyond it: the start of a process on a machine with much to do."""
SECRET = "swordfish"


def hostile_sql(home: Home, reference: Path, seed: int, calls: int) -> None:
    """Try everything on a copy of ``reference``, a home with a run, in a new ``home``."""
    shutil.copytree(reference, home.root, symlinks=True)
    found = list(tried(home, Random(seed), calls))
    lost = [what for what in found if what is not None]
    require(not lost, f"{len(lost)} of {len(found)} statements:\n    " + "\n    ".join(lost))


def tried(home: Home, draw: Random, calls: int) -> Iterator[str | None]:
    """Yield of everything that is tried what was lost, None where nothing was."""
    outside = home.root.parent / "outside"
    _lay_out(outside)
    places = {"outside": str(outside), "home": str(home.root), "tables": str(home.tables)}
    statements = [text.format(**places) for text in REACHING] + [*EXPENSIVE, *STRANGE]
    statements += draw.sample(_calls(outside, draw), calls)
    formats = ("table", "csv", "json", "parquet")
    several: list[list[str]] = [[text, "--format", draw.choice(formats[:3])] for text in statements]
    for number, value in enumerate(TYPED):
        several += [[f"SELECT {value} AS x", "--format", output] for output in formats[:3]]
        several += [[f"SELECT {value} AS x", "--to", f"{outside}/to/{number}.parquet"]]
    several += [[word.format(**places) for word in words] for words in ARGUMENTS]
    before = _state(home.root), _state(outside)
    for words in several:
        yield _one(home, words)
        for path in (outside / "to").iterdir():
            path.unlink()
    for content in BYTES:
        yield _piped(home, content)
    yield None if (_state(home.root), _state(outside)) == before else "something was written"


def _one(home: Home, words: list[str]) -> str | None:
    """Have a command line of `real sql` end in words and in time."""
    output = io.StringIO()
    limit = [] if "--timeout" in words else ["--timeout", f"{LIMIT_S:g}"]
    begun, status = time.monotonic(), None
    variables = patch.dict(os.environ, {"REAL_HOME": str(home.root)})
    try:
        with variables, redirect_stdout(output), redirect_stderr(output):
            command(["sql", *words, *limit])
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException as error:
        return f"{_shown(words)}: a traceback, {error!r}"
    return _judged(_shown(words), status, output.getvalue(), time.monotonic() - begun)


def _piped(home: Home, content: bytes) -> str | None:
    begun = time.monotonic()
    done = subprocess.run(
        [*REAL, "sql", "--timeout", f"{LIMIT_S:g}"],
        input=content,
        capture_output=True,
        env=variables(home),
        cwd=home.root.parent,
        check=False,
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    return _judged(repr(content[:60]), done.returncode, said, time.monotonic() - begun)


def _judged(what: str, status: int | str | None, said: str, took: float) -> str | None:
    if status not in (0, 2) or "Traceback" in said:
        return f"{what}: status {status}, {tail(said)}"
    if SECRET in said.replace(what, "") or "root:x:0" in said:
        return f"{what}: it was read outside, {tail(said)}"
    return f"{what}: took {took:.0f} s" if took > LIMIT_S + BEYOND_S else None


def _shown(words: list[str]) -> str:
    return ascii(" ".join(words))[:300]


def _calls(outside: Path, draw: Random) -> list[str]:
    """Return a call of every function that DuckDB has, in each of its forms."""
    values = VALUES | {"VARCHAR": (*VALUES["VARCHAR"], f"'{outside}/secret.csv'", "'/etc/passwd'")}
    with duckdb.connect() as engine:
        rows = engine.sql(
            "SELECT DISTINCT function_name, function_type, parameter_types::VARCHAR[] "
            "FROM duckdb_functions() WHERE function_type <> 'window' ORDER BY ALL"
        ).fetchall()
    made = []
    for name, kind, types in rows:
        given = ", ".join(draw.choice(values.get(one or "", VALUES["ANY"])) for one in types)
        call = f'"{name}"({given})'
        begins = {"pragma": f"PRAGMA {name}({given})", "table": f"FROM {call}"}
        made.append(begins.get(kind.removesuffix("_macro"), f"SELECT {call}"))
    return made


def _lay_out(outside: Path) -> None:
    (outside / "to").mkdir(parents=True)
    (outside / "folder.csv").mkdir()
    (outside / "secret.csv").write_text(f"word\n{SECRET}\n")
    (outside / "secret.json").write_text(f'[{{"word": "{SECRET}"}}]')
    with duckdb.connect(str(outside / "secret.db")) as engine:
        engine.execute(f"CREATE TABLE t AS SELECT '{SECRET}' AS word")
        engine.execute(f"COPY t TO '{outside}/secret.parquet'")
    (outside / "link.csv").symlink_to(outside / "secret.csv")
    (outside / "loop.csv").symlink_to(outside / "loop.csv")
    os.mkfifo(outside / "pipe.csv")
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a socket's path has few characters
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"{short}/s")
        Path(short, "s").rename(outside / "socket.csv")


def _state(folder: Path) -> dict[str, str]:
    """Return names, kinds and contents of what lies below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = f"{path.lstat().st_mode} {sha256(content).hexdigest()}"
    return found


def main() -> None:
    """Try everything on a copy of a home, and print what was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="with a run; it is copied")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=250, help="of DuckDB's functions")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drill-sql-") as folder:
        home = Home(Path(folder) / "home")
        shutil.copytree(arguments.home, home.root, symlinks=True)
        count = lost = 0
        for what in tried(home, Random(arguments.seed), arguments.calls):
            count, lost = count + 1, lost + (what is not None)
            if what is not None:
                print(f"  {count}: {what}", flush=True)  # noqa: T201
    print(f"tried {count}, lost {lost}")  # noqa: T201
    raise SystemExit(1 if lost else 0)


if __name__ == "__main__":
    main()
