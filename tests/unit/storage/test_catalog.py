import json
import multiprocessing
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.artifacts.activations import write_shard
from storage.artifacts.store import ArtifactStore
from storage.errors import QueryError
from storage.paths import Home
from storage.runs.files import note_checksums
from storage.sql import view_sources
from storage.sql.catalog import Catalog
from storage.tables.parquet import publish, write_table
from storage.tables.schemas import TABLES
from storage.tables.written import note_written
from tests.unit.same_process import answer_here, interrupted_after
from tests.unit.storage_rows import run_row

VIEWS = [*TABLES, "mlflow_runs", "activations"]


def run(run_id: str, **changes: Any) -> dict[str, Any]:
    started = datetime(2026, 1, 2, 23, 30, tzinfo=UTC)
    return run_row(run_id, "completed", started_at=started, finished_at=None) | changes


def write_activations(
    home: Home,
    key: str,
    values: np.ndarray[Any, Any],
    dtype: Any = "float16",
    kind: str = "head",
) -> None:
    folder = home.artifacts / "activations" / key
    rows = [
        {
            "model": key,
            "model_id": "0",
            "behaviour": "b",
            "question_id": f"q{index // 2}",
            "answer_id": f"a{index}",
            "label": index % 2,
        }
        for index in range(len(values))
    ]
    half = len(values) // 2
    write_shard(folder, 0, rows[:half], values[:half], dtype, kind)
    write_shard(folder, 1, rows[half:], values[half:], dtype, kind)
    (folder / "manifest.json").write_text("{}")


def planted(count: int, layers: int, heads: int, width: int) -> np.ndarray[Any, Any]:
    shape = (count, layers, heads, width)
    values = np.random.default_rng(0).integers(-8, 8, shape) / 4  # exact in half precision
    return values.astype(np.float32)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def filled(home: Home) -> Home:
    write_table(home, "runs", "r1", [run("r1")])
    write_table(home, "runs", "r2", [run("r2", status="failed", seed=7)])
    return home


def rows(home: Home, sql: str, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Catalog(home).query(sql, **options).to_pylist()
    return found


def test_a_query_runs_over_all_runs(filled: Home) -> None:
    assert rows(filled, "SELECT run_id, status FROM runs ORDER BY run_id DESC") == [
        {"run_id": "r2", "status": "failed"},
        {"run_id": "r1", "status": "completed"},
    ]


def test_tables_join_and_names_ignore_case(filled: Home) -> None:
    selected = {
        "run_id": "r1",
        "method": "real",
        "fold": 0,
        "seed": 1,
        "module_kind": "head",
        "layer": 2,
        "head": 3,
        "rank": 1,
        "score": 0.8,
        "strength": 1.0,
    }
    write_table(filled, "selected_modules", "r1", [selected])
    sql = "SELECT head FROM RUNS JOIN Selected_Modules USING (run_id) WHERE status = 'completed'"
    assert rows(filled, sql) == [{"head": 3}]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_empty_in_a_home_that_is_not_there(home: Home, view: str) -> None:
    assert rows(home, f"SELECT count(*) AS n FROM {view}") == [{"n": 0}]
    assert not home.root.exists()


def test_all_views_are_listed(home: Home) -> None:
    assert [row["name"] for row in rows(home, "SHOW TABLES")] == sorted(VIEWS)


def test_a_table_named_by_an_expression_is_there_too(filled: Home) -> None:
    assert len(rows(filled, "FROM query_table('ru' || 'ns')")) == 2


@pytest.mark.parametrize(
    "sql",
    [
        "WITH x AS (SELECT 1 AS n) SELECT n FROM x",
        "FROM runs SELECT run_id",
        "DESCRIBE runs",
        "SUMMARIZE runs",
        "EXPLAIN SELECT * FROM runs",
        "PIVOT runs ON status USING count(*)",
        "SELECT 1; -- and no more",
    ],
)
def test_reading_statements_of_all_kinds_work(filled: Home, sql: str) -> None:
    assert rows(filled, sql)


def test_times_are_in_utc_and_date_functions_work(filled: Home) -> None:
    sql = "SELECT started_at, date_trunc('day', started_at)::VARCHAR AS d FROM runs LIMIT 1"
    found = rows(filled, sql)[0]
    assert found["started_at"].isoformat() == "2026-01-02T23:30:00+00:00"
    assert found["d"].startswith("2026-01-02")


FURTHER = ("attention", "neurons", "residual_in", "residual_mid", "final")


def test_the_description_has_the_types_that_the_engine_has(home: Home) -> None:
    described: dict[str, dict[str, str]] = {}
    for row in Catalog(home).describe().to_pylist():
        assert row["description"]
        described.setdefault(row["view"], {})[row["column"]] = row["type"]
    assert list(described) == VIEWS
    # There as soon as there are such activations.
    for column in ("head_NN", "residual", "mlp", *FURTHER):
        assert described["activations"].pop(column) == "FLOAT[]"
    for view in VIEWS:
        engine = {row["column_name"]: row["column_type"] for row in rows(home, f"DESCRIBE {view}")}
        assert engine == described[view]


# Activations


def test_activations_are_readable_with_the_layer_as_a_column(home: Home) -> None:
    values = planted(6, layers=3, heads=2, width=4)
    write_activations(home, "m", values)
    found = rows(home, "SELECT * FROM activations ORDER BY layer, answer_id")
    assert len(found) == 6 * 3
    for index, row in enumerate(found):
        layer, sample = divmod(index, 6)
        assert (row["layer"], row["answer_id"], row["label"]) == (layer, f"a{sample}", sample % 2)
        assert row["head_00"] == values[sample, layer, 0].tolist()
        assert row["head_01"] == values[sample, layer, 1].tolist()
        assert (row["artifact"], row["module_kind"]) == ("m", "head")


def test_sql_on_activations_equals_numpy(home: Home) -> None:
    values = planted(10, layers=2, heads=3, width=4)
    write_activations(home, "m", values)
    sql = """
        SELECT label, avg(list_dot_product(head_02, head_02)) AS size
        FROM activations WHERE layer = 1 GROUP BY label ORDER BY label
    """
    squares = (values[:, 1, 2] ** 2).sum(axis=-1)
    found = [row["size"] for row in rows(home, sql)]
    np.testing.assert_allclose(found, [squares[0::2].mean(), squares[1::2].mean()])


def test_models_of_different_shapes_and_types_share_the_view(home: Home) -> None:
    small, large = planted(4, 2, 2, 4), planted(4, 1, 12, 6)
    write_activations(home, "small", small)
    write_activations(home, "large", large, "float32")
    sql = "SELECT head_00, head_11 FROM activations WHERE model = '{}' AND layer = 0 AND label = 0"
    of_small, of_large = rows(home, sql.format("small")), rows(home, sql.format("large"))
    assert [row["head_11"] for row in of_small] == [None, None]
    assert [row["head_00"] for row in of_small] == small[[0, 2], 0, 0].tolist()
    assert [row["head_11"] for row in of_large] == large[[0, 2], 0, 11].tolist()


def test_kinds_of_modules_share_the_view_each_in_columns_of_its_own(home: Home) -> None:
    heads, layers, mlps = planted(4, 2, 3, 4), planted(4, 2, 1, 6), planted(4, 2, 1, 6) + 1
    write_activations(home, "heads", heads)
    assert not {"residual", "mlp"} & rows(home, "SELECT * FROM activations")[0].keys()
    write_activations(home, "mlps", mlps, kind="mlp")
    write_activations(home, "layers", layers, "float32", "layer")
    names = [row["column_name"] for row in rows(home, "DESCRIBE activations")]
    assert names[6:] == [
        *("layer", "module_kind", "head_00", "head_01", "head_02", "residual", "mlp", "artifact")
    ]
    sql = """
        SELECT module_kind, head_02, residual, mlp FROM activations
        WHERE layer = 1 AND answer_id = 'a3' ORDER BY module_kind
    """
    none = {"head_02": None, "residual": None, "mlp": None}
    assert rows(home, sql) == [
        {"module_kind": "head"} | none | {"head_02": heads[3, 1, 2].tolist()},
        {"module_kind": "layer"} | none | {"residual": layers[3, 1, 0].tolist()},
        {"module_kind": "mlp"} | none | {"mlp": mlps[3, 1, 0].tolist()},
    ]


def test_a_damaged_shard_leaves_the_kinds_beside_it_whole(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    write_activations(home, "heads", planted(4, 2, 2, 2))
    write_activations(home, "layers", planted(4, 2, 1, 2), kind="layer")
    damaged = home.artifacts / "activations" / "heads" / "layer=01" / "shard-0000.parquet"
    damaged.write_bytes(b"no Parquet")
    sql = "SELECT count(residual) AS n FROM activations WHERE module_kind = 'layer'"
    assert rows(home, sql) == [{"n": 8}]
    sql = "SELECT count(head_00) AS n FROM activations WHERE module_kind = 'head'"
    assert rows(home, sql) == [{"n": 8 - 2}]  # a shard has two answers
    assert f"{damaged} is damaged" in caplog.text


def test_layers_beyond_ninety_nine_are_in_the_view(home: Home) -> None:
    values = planted(2, 126, 1, 1)
    write_activations(home, "m", values, kind="layer")
    found = rows(home, "SELECT layer, residual FROM activations WHERE label = 0 ORDER BY layer")
    assert [row["layer"] for row in found] == list(range(126))
    assert [row["residual"] for row in found] == values[0, :, 0].tolist()


def test_head_columns_are_in_the_order_of_heads(home: Home) -> None:
    write_activations(home, "m", planted(2, 1, 102, 1))
    names = [row["column_name"] for row in rows(home, "DESCRIBE activations")]
    assert names[8:-1] == [f"head_{head:02d}" for head in range(102)]


def test_unpublished_activations_are_not_shown(home: Home) -> None:
    write_activations(home, "m", planted(4, 1, 2, 2))
    (home.artifacts / "activations" / "m" / "manifest.json").unlink()
    assert rows(home, "SELECT count(*) AS n FROM activations") == [{"n": 0}]


@pytest.mark.parametrize("where", [0.3, 0.99])  # within the pages, and within the footer
def test_a_changed_bit_of_activations_takes_its_shard_alone_from_sql(
    home: Home, caplog: pytest.LogCaptureFixture, where: float
) -> None:
    values = planted(4, 2, 2, 40)
    write_activations(home, "m", values)
    write_activations(home, "n", values)
    damaged = home.artifacts / "activations" / "m" / "layer=01" / "shard-0000.parquet"
    content = bytearray(damaged.read_bytes())
    content[int(len(content) * where)] ^= 4
    damaged.write_bytes(content)
    sql = "SELECT artifact, layer, sum(list_sum(head_00)) AS s FROM activations GROUP BY ALL"
    found = {(row["artifact"], row["layer"]): row["s"] for row in rows(home, sql)}
    stored = values.astype(np.float16).astype(np.float64)
    sums = {(key, layer): stored[:, layer, 0].sum() for key in "mn" for layer in (0, 1)}
    assert found == pytest.approx(sums | {("m", 1): stored[2:, 1, 0].sum()}, rel=1e-4)
    assert f"{damaged} is damaged" in caplog.text


def test_a_query_that_does_not_read_damaged_pages_is_answered_from_all_files(home: Home) -> None:
    write_activations(home, "m", planted(4, 2, 2, 40))
    damaged = home.artifacts / "activations" / "m" / "layer=01" / "shard-0000.parquet"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 3] ^= 4
    damaged.write_bytes(content)
    assert rows(home, "SELECT count(head_00) AS n FROM activations WHERE layer = 0") == [{"n": 4}]


def test_damaged_activations_are_named_but_do_not_stop_other_queries(
    filled: Home, caplog: pytest.LogCaptureFixture
) -> None:
    write_activations(filled, "m", planted(4, 1, 2, 2))
    damaged = filled.artifacts / "activations" / "m" / "layer=00" / "shard-0000.parquet"
    damaged.write_bytes(b"no Parquet")
    assert len(rows(filled, "SELECT * FROM runs")) == 2
    assert rows(filled, "SELECT count(*) AS n FROM activations") == [{"n": 4 - 2}]
    assert f"{damaged} is damaged" in caplog.text


# Safety


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.csv").write_text("word\nswordfish\n")
    (folder / "secret.json").write_text(json.dumps([{"word": "swordfish"}]))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    yield folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "sql",
    [
        "COPY runs TO '{outside}/out.csv'",
        "WITH x AS (COPY runs TO '{outside}/out.csv') SELECT * FROM x",
        "EXPLAIN ANALYZE COPY runs TO '{outside}/out.csv'",
        "EXPLAIN ANALYZE WITH x AS (COPY runs TO '{outside}/out.csv') SELECT * FROM x",
        "EXPORT DATABASE '{outside}/export'",
        "IMPORT DATABASE '{outside}'",
        "ATTACH '{outside}/other.db'",
        "SELECT * FROM read_csv('{outside}/secret.csv')",
        "SELECT * FROM read_json('{outside}/secret.json')",
        "SELECT * FROM read_text('{outside}/secret.csv')",
        "SELECT * FROM read_blob('{outside}/secret.csv')",
        "SELECT * FROM sniff_csv('{outside}/secret.csv')",
        "SELECT * FROM '{outside}/secret.csv'",
        "SELECT * FROM '{outside}/secret.json'",
        "SELECT * FROM glob('{outside}/*')",
        "SELECT * FROM query('SELECT * FROM read_csv(''{outside}/secret.csv'')')",
        "SELECT * FROM read_parquet('{tables}/runs/r1.parquet')",
        "SELECT * FROM parquet_metadata('{tables}/runs/r1.parquet')",
        "SELECT * FROM '{tables}/runs/*.parquet'",
        "SELECT getenv('HOME')",
        "SELECT * FROM duckdb_secrets()",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD '{outside}/extension'",
        "SET enable_external_access = true",
        "SET GLOBAL lock_configuration = false",
        "RESET memory_limit",
        "PRAGMA memory_limit = '100GB'",
        "PRAGMA database_list",
        "CALL enable_logging(storage = 'file', storage_config = {{'path': '{outside}/logs'}})",
        "SELECT * FROM enable_logging('file')",
        "UPDATE EXTENSIONS",
        "SELECT '\ud800'",
        "SELECT '\0'",
        "SELECT " + "(" * 100_000 + "1" + ")" * 100_000,
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY runs TO '{outside}/out.csv'",
        "CREATE TABLE t (n INTEGER)",
        "INSERT INTO runs SELECT * FROM runs",
        "UPDATE runs SET status = 'failed'",
        "DELETE FROM runs",
        "DROP TABLE runs",
        "PREPARE p AS SELECT 1",
        "BEGIN",
        "CHECKPOINT",
        "",
        "-- nothing",
    ],
)
def test_nothing_can_be_changed_and_nothing_outside_reached(
    filled: Home, outside: Path, sql: str
) -> None:
    with pytest.raises(QueryError) as caught:
        rows(filled, sql.format(outside=outside, tables=filled.tables))
    assert "swordfish" not in str(caught.value)
    assert {row["status"] for row in rows(filled, "FROM runs")} == {"completed", "failed"}


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO runs SELECT * FROM runs",
        "DELETE FROM runs",
        "UPDATE runs SET status = 'failed'",
    ],
)
@pytest.mark.parametrize(
    "sql", ["WITH x AS ({change} RETURNING *) SELECT * FROM x", "EXPLAIN ANALYZE {change}"]
)
def test_a_change_hidden_in_a_reading_statement_is_refused(
    filled: Home, change: str, sql: str
) -> None:
    with pytest.raises(QueryError, match="would change a table; SQL here is read-only"):
        rows(filled, sql.format(change=change))
    assert rows(filled, "SELECT count(*) AS n FROM runs") == [{"n": 2}]


def test_the_refusal_says_what_is_possible(filled: Home) -> None:
    with pytest.raises(QueryError, match="found CREATE; SQL here is read-only.*SELECT"):
        rows(filled, "CREATE TABLE t (n INTEGER)")
    with pytest.raises(QueryError, match="found 2 statements; .*one statement at a time"):
        rows(filled, "SELECT 1; SELECT 2")
    with pytest.raises(QueryError, match="read-only"):
        rows(filled, "WITH x AS (COPY runs TO '/tmp/x.csv') SELECT * FROM x")


MODULE_SECRET = pa.table({"word": ["swordfish"]})


@pytest.mark.parametrize("name", ["local_secret", "MODULE_SECRET", "sql", "_source"])
def test_python_variables_are_no_tables(filled: Home, name: str) -> None:
    local_secret = MODULE_SECRET
    assert local_secret.num_rows == 1
    with pytest.raises(QueryError, match="does not exist"):
        rows(filled, f"SELECT * FROM {name}")


# Limits


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 7 = 3",
        "SELECT * FROM range(1000000000000)",
    ],
)
def test_a_query_is_stopped_after_its_time(home: Home, sql: str) -> None:
    with pytest.raises(QueryError, match=r"stopped after 0\.2 s.*--timeout"):
        rows(home, sql, timeout=0.2)
    assert not [thread for thread in threading.enumerate() if "watch" in thread.name]


def test_a_scan_of_activations_is_stopped_too(home: Home) -> None:
    write_activations(home, "m", planted(100, 1, 2, 4))
    tables = ", ".join(f"activations a{index}" for index in range(6))
    sql = f"SELECT count(*) FROM {tables} WHERE a0.head_00[1] + a5.head_01[1] > 1"
    with pytest.raises(QueryError, match="stopped"):
        rows(home, sql, timeout=0.2)


def test_a_result_that_is_too_large_is_refused(home: Home) -> None:
    with pytest.raises(QueryError, match="larger than 50 MB; add LIMIT"):
        Catalog(home, memory_mb=50).query("SELECT * FROM range(100000000)")


def test_a_query_that_needs_too_much_memory_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sql = "SELECT max(length(l)) FROM (SELECT list(i) AS l FROM range(90000000) t(i))"
    with pytest.raises(QueryError, match="more than 50 MB of memory"):
        Catalog(home, memory_mb=50).query(sql)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT levenshtein(repeat('a', 200000), repeat('b', 200000))",
        "SELECT length(repeat('x', 1900000000))",
        "SELECT count(*) FROM (SELECT unnest(range(50000000)), unnest(range(100000000)))",
        "SELECT list_sum(range(1000000000))",
    ],
)
def test_limits_bind_within_a_function_too(home: Home, sql: str) -> None:
    with pytest.raises(QueryError, match=r"stopped after 0\.5 s|MB of memory"):
        rows(home, sql, timeout=0.5)
    assert rows(home, "SELECT 1 AS a") == [{"a": 1}]


def test_a_query_that_is_given_up_ends_its_process(home: Home) -> None:
    with pytest.raises(KeyboardInterrupt), interrupted_after(1.0):
        rows(home, "SELECT levenshtein(repeat('a', 300000), repeat('b', 300000))", timeout=600)
    assert rows(home, "SELECT 1 AS a") == [{"a": 1}]


# Parameters


def test_parameters_are_values_and_never_sql(filled: Home) -> None:
    sql = "SELECT run_id FROM runs WHERE run_id = $run OR seed = $seed ORDER BY run_id"
    assert rows(filled, sql, parameters={"run": "r1", "seed": 7}) == [
        {"run_id": "r1"},
        {"run_id": "r2"},
    ]
    assert rows(filled, sql, parameters={"run": "r1' OR 1 = 1 --", "seed": None}) == []


def test_a_parameter_without_a_value_is_an_error(filled: Home) -> None:
    with pytest.raises(QueryError, match="run"):
        rows(filled, "SELECT $run FROM runs", parameters={"rnu": "r1"})


# Large tables, which are scanned where they lie


@pytest.fixture
def large(filled: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    answer_here(monkeypatch)
    monkeypatch.setattr(view_sources, "IN_MEMORY_BYTES", 0)
    write_table(filled, "samples", "s", [])
    return filled


def test_a_large_table_answers_as_a_small_one_does(
    large: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [
        "FROM runs ORDER BY run_id",
        "DESCRIBE runs",
        "SELECT model, count(*) AS n FROM runs WHERE behaviour = 'b' AND seed < 10 GROUP BY model",
        "SELECT run_id FROM runs WHERE model LIKE 'm%' AND run_id IN ('r2', 'r3')",
        "SELECT a.run_id FROM runs a JOIN runs b USING (model) WHERE b.seed = 7 ORDER BY ALL",
        "SELECT count(*) AS n FROM samples",
    ]
    scanned = [rows(large, sql) for sql in queries]
    monkeypatch.undo()
    assert [rows(large, sql) for sql in queries] == scanned


def test_large_tables_lack_no_column_that_old_parts_lack(large: Home) -> None:
    path = large.tables / "runs" / "r1.parquet"
    publish(pq.read_table(path).drop_columns(["git_commit", "seed"]), path)
    assert rows(large, "SELECT run_id, seed, git_commit FROM runs ORDER BY run_id") == [
        {"run_id": "r1", "seed": None, "git_commit": None},
        {"run_id": "r2", "seed": 7, "git_commit": None},
    ]


@pytest.mark.parametrize("place", ["page", "footer", "all"])
def test_a_damaged_part_of_a_large_table_is_left_out_by_name(
    large: Home, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = rows(large, "SELECT * FROM runs WHERE run_id <> 'r2'")
    path = large.tables / "runs" / "r2.parquet"
    content = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    ends = {"page": column.dictionary_page_offset + column.total_compressed_size, "footer": -8}
    if place == "all":
        content = bytearray(b"no Parquet")
    else:
        content[ends[place] - 2] ^= 8
    path.write_bytes(content)
    catalog = Catalog(large)
    assert catalog.query("SELECT * FROM runs").to_pylist() == before
    assert catalog.query("SELECT count(*) AS n FROM runs").to_pylist() == [{"n": len(before)}]
    assert "r2.parquet is damaged" in caplog.text


@pytest.mark.parametrize(
    "sql",
    [
        "COPY runs TO '{outside}/out.csv'",
        "WITH x AS (COPY runs TO '{outside}/out.csv') SELECT * FROM x",
        "WITH x AS (DELETE FROM runs RETURNING *) SELECT * FROM x",
        "SELECT * FROM read_parquet('{tables}/runs/r1.parquet')",
        "SELECT * FROM '{outside}/secret.csv'",
        "SET enable_external_access = true",
    ],
)
def test_large_tables_are_as_safe_as_small_ones(large: Home, outside: Path, sql: str) -> None:
    with pytest.raises(QueryError):
        rows(large, sql.format(outside=outside, tables=large.tables))
    assert rows(large, "SELECT count(*) AS n FROM runs") == [{"n": 2}]


def test_a_scan_of_a_large_table_is_stopped_after_its_time(large: Home) -> None:
    write_table(large, "runs", "many", [run("many")] * 2000)
    sql = "SELECT count(*) FROM runs a, runs b, runs c, runs d WHERE a.seed + d.seed > 90"
    with pytest.raises(QueryError, match="stopped"):
        rows(large, sql, timeout=0.2)


# Messages


def test_an_unknown_table_is_answered_with_the_views(filled: Home) -> None:
    with pytest.raises(QueryError) as caught:
        rows(filled, "SELECT * FROM rnus")
    assert "rnus does not exist" in str(caught.value)
    assert ", ".join(VIEWS) in str(caught.value)


def test_an_unknown_column_is_answered_with_the_engines_hint(filled: Home) -> None:
    with pytest.raises(QueryError, match=r'"rnu_id" not found(.|\n)*"run_id"'):
        rows(filled, "SELECT rnu_id FROM runs")


def test_a_slip_in_the_syntax_is_shown_where_it_is(filled: Home) -> None:
    with pytest.raises(QueryError, match=r'syntax error at or near "runs"(.|\n)*\^'):
        rows(filled, "SELECT run_id FORM runs")


def test_an_error_while_the_query_runs_is_passed_on(filled: Home) -> None:
    with pytest.raises(QueryError, match="Could not convert string 'r1' to INT32"):
        rows(filled, "SELECT run_id::INTEGER FROM runs")


def test_a_damaged_part_is_left_out_by_name(filled: Home, caplog: pytest.LogCaptureFixture) -> None:
    sound = rows(filled, "SELECT * FROM runs WHERE run_id <> 'r2'")
    (filled.tables / "runs" / "r2.parquet").write_bytes(b"no Parquet")
    assert rows(filled, "SELECT count(*) AS n FROM samples") == [{"n": 0}]
    assert rows(filled, "SELECT * FROM runs") == sound
    assert "r2.parquet is damaged" in caplog.text


def wrote(home: Home, run_id: str, *names: str, samples: str = "") -> None:
    """Leave what a completed run leaves, empty tables."""
    for name in names:
        write_table(home, name, run_id, [])
    if samples:
        write_table(home, "samples", samples, [])
    (home.runs / run_id).mkdir(parents=True, exist_ok=True)
    note_written(home, run_id, {run_id, samples})
    note_checksums(home, run_id)


TABLES_OF_EXPERIMENTS = ("evaluations", "comparisons", "stage_timings")


@pytest.mark.parametrize("table", ["runs", "samples", *TABLES_OF_EXPERIMENTS])
def test_a_file_of_a_completed_run_that_is_gone_is_missed_by_name(
    home: Home, caplog: pytest.LogCaptureFixture, table: str
) -> None:
    for run_id in ("r1", "r2", "going"):
        write_table(home, "runs", run_id, [run(run_id)])
        wrote(home, run_id, *TABLES_OF_EXPERIMENTS, samples=f"data-{run_id}")
    (home.runs / "going/SHA256SUMS").unlink()
    count = f"SELECT count(*) AS n FROM {table}"
    rows(home, count)
    assert caplog.text == ""
    for run_id in ("r1", "going"):
        part = f"data-{run_id}" if table == "samples" else run_id
        (home.tables / table / f"{part}.parquet").unlink()
    rows(home, count)
    (record,) = caplog.records
    assert f"the rows of the run r1 in {home.tables / table} are gone" in record.getMessage()
    assert f"real run {home.runs / 'r1' / 'config.yaml'}" in record.getMessage()
    rows(home, "SELECT count(*) AS n FROM answers")
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("table", "mend"), [("transfer", "`real transfer "), ("score_drift", "`real rescore`")]
)
def test_rows_that_are_gone_are_missed_with_the_command_that_makes_them(
    home: Home, caplog: pytest.LogCaptureFixture, table: str, mend: str
) -> None:
    wrote(home, "r1", table, "stage_timings")
    (home.tables / table / "r1.parquet").unlink()
    rows(home, f"SELECT count(*) AS n FROM {table}")
    assert f"the rows of the run r1 in {home.tables / table} are gone; {mend}" in caplog.text


@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b"\xff", b'{"evaluations": ["r3"]}'])
def test_a_damaged_record_of_what_was_written_accuses_nobody(
    home: Home, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    wrote(home, "r1", "evaluations")
    (home.runs / "r1/tables.json").write_bytes(content)
    rows(home, "SELECT count(*) AS n FROM evaluations")
    assert caplog.text == ""


def test_a_shard_of_activations_that_is_gone_is_missed_by_name(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    values = planted(4, 2, 1, 2)

    def write(folder: Path) -> dict[str, Any]:
        samples = [
            {name: "x" for name in ("model", "model_id", "behaviour", "question_id", "answer_id")}
            | {"label": 0}
        ] * 4
        write_shard(folder, 0, samples, values)
        return {}

    ArtifactStore(home).make("activations", "key", write)
    lost = home.artifacts / "activations" / "key" / "layer=01" / "shard-0000.parquet"
    lost.unlink()
    assert rows(home, "SELECT count(*) AS n FROM activations") == [{"n": 4}]
    assert f"{lost} is damaged (it is missing)" in caplog.text


# Concurrency


def publish_runs(root: str, name: str) -> None:
    for index in range(40):
        write_table(Home(Path(root)), "runs", f"{name}-{index}", [run(name, seed=index)] * 3)
        write_table(Home(Path(root)), "runs", f"{name}-last", [run(f"{name}-last", seed=index)] * 3)


def test_queries_hold_while_two_processes_write(home: Home) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [
        spawn.Process(target=publish_runs, args=(str(home.root), name)) for name in ("a", "b")
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        sql = "SELECT run_id, seed, count(*) AS n FROM runs GROUP BY ALL"
        assert all(row["n"] == 3 for row in rows(home, sql))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert rows(home, "SELECT count(*) AS n FROM runs") == [{"n": 2 * (40 + 1) * 3}]
