"""What is tried on `real sql`; names in braces are places of a trial."""

SECRETS = ("csv", "json", "parquet", "db")
REACHING = (
    *(f"FROM '{{outside}}/secret.{kind}'" for kind in SECRETS),
    *(f"FROM read_text('{{outside}}/secret.{kind}')" for kind in SECRETS),
    *(f"FROM read_blob('{{outside}}/secret.{kind}')" for kind in SECRETS),
    *(f"ATTACH '{{outside}}/{name}.db'" for name in ("secret", "new")),
    *(f"COPY runs TO '{{outside}}/to/x.{kind}'" for kind in ("csv", "json", "parquet")),
    *(f"COPY runs FROM '{{outside}}/secret.{kind}'" for kind in ("csv", "json", "parquet")),
    *(f"FROM '{{tables}}/{name}/*.parquet'" for name in ("runs", "evaluations")),
    "WITH x AS (COPY runs TO '{outside}/to/x.csv') FROM x",
    "EXPLAIN ANALYZE COPY runs TO '{outside}/to/x.csv'",
    "EXPLAIN ANALYZE WITH x AS (COPY runs TO '{outside}/to/x.csv') FROM x",
    "EXPORT DATABASE '{outside}/to/all'",
    "EXPORT DATABASE '{home}/all'",
    "IMPORT DATABASE '{outside}'",
    "FROM read_csv('{outside}/secret.csv')",
    "FROM read_csv(['{outside}/secret.csv', '/etc/passwd'], union_by_name = true)",
    "FROM read_json('{outside}/secret.json')",
    "FROM read_parquet('{outside}/secret.parquet')",
    "FROM parquet_metadata('{outside}/secret.parquet')",
    "FROM read_duckdb('{outside}/secret.db')",
    "FROM sniff_csv('{outside}/secret.csv')",
    "FROM glob('{outside}/*')",
    "FROM query('FROM read_text(''{outside}/secret.csv'')')",
    "FROM query_table('{outside}/secret.csv')",
    "FROM json_execute_serialized_sql(json_serialize_sql('FROM ''{outside}/secret.csv'''))",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "DESCRIBE FROM '{outside}/secret.csv'",
    "SUMMARIZE FROM '{outside}/secret.csv'",
    "PIVOT '{outside}/secret.csv' ON word",
    "SELECT getenv('HOME')",
    "SELECT getvariable('x')",
    "FROM 'https://localhost:1/x.csv'",
    "FROM 's3://bucket/x.parquet'",
    "FROM '/dev/stdin'",
    "FROM read_csv('/dev/zero')",
    "FROM read_text('/proc/self/environ')",
    *(f"INSTALL {name}" for name in ("httpfs", "sqlite FROM community", "'{outside}/x'")),
    *(f"LOAD {name}" for name in ("httpfs", "json", "'{outside}/x.duckdb_extension'")),
    "UPDATE EXTENSIONS",
    "FORCE INSTALL httpfs FROM 'http://localhost:1'",
    *(f"SET {one}" for one in ("enable_external_access = true", "threads = 1000", "x = 1")),
    *(f"SET GLOBAL {one}" for one in ("lock_configuration = false", "memory_limit = '1TB'")),
    *(f"SET {one} = '{{outside}}/to'" for one in ("temp_directory", "home_directory")),
    "SET VARIABLE x = (SELECT content FROM read_text('{outside}/secret.csv'))",
    *(f"RESET {one}" for one in ("memory_limit", "lock_configuration", "nothing")),
    *(f"PRAGMA {one}" for one in ("database_list", "memory_limit = '1TB'", "version", "nothing")),
    "PRAGMA enable_profiling = 'json'",
    "PRAGMA profiling_output = '{outside}/to/x.json'",
    "CALL enable_logging(storage = 'file', storage_config = {{'path': '{outside}/to'}})",
    "CALL pragma_version()",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "CREATE PERSISTENT SECRET s (TYPE s3)",
    "CREATE TABLE t AS FROM runs",
    "CREATE OR REPLACE TABLE runs AS SELECT 1",
    "CREATE VIEW v AS FROM '{outside}/secret.csv'",
    "CREATE MACRO m() AS TABLE FROM '{outside}/secret.csv'",
    "CREATE FUNCTION f(x) AS x",
    "CREATE SEQUENCE s",
    "CREATE TYPE t AS ENUM (SELECT content FROM read_text('{outside}/secret.csv'))",
    "CREATE SCHEMA s",
    *(
        f"{change} runs"
        for change in ("DELETE FROM", "TRUNCATE", "DROP TABLE", "VACUUM", "ANALYZE")
    ),
    "INSERT INTO runs FROM runs",
    "UPDATE runs SET status = 'failed'",
    "MERGE INTO runs USING runs AS r ON true WHEN MATCHED THEN DELETE",
    "WITH x AS (DELETE FROM runs RETURNING *) FROM x",
    "EXPLAIN ANALYZE DELETE FROM runs",
    "ALTER TABLE runs DROP COLUMN status",
    *("BEGIN", "COMMIT", "ROLLBACK", "CHECKPOINT", "DETACH memory", "USE memory"),
    *("PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE p"),
    "COMMENT ON TABLE runs IS 'x'",
    "SELECT 1; COPY runs TO '{outside}/to/x.csv'",
    "SELECT 1; ROLLBACK; DELETE FROM runs",
)
EXPENSIVE = (
    "SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 7 = 3",
    "FROM range(1000000000000)",
    "FROM range(100000000)",
    "SELECT i, i, i, i FROM range(20000000) t(i)",
    "FROM evaluations a, evaluations b, evaluations c",
    "SELECT count(*) FROM module_scores a, module_scores b, module_scores c",
    "SELECT repeat('x', 1900000000)",
    "SELECT repeat('x', 300000000)",
    "SELECT repeat('é', 50000000)",
    "SELECT repeat('x', 1000000) FROM range(500)",
    "SELECT length(repeat('x', 1900000000))",
    "SELECT list_sum(range(1000000000))",
    "SELECT range(50000000)",
    "SELECT range(1000000) FROM range(1000)",
    "SELECT list_sort(list_reverse(range(200000000)))[1]",
    "SELECT count(*) FROM (SELECT unnest(range(50000000)), unnest(range(100000000)))",
    "SELECT unnest(range(100000000)), unnest(range(100000000))",
    "SELECT levenshtein(repeat('a', 300000), repeat('b', 300000))",
    "SELECT damerau_levenshtein(repeat('a', 100000), repeat('b', 100000))",
    "SELECT jaro_winkler_similarity(repeat('ab', 500000), repeat('ba', 500000))",
    "SELECT regexp_matches(repeat('a', 10000000), '(a|aa)+$')",
    "SELECT regexp_replace(repeat('a', 50000000), 'a', 'bb', 'g')",
    "SELECT string_agg(repeat('x', 10000), '') FROM range(1000000)",
    "SELECT list(i) FROM range(1000000000) t(i)",
    "SELECT json_serialize_sql(repeat('x', 100000000))",
    "SELECT printf('%2000000000d', 1)",
    "SELECT lpad('x', 2000000000, 'y')",
    "SELECT bar(1, 0, 1, 1000000000)",
    "SELECT 10000::BIGNUM ** 100000",
    "SELECT factorial(100000)",
    "WITH RECURSIVE t AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM t) FROM t",
    "WITH RECURSIVE t AS (SELECT [1] AS i UNION ALL SELECT i || i FROM t) SELECT count(*) FROM t",
    "SELECT list_transform(range(100000000), x -> x + 1)",
    "SELECT list_reduce(range(100000000), (x, y) -> x + y)",
    "PIVOT (FROM range(100000) t(i)) ON i",
    "SELECT * FROM range(3) ORDER BY " + ", ".join(["random()"] * 2000),
    "SELECT sha256(repeat('x', 1500000000))",
    "SELECT map_from_entries([(i, i) FOR i IN range(5000000)])",
)
STRANGE = (
    *("", " ", ";", ";;", "--", "-- nothing", "/*", "/* /* */", "'", '"', "$$", "$x$", "(", "\\"),
    *(
        "@",
        "@top-heads",
        "@nobody",
        "@top-heads model=x k=²",
        "@top-heads model=x model=y",
        "@../x",
    ),
    *("SELECT", "SELEC 1", "FROM nowhere", "SELECT nothing FROM runs", "SELECT 1 +", "FROM"),
    *("SELECT $1", "SELECT $x", "SELECT ?", "SELECT 1; SELECT 2", "SELECT 'a' AS", "EXPLAIN"),
    *("SELECT '\0'", "SELECT 1 -- \0", "\0", "SELECT '\ud800'", "SELECT '\udcff'", "\udcff"),
    *(
        "SELECT '\u202e\u2066x'",
        "SELECT '\x1b[2J'",
        "SELECT '😀' AS \"\u200d\"",
        "SELECT 'a\u0301'",
    ),
    *('SELECT 1 AS "a\nb"', 'SELECT 1 AS ""', "SELECT 1 AS a, 2 AS a, 3 AS A", "\ufeffSELECT 1"),
    *(
        "ＳＥＬＥＣＴ 1",
        "SELECT\u00a01",
        "SELECT\u30001",
        "SELECT 1/0",
        "SELECT 0/0.0",
        "SELECT -0.0",
    ),
    "SELECT " + "(" * 100_000 + "1" + ")" * 100_000,
    "SELECT " + "1 + " * 100_000 + "1",
    "SELECT " + "-" * 1_001 + "1",
    "SELECT " + "NOT " * 100_000 + "true",
    "SELECT " + "[" * 5_000 + "1" + "]" * 5_000,
    "SELECT " + ", ".join(["1"] * 50_000),
    "SELECT " + ", ".join(f"1 AS c{number}" for number in range(3_000)),
    "FROM runs WHERE run_id IN (" + ", ".join(["'x'"] * 200_000) + ")",
    "FROM " + ", ".join(["runs"] * 1_000),
    " UNION ALL ".join(["SELECT 1"] * 20_000),
    "SELECT '" + "x" * 9_000_000 + "'",
    "SELECT '" + "x" * 11_000_000 + "'",
    "SELECT 1 AS " + "x" * 1_000_000,
    "SELECT CASE " + "WHEN true THEN 1 " * 50_000 + "END",
    "WITH " + ", ".join(f"t{n} AS (FROM t{n - 1})" for n in range(1, 2_000)) + " FROM t1999",
)
TYPED = (
    *(
        f"'{sign}infinity'::{kind}"
        for sign in ("", "-")
        for kind in ("DATE", "TIMESTAMP", "DOUBLE")
    ),
    *(f"'{text}'::DATE" for text in ("5877642-06-25 (BC)", "5881580-07-10", "0001-01-01 (BC)")),
    *(f"'290309-12-22 (BC) 00:00:00'::{kind}" for kind in ("TIMESTAMP", "TIMESTAMPTZ")),
    *(
        "'2262-04-11 23:47:16.854775806'::TIMESTAMP_NS",
        "'24:00:00'::TIME",
        "'10:00:00+15:59'::TIMETZ",
    ),
    *("INTERVAL '178956970 years'", "INTERVAL (-3) DAYS", "'101'::BIT", "'nan'::FLOAT", "uuid()"),
    *(f"{number}::HUGEINT" for number in (2**127 - 1, -(2**127) + 1)),
    *("(2::DOUBLE ** 128)::UHUGEINT", "18446744073709551615::UBIGINT", "9e37::DECIMAL(38, 0)"),
    *(
        "'\\x00\\xFF'::BLOB",
        "'12345678901234567890123456789012345678901'::BIGNUM",
        "NULL",
        "chr(0)",
    ),
    *("'a'::ENUM ('a', 'b')", "union_value(k := 1)", "{'a': {'b': [NULL]}}", "map {[1]: {'x': 2}}"),
    *("[INTERVAL 1 DAY, NULL]", "row(1, 'x')", "[[[]]]", "array_value(1.0, 2.0)", "'{}'::JSON"),
    *("1::VARIANT", "{'x': 'infinity'::DATE}", "map {'infinity'::DATE: 1}", "['nan'::DOUBLE]"),
    *("map {NULL::INTEGER[]: 1}", "{'': 1}", "[1, 2]::INTEGER[2]", "x -> x", "runs", "COLUMNS(*)"),
)
VALUES = {
    "VARCHAR": ("''", "'x'", "'%s'", "repeat('x', 100000000)", "NULL", "'runs'", "'('"),
    "BIGINT": ("0", "-1", "1000000000000", "9223372036854775807", "(-9223372036854775807 - 1)"),
    "INTEGER": ("0", "-1", "2147483647", "(-2147483647 - 1)"),
    "DOUBLE": ("'nan'::DOUBLE", "1e308", "'-infinity'::DOUBLE", "0.0"),
    "BLOB": ("'\\xFF'::BLOB", "''::BLOB", "repeat('x', 1000000)::BLOB"),
    "DATE": ("'infinity'::DATE", "'5881580-07-10'::DATE", "'0001-01-01 (BC)'::DATE"),
    "TIMESTAMP": ("'-infinity'::TIMESTAMP", "'290309-12-22 (BC)'::TIMESTAMP"),
    "INTERVAL": ("INTERVAL '178956970 years'", "INTERVAL (-1) MONTH"),
    "BIT": ("'1'::BIT", "'0'::BIT"),
    "UUID": ("uuid()",),
    "JSON": ("'{}'::JSON", "'[' ::VARCHAR"),
    "LAMBDA": ("x -> x", "(x, y) -> x"),
    "ANY": ("NULL", "1", "'x'", "[1]", "{'a': 1}", "map {1: 2}", "range(10000000)", "1e300"),
    "ANY[]": ("[]", "[NULL]", "range(10000000)", "['x']"),
    "T[]": ("[]", "range(100000000)", "[[1]]"),
}
ARGUMENTS: tuple[list[str], ...] = (
    *(
        ["SELECT 1", "--timeout", given]
        for given in ("nan", "0", "-1", "1e300", "inf", "x", "", "²")
    ),
    *(["SELECT 1", "--timeout", given] for given in ("1e-300", "86401", "0x10", "1_0", "3")),
    *(["SELECT 1", "--format", given] for given in ("xml", "", "parquet", "TABLE")),
    *(
        ["SELECT 1", "--to", f"{{outside}}/{name}.csv"]
        for name in ("secret", "folder", "link", "loop")
    ),
    *(["SELECT 1", "--force", "--to", f"{{outside}}/{name}.csv"] for name in ("folder", "link")),
    *(["SELECT 1", "--force", "--to", f"{{outside}}/{name}.csv"] for name in ("loop", "pipe")),
    ["SELECT 1", "--force", "--to", "{outside}/socket.csv"],
    *(
        ["SELECT 1", "--force", "--to", f"/dev/{name}", "--format", "csv"]
        for name in ("null", "full")
    ),
    *(
        ["SELECT 1", "--force", "--to", f"/dev/{name}", "--format", "csv"]
        for name in ("tty", "stdout")
    ),
    *(["SELECT 1", "--to", f"{{home}}/{name}"] for name in ("x.csv", "tables/x.csv", "no/x.csv")),
    *(["SELECT 1", "--to", f"{{tables}}/runs/{name}.parquet"] for name in ("x", "../../y", ".z")),
    *(["SELECT 1", "--to", f"{{outside}}/../home/{name}.json"] for name in ("x", "runs/x")),
    *(
        ["SELECT 1", "--to", f"{{outside}}/to/{name}"]
        for name in ("x", "x.exe", "no/x.csv", "é.csv")
    ),
    *(
        ["SELECT 1", "--to", f"{{outside}}/to/{name}.csv"]
        for name in ("x" * 300, "a/" * 3000, "\0")
    ),
    *(
        ["SELECT 1", "--to", f"{{outside}}/to/{name}.csv"]
        for name in ("\udcff", "\n", "-", "x\u202ey")
    ),
    *(["SELECT 1", "--to", name] for name in ("", ".", "/", "/proc/self/mem", "/proc/x.csv", "~/")),
    *(
        ["SELECT repeat('x', 300000000)", "--to", f"{{outside}}/to/x.{kind}"]
        for kind in ("csv", "parquet")
    ),
    *(["FROM range(100000000)", "--to", f"{{outside}}/to/x.{kind}"] for kind in ("csv", "parquet")),
    *(["SELECT 1 AS a, 2 AS a", "--to", f"{{outside}}/to/x.{kind}"] for kind in ("csv", "parquet")),
    *(
        ["SELECT 1", "--home", name]
        for name in ("", "{outside}/secret.csv", "{outside}/secret.csv/x")
    ),
    *(["SELECT 1", "--home", name] for name in ("x" * 5000, "\0", "/proc", "{outside}/loop.csv")),
    *(["--examples", name] for name in ("@top-heads", "../x", "", "@\0")),
    *(["--tables", name] for name in ("runs", "--format", "--to")),
    *(["--tables", "--to", f"{{outside}}/to/x.{kind}"] for kind in ("csv", "parquet", "json")),
    *(["--memory", given] for given in ("1", "-1", "nan")),
    *(["SELECT", "1"], ["@top-heads", "k"], ["@top-heads", "model"], ["@", "x"], ["--", "--all"]),
)
BYTES = (
    b"SELECT '\xff';",
    b"\xff\xfe\x00S\x00E",
    b"SELECT '\x00';",
    b"\x00" * 100_000,
    b"\x80" * 1_000_000,
    b"@top-heads 'x",
    b"@top-heads model=\xff",
    b"SELECT 1;" * 3 + b"SELECT",
    b"SELECT count(*) FROM (VALUES " + b"(1),\n" * 8_000 + b"(1));",
)
