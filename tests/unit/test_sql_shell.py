import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from flows import sql_shell
from flows.cli import main
from flows.sql_completion import SqlCompleter
from flows.sql_session import SqlSession
from flows.sql_shell import run_lines, run_shell
from real_tasks.errors import UserInputError
from storage.catalog import Catalog
from storage.errors import QueryError, QueryStoppedError
from storage.parquet import write_table
from storage.paths import Home
from storage.statements import split_statements
from tests.unit.same_process import interrupted_after

ENTER, CTRL_C, CTRL_D, UP = "\r", "\x03", "\x04", "\x1b[A"


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


@pytest.fixture
def written() -> list[str]:
    return []


@pytest.fixture
def session(place: Home, written: list[str]) -> SqlSession:
    return SqlSession(Catalog(place), written.append, "csv")


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(sql_shell, "show_error", found.append)
    return found


def typed(session: SqlSession, keys: str, history: Path) -> None:
    """Type keys into the shell; it has to leave by itself."""
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text(keys)
        run_shell(session, history)


# The shell


def test_a_statement_is_answered_once_its_semicolon_is_typed(
    session: SqlSession, written: list[str], tmp_path: Path
) -> None:
    typed(session, f"SELECT 'a;{ENTER}b' AS x{ENTER};{ENTER}{CTRL_D}", tmp_path / "h")
    assert "".join(written) == 'x\n"a;\nb"\n'


def test_several_statements_of_one_line_are_answered_in_turn(
    session: SqlSession, written: list[str], tmp_path: Path
) -> None:
    typed(session, f"SELECT 1 AS a; SELECT 2 AS b; -- done{ENTER}.quit{ENTER}", tmp_path / "h")
    assert "".join(written) == "a\n1\nb\n2\n"


def test_errors_do_not_end_it(
    session: SqlSession, written: list[str], errors: list[str], tmp_path: Path
) -> None:
    wrong = ["SELEC 1;", "FROM nowhere;", ".nothing", "@nobody", ".timeout soon", "@top-heads 'm"]
    keys = "".join(f"{line}{ENTER}" for line in [*wrong, "SELECT 1 AS a;"])
    typed(session, keys + CTRL_D, tmp_path / "h")
    assert len(errors) == len(wrong)
    assert "nowhere does not exist" in errors[1]
    assert "found '.nothing', expected one of" in errors[2]
    assert "".join(written) == "a\n1\n"


def test_control_c_gives_up_what_was_typed(
    session: SqlSession, written: list[str], tmp_path: Path
) -> None:
    keys = f"SELECT 1{ENTER}AS a{CTRL_C}SELECT 2 AS b;{ENTER}{CTRL_D}"
    typed(session, keys, tmp_path / "h")
    assert "".join(written) == "b\n2\n"


def test_what_was_typed_is_there_again_in_the_next_shell(
    session: SqlSession, written: list[str], tmp_path: Path
) -> None:
    history = tmp_path / "not" / "there"
    typed(session, f"SELECT 1 AS a;{ENTER}{CTRL_D}", history)
    typed(session, f"{UP}{ENTER}{CTRL_D}", history)
    assert "".join(written) == "a\n1\n" * 2


# Commands


def test_commands_list_views_columns_and_queries(session: SqlSession, written: list[str]) -> None:
    session.run(".tables")
    assert "stage_timings" in written[0]
    assert "one row per shard" in written[0]
    session.run(".schema answers;")
    assert 'answers,verdict,VARCHAR,"what the judge called it' in "".join(written)
    session.run(".examples")
    assert "@top-heads" in "".join(written)
    session.run(".examples @top-heads")
    assert "WHERE model = $model" in "".join(written)
    session.run(".help")
    assert ".timeout SECONDS" in "".join(written)
    with pytest.raises(QueryError, match="no view is called 'answer'"):
        session.run(".schema answer")


def test_the_format_is_for_all_answers_from_there_on(
    session: SqlSession, written: list[str]
) -> None:
    session.run(".format json")
    session.run("SELECT 1 AS a;")
    assert json.loads("".join(written)) == [{"a": 1}]
    with pytest.raises(UserInputError, match="found '.format parquet'"):
        session.run(".format parquet")


def test_the_time_limit_can_be_changed(session: SqlSession) -> None:
    session.run(".timeout 0.2")
    with pytest.raises(QueryError, match=r"stopped after 0\.2 s"):
        session.run("SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 7 = 3;")
    for wrong in ("0", "-1", "nan", "inf", "1e9", "soon"):
        with pytest.raises(UserInputError, match="expected seconds, more than 0"):
            session.run(f".timeout {wrong}")


def test_named_queries_take_quoted_values(session: SqlSession, written: list[str]) -> None:
    session.run("@answers-changed run_id='r 1; --' ;")
    assert written[0].startswith("question_id,")


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
        ("/* only */ ;", True),
        (".tables", True),
        ("@last-runs", True),
        ("  ", True),
    ],
)
def test_a_text_goes_on_until_a_semicolon_ends_it(
    session: SqlSession, text: str, complete: bool
) -> None:
    assert session.is_complete(text) is complete


def test_control_c_stops_the_query_that_runs(session: SqlSession, written: list[str]) -> None:
    session.run("SELECT 1 AS a;")
    with interrupted_after(0.3), pytest.raises(QueryStoppedError):
        session.run("SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 7 = 3;")
    session.run("SELECT 1 AS a;")
    assert "".join(written) == "a\n1\n" * 2


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
            assert [one.strip("; \r\n") for one in split_statements(text)] == expected, text


def test_a_statement_of_many_lines_is_looked_at_once(
    session: SqlSession, written: list[str]
) -> None:
    lines = ["SELECT count(*) AS n FROM (VALUES\n", *["  ('a;b'),\n"] * 20_000, "  ('c'));\n"]
    run_lines(session, lines)
    assert "".join(written) == "n\n20001\n"
    literal = ["SELECT length('\n", *["a;b\n"] * 20_000, "') AS n;\n"]
    run_lines(session, literal)
    assert "".join(written).endswith("n\n80001\n")


def test_a_statement_without_end_is_refused(session: SqlSession) -> None:
    with pytest.raises(QueryError, match="longer than"):
        run_lines(session, iter(lambda: "y" * 1_000_000, ""))


def test_tables_show_as_many_rows_as_asked_for(place: Home, written: list[str]) -> None:
    session = SqlSession(Catalog(place), written.append, most=1)
    session.run("FROM range(5);")
    session.run(".rows 2")
    session.run("FROM range(5);")
    session.run(".rows all")
    session.run("FROM range(5);")
    assert [text for text in written if text.startswith("(")] == [
        "(5 rows; the first 1 are shown, all with --all)\n",
        "(5 rows; the first 2 are shown, all with --all)\n",
        "(5 rows)\n",
    ]
    for wrong in ("0", "-1", "many", "1.5", "²"):
        with pytest.raises(UserInputError, match="expected a whole number"):
            session.run(f".rows {wrong}")


# Completion


def completed(text: str) -> list[str]:
    found = SqlCompleter().get_completions(Document(text), CompleteEvent())
    return [completion.text for completion in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM stage_", "stage_timings"),
        ("SELECT roc_auc_l", "roc_auc_low"),
        ("SELECT avg(perpl", "perplexity"),
        ("sel", "SELECT"),
        ("@top", "@top-heads"),
        ("@top-heads loc", "localizer="),
        (".sch", ".schema"),
        (".schema module_s", "module_scores"),
        (".examples @dri", "@drift"),
        ("SELECT 1\nFROM eval", "evaluations"),
    ],
)
def test_words_are_completed_where_they_fit(text: str, expected: str) -> None:
    assert expected in completed(text)


@pytest.mark.parametrize("text", ["", "SELECT ", "@nobody k", "FROM runs"])
def test_nothing_is_offered_where_nothing_fits(text: str) -> None:
    assert completed(text) == []


# Statements from elsewhere, and arguments


def test_lines_from_a_pipe_are_run_up_to_the_first_error(
    session: SqlSession, written: list[str]
) -> None:
    lines = ["-- first\n", "SELECT 1\n", "AS a;\n", "\n", ".format json\n", "SELECT 2 AS b"]
    run_lines(session, lines)
    assert "".join(written) == 'a\n1\n[\n{"b": 2}\n]\n'
    with pytest.raises(QueryError):
        run_lines(session, ["FROM nowhere;\n", "SELECT 3 AS c;\n"])
    assert "".join(written).endswith("]\n")


def test_quit_ends_what_comes_from_a_pipe(session: SqlSession, written: list[str]) -> None:
    run_lines(session, ["SELECT 1 AS a;\n", ".quit\n", "FROM nowhere;\n"])
    assert "".join(written) == "a\n1\n"


@pytest.fixture
def real(place: Home, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["sql", "--home", str(place.root), *words])
        found = capsys.readouterr()
        return int(ended.value.code or 0), found.out + found.err

    return run


def test_a_named_query_is_called_with_its_parameters(real: Any) -> None:
    status, text = real("@answers-changed", "run_id=r1", "--format", "json")
    assert (status, json.loads(text)) == (0, [])


def test_rows_go_to_a_file_whose_ending_says_how(real: Any, tmp_path: Path) -> None:
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


def test_the_library_is_listed_and_shown(real: Any) -> None:
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
    real: Any, words: list[str], message: str
) -> None:
    status, text = real(*words)
    assert status == 2
    assert message in " ".join(text.replace("│", " ").split())


def test_bytes_that_are_not_utf8_are_one_error(place: Home) -> None:
    command = [sys.executable, "-m", "flows.cli", "sql", "--home", str(place.root)]
    done = subprocess.run(command, input=b"SELECT '\xff';", capture_output=True, check=False)
    assert done.returncode == 2
    assert b"the statement is not UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


def test_statements_from_standard_input_are_run(place: Home) -> None:
    command = [sys.executable, "-m", "flows.cli", "sql", "--home", str(place.root)]
    text = "SELECT count(*) AS n\nFROM answers;\n.format csv\nFROM nowhere;\nSELECT 1;\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "(1 row)" in done.stdout
    assert "nowhere does not exist" in done.stderr
    assert not (place.root / "sql_history").exists()
