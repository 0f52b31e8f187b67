import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from flows.cli import main
from storage.paths import Home
from storage.sql.statements import Splitter
from storage.tables.parquet import write_table

Real = Callable[..., tuple[int, str]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def flat(text: str) -> str:
    """Return a message without the frame and the lines that it is shown in."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture
def place(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    row = {
        "method": "real",
        "fold": 0,
        "seed": 0,
        "question_id": "q",
        "question": "?",
        "generation": "!",
        "verdict": "true",
    }
    for run in ("r1", "r2"):
        write_table(found, "answers", run, [row | {"run_id": run}])
    return found


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("SELECT 1;", True),
        ("SELECT 1", False),
        ("SELECT ';", False),
        ("SELECT 1 -- ;", False),
        ("SELECT 1; -- done", True),
        ("SELECT 'é;' ;", True),
        ("SELECT /* ; ", False),
        ("SELECT $$;", False),
        ("SELECT $a$;$$;", False),
        ("SELECT $a$;$a$;", True),
        ("SELECT $a;", True),
        ("SELECT E'it\\';", False),
        ("SELECT 'it\\';", True),
        ("SELECT /* /* */ ; ", False),
        ('SELECT "a;""', False),
        ("SELECT 'it''s;", False),
    ],
)
def test_a_text_goes_on_until_a_semicolon_ends_it(text: str, complete: bool) -> None:
    splitter = Splitter()
    assert bool(splitter.feed(text)) is complete
    assert splitter.waiting is not complete


def test_a_text_is_cut_into_the_statements_that_the_engine_finds() -> None:
    literals = [
        "1",
        "'a;b'",
        "'it''s;'",
        "E'it\\'s;'",
        "E'\\\\'",
        "'it\\'",
        "$$;'$$",
        "$a$;$$;$a$",
        "$1",
    ]
    literals += [
        "$x",
        '1 AS "a;""b"',
        "1 /* ; /* ' */ ; */",
        "1 -- ;'\n",
        "1 -- \r",
        "1 AS te",
        "'é;'",
    ]
    chosen = random.Random(0)
    with duckdb.connect() as engine:
        for _ in range(500):
            statements = [f"SELECT {one}" for one in chosen.choices(literals, k=4)]
            text = chosen.choice([";", ";\n", " ; ", ";;"]).join(statements)
            expected = [one.query.strip("; \r\n") for one in engine.extract_statements(text)]
            assert [one.strip("; \r\n") for one in cut(text)] == expected, text


def cut(text: str) -> list[str]:
    splitter = Splitter()
    return [*splitter.feed(text), *splitter.rest()]


# Statements from elsewhere


@pytest.fixture
def real(place: Home, capsys: pytest.CaptureFixture[str]) -> Real:
    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["sql", "--home", str(place.root), *words])
        found = capsys.readouterr()
        return int(ended.value.code or 0), found.out + found.err

    return run


@pytest.fixture
def piped(real: Real, monkeypatch: pytest.MonkeyPatch) -> Real:
    def run(text: str, *words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return real(*words)

    return run


def test_a_statement_of_many_lines_is_looked_at_once(piped: Real) -> None:
    values = "SELECT count(*) AS n FROM (VALUES\n" + "  ('a;b'),\n" * 20_000 + "  ('c'));\n"
    literal = "SELECT length('\n" + "a;b\n" * 20_000 + "') AS n;\n"
    assert piped(values + literal, "--format", "csv") == (0, "n\n20001\nn\n80001\n")


def test_a_statement_without_end_is_refused(piped: Real) -> None:
    status, text = piped("y" * 10_000_001)
    assert status == 2
    assert "longer than 10000000" in flat(text)


def test_lines_from_a_pipe_are_run_up_to_the_first_error(piped: Real) -> None:
    lines = "-- first\nSELECT 1\nAS a; SELECT 2 AS b; -- done\n\nSELECT 'a;\nb' AS c"
    assert piped(lines, "--format", "csv") == (0, 'a\n1\nb\n2\nc\n"a;\nb"\n')
    status, text = piped("SELECT 1 AS a;\nFROM nowhere;\nSELECT 3 AS c;\n", "--format", "csv")
    assert status == 2
    assert text.startswith("a\n1\n")
    assert "nowhere does not exist" in flat(text)
    assert "c\n3" not in text


def test_named_queries_from_a_pipe_take_quoted_values(piped: Real) -> None:
    status, text = piped("@answers-changed run_id='r 1; --' ;\n", "--format", "csv")
    assert status == 0
    assert text.startswith("question_id,")
    assert "quote a text on both sides" in flat(piped("@top-heads 'm")[1])


def test_a_terminal_is_told_what_to_give(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    status, text = real()
    assert status == 2
    assert "real sql --examples" in flat(text)


def test_a_terminal_shows_the_first_rows_of_a_table_or_all(
    real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "(300 rows)" in real("FROM range(300)")[1]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    shown = "(300 rows; the first 200 are shown, all with --all)"
    assert shown in real("FROM range(300)")[1]
    assert "(300 rows)" in real("FROM range(300)", "--all")[1]


# Arguments


def test_a_named_query_is_called_with_its_parameters(real: Real) -> None:
    status, text = real("@answers-changed", "run_id=r1", "--format", "json")
    assert (status, json.loads(text)) == (0, [])


def test_rows_go_to_a_file_whose_ending_says_how(real: Real, tmp_path: Path) -> None:
    path = tmp_path / "answers.parquet"
    sql = "SELECT run_id FROM answers ORDER BY run_id"
    assert real(sql, "--to", str(path)) == (0, f"2 rows in {path}\n")
    assert pq.read_table(path).to_pylist() == [{"run_id": "r1"}, {"run_id": "r2"}]
    assert real(sql, "--to", str(path))[0] == 2
    assert real(sql, "--to", str(path), "--force")[0] == 0
    other = tmp_path / "answers.txt"
    assert real(sql, "--to", str(other))[0] == 2
    assert real(sql, "--to", str(other), "--format", "csv")[0] == 0
    assert other.read_text() == "run_id\nr1\nr2\n"


def test_the_library_is_listed_and_shown(real: Real) -> None:
    status, text = real("--examples", "--format", "json")
    assert status == 0
    assert {row["query"] for row in json.loads(text)} >= {"@top-heads", "@drift"}
    assert "<= $k" in real("--examples", "@top-heads")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["FROM", "runs"], "put the statement in quotes"),
        (["FROM runs", "--format", "parquet"], "Parquet is no text"),
        (["FROM runs", "--tables"], "give one query, or --tables"),
        (["--to", "x.csv"], "--to takes the rows of one query"),
        (["@top-heads"], "missing: model"),
        (["FROM runs", "--timeout", "nan"], "expected seconds, more than 0"),
        (["FROM runs", "--timeout", "inf"], "expected seconds, more than 0"),
        (["--timeout", "-1"], "expected seconds, more than 0"),
        (["SELECT '\udcff'"], "the statement is not UTF-8"),
        (["UPDATE EXTENSIONS"], "found a statement of an unknown kind"),
        (["FROM runs", "--to", "x" * 300 + ".csv"], "File name too long"),
    ],
)
def test_wrong_arguments_are_answered_with_what_is_expected(
    real: Real, words: list[str], message: str
) -> None:
    status, text = real(*words)
    assert status == 2
    assert message in flat(text)


def test_bytes_that_are_not_utf8_are_one_error(place: Home) -> None:
    command = [sys.executable, "-m", "flows.cli", "sql", "--home", str(place.root)]
    done = subprocess.run(command, input=b"SELECT '\xff';", capture_output=True, check=False)
    assert done.returncode == 2
    assert b"the statement is not UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


def test_statements_from_standard_input_are_run(place: Home) -> None:
    command = [sys.executable, "-m", "flows.cli", "sql", "--home", str(place.root)]
    text = "SELECT count(*) AS n\nFROM answers;\nFROM nowhere;\nSELECT 1;\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "(1 row)" in done.stdout
    assert "nowhere does not exist" in done.stderr
