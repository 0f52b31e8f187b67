import random
import statistics
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import rankdata, spearmanr

from storage.paths import Home
from storage.sql.catalog import Catalog
from storage.sql.queries import (
    UnknownQueryError,
    describe_queries,
    find_query,
    named_queries,
    parse_call,
)
from storage.tables.parquet import write_table
from storage.tables.schemas import TABLES

Rows = list[dict[str, Any]]
START = datetime(2026, 1, 1, tzinfo=UTC)
RUNS = ("r1", "r2", "r3")
BEHAVIOUR_OF = {"r1": "truth", "r2": "truth", "r3": "refusal"}
FOLDS, SEEDS, LAYERS, HEADS = 2, 2, 3, 4


def filled(home: Home, name: str, rows: Rows) -> None:
    """Write rows to the table, columns that they lack NULL."""
    for run in sorted({row["run_id"] for row in rows}):
        empty = dict.fromkeys(TABLES[name].schema.names)
        write_table(home, name, run, [empty | row for row in rows if row["run_id"] == run])


def ask(home: Home, name: str, **given: str) -> Rows:
    query = find_query(name)
    found: Rows = Catalog(home).query(query.sql, parameters=query.bind(given)).to_pylist()
    return found


def runs() -> Rows:
    return [
        {
            "run_id": run,
            "flow": "experiment",
            "started_at": START + timedelta(hours=place),
            "finished_at": None if run == "r3" else START + timedelta(hours=place, seconds=90),
            "status": "running" if run == "r3" else "completed",
            "model": "m",
            "model_id": "0",
            "behaviour": BEHAVIOUR_OF[run],
            "seed": 42,
            "config_digest": "d",
        }
        for place, run in enumerate(RUNS)
    ]


def scores(draw: random.Random) -> Rows:
    """Scores of two localizers, one of them without seeds; some are equal."""
    return [
        {
            "run_id": run,
            "model": "m",
            "model_id": "0",
            "behaviour": BEHAVIOUR_OF[run],
            "localizer": localizer,
            "protocol": "cross_fit",
            "fold": fold,
            "seed": seed,
            "module_kind": "head",
            "layer": layer,
            "head": head,
            "rank": draw.randint(1, LAYERS * HEADS),
            "score": round(draw.random(), 1),
        }
        for run in RUNS
        for localizer, seeds in (("real", SEEDS), ("iti", 1))
        for fold in range(FOLDS)
        for seed in range(seeds)
        for layer in range(LAYERS)
        for head in range(HEADS)
    ]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def scored(home: Home) -> tuple[Home, Rows]:
    rows = scores(random.Random(0))
    filled(home, "runs", runs())
    filled(home, "module_scores", rows)
    foreign = rows[0] | {"run_id": "x", "model": "foreign", "score": 9.0}
    filled(home, "module_scores", [foreign])
    return home, rows


def by(rows: Rows, *names: str) -> dict[Any, Rows]:
    groups: dict[Any, Rows] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


# The library


def test_every_query_is_described_and_runs_on_an_empty_home(home: Home) -> None:
    for name, query in named_queries().items():
        assert query.description.endswith(".")
        given = {parameter.name: "x" for parameter in query.parameters if parameter.required}
        assert ask(home, name, **given) == []
        assert all(parameter.description for parameter in query.parameters)


def test_the_sql_uses_every_parameter_that_is_declared() -> None:
    for query in named_queries().values():
        for parameter in query.parameters:
            assert f"${parameter.name}" in query.sql, query.name


def test_the_library_is_listed_with_its_parameters() -> None:
    rows = {row["query"]: row for row in describe_queries().to_pylist()}
    assert set(rows) == {f"@{name}" for name in named_queries()}
    lines = rows["@top-heads"]["parameters"].splitlines()
    assert lines[0].startswith("model=...: the language model")
    assert "[k=10]: how many heads of each model" in lines


def test_a_call_binds_values_of_the_declared_types_and_defaults() -> None:
    query, values = parse_call(["@top-heads", "model=a=b", "k=3"])
    assert query.name == "top-heads"
    defaults = {"behaviour": None, "localizer": "real", "model_id": None}
    assert values == defaults | {"model": "a=b", "k": 3}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["@top-haeds"], "no query is called 'top-haeds'; there are .*top-heads"),
        (["@top-heads"], r"missing: model; expected @top-heads model=\.\.\."),
        (["@top-heads", "model=m", "n=3"], "unknown: n"),
        (["@top-heads", "model=m", "k=few"], "found k=few, expected a whole number"),
        (["@top-heads", "m"], "found 'm', expected each parameter once as name=value"),
        (["@top-heads", "model=a", "model=b"], "found 'model=b'"),
    ],
)
def test_a_wrong_call_is_answered_with_what_is_expected(words: list[str], message: str) -> None:
    with pytest.raises(UnknownQueryError, match=message):
        parse_call(words)


def test_values_are_bound_and_never_become_sql(scored: tuple[Home, Rows]) -> None:
    home, _ = scored
    for value in ("m' OR 1 = 1 --", "m'; SELECT 1; --", "$localizer"):
        assert ask(home, "top-heads", model=value) == []


# Each query against a plain computation


def test_last_runs_are_the_latest_with_their_minutes(home: Home) -> None:
    filled(home, "runs", runs())
    found = ask(home, "last-runs", k="2")
    assert [row["run_id"] for row in found] == ["r3", "r2"]
    assert [row["minutes"] for row in found] == [None, 1.5]


def test_top_heads_are_means_over_runs_folds_and_seeds(scored: tuple[Home, Rows]) -> None:
    home, rows = scored
    wanted = [r for r in rows if r["localizer"] == "real" and r["behaviour"] == "truth"]
    expected = [
        (
            -statistics.fmean(r["score"] for r in group),
            *module,
            statistics.stdev(r["score"] for r in group),
            min(r["rank"] for r in group),
            max(r["rank"] for r in group),
            len(group),
        )
        for module, group in by(wanted, "layer", "head").items()
    ]
    found = ask(home, "top-heads", model="m", behaviour="truth", k="5")
    assert len(found) == 5
    for row, (score, layer, head, sd, best, worst, n) in zip(found, sorted(expected), strict=False):
        assert (row["layer"], row["head"], row["n"]) == (layer, head, n)
        assert (row["best_rank"], row["worst_rank"]) == (best, worst)
        assert (row["score"], row["sd"]) == (pytest.approx(-score), pytest.approx(sd))
    of_all = ask(home, "top-heads", model="m", localizer="iti", k="100")
    assert {row["n"] for row in of_all} == {len(RUNS) * FOLDS}
    assert len(of_all) == LAYERS * HEADS


def test_two_models_of_one_name_are_never_averaged(scored: tuple[Home, Rows]) -> None:
    home, rows = scored
    other = [row | {"run_id": "x", "model_id": "1", "score": row["score"] / 2} for row in rows]
    filled(home, "module_scores", other)
    alone = ask(home, "top-heads", model="m", k="5", model_id="0")
    found = ask(home, "top-heads", model="m", k="5")
    assert [row for row in found if row["model_id"] == "0"] == alone
    halves = [row["score"] for row in found if row["model_id"] == "1"]
    assert halves == pytest.approx([row["score"] / 2 for row in alone])
    shared = ask(home, "shared-heads", model="m", k="3")
    assert {row["model_id"] for row in shared} == {"0", "1"}
    assert [r for r in shared if r["model_id"] == "0"] == ask(
        home, "shared-heads", model="m", k="3", model_id="0"
    )


def test_the_agreement_of_localizers_equals_scipys(scored: tuple[Home, Rows]) -> None:
    home, rows = scored
    found = ask(home, "localizer-agreement", model="m", k="4")
    assert [(r["run_id"], r["fold"]) for r in found] == [
        (run, fold) for run in reversed(RUNS) for fold in range(FOLDS)
    ]
    for row in found:
        mine = [r for r in rows if (r["run_id"], r["fold"]) == (row["run_id"], row["fold"])]
        means = {
            localizer: {
                module: statistics.fmean(r["score"] for r in group if r["localizer"] == localizer)
                for module, group in by(mine, "layer", "head").items()
            }
            for localizer in ("real", "iti")
        }
        modules = sorted(means["real"])
        one, other = ([means[name][m] for m in modules] for name in ("real", "iti"))
        assert len(set(rankdata(other))) < len(modules)  # ties are put to the test
        best = [
            set(sorted(modules, key=lambda m: (-means[name][m], *m))[:4])  # noqa: B023
            for name in ("real", "iti")
        ]
        assert row["spearman"] == pytest.approx(spearmanr(one, other).statistic)
        assert row["shared"] == len(best[0] & best[1])
        assert row["modules"] == len(modules)
        assert row["behaviour"] == BEHAVIOUR_OF[row["run_id"]]


def test_the_agreement_may_be_asked_of_one_behaviour(scored: tuple[Home, Rows]) -> None:
    found = ask(scored[0], "localizer-agreement", model="m", behaviour="refusal")
    assert {row["run_id"] for row in found} == {"r3"}
    latest = ask(scored[0], "localizer-agreement", model="m", last="2")
    assert {row["run_id"] for row in latest} == {"r3", "r2"}


def test_modules_are_told_apart_by_what_is_read_and_what_steers(home: Home) -> None:
    both = {("iti", 0): 0.9, ("indirect_effect", 0): 0.5, ("iti", 1): 0.5, ("iti", 2): 0.9}
    both |= {("indirect_effect", 1): 0.4, ("indirect_effect", 2): 0.0, ("iti", 3): 0.9}
    plain = next(row for row in scores(random.Random(0)) if row["run_id"] == RUNS[0])
    rows = [
        plain
        | {"localizer": name, "head": head, "fold": fold, "score": number + shift}
        | {"roc_auc": number + shift if name == "iti" else None}
        for (name, head), number in both.items()
        for fold, shift in ((0, 0.05), (1, -0.05))
    ]
    filled(home, "runs", runs())
    filled(home, "module_scores", rows)
    found = ask(home, "steer-or-decode", model="m")
    told = [(r["head"], round(r["read_out"], 9), round(r["effect"], 9)) for r in found]
    assert told == [(0, 0.9, 0.5), (1, 0.5, 0.4), (2, 0.9, 0.0)]
    assert [r["verdict"] for r in found] == ["both", "steers only", "reads only"]


def test_shared_heads_are_the_best_of_several_behaviours(scored: tuple[Home, Rows]) -> None:
    home, rows = scored
    best = []
    for behaviour in ("refusal", "truth"):
        mine = [r for r in rows if r["localizer"] == "real" and r["behaviour"] == behaviour]
        means = {
            module: statistics.fmean(r["score"] for r in group)
            for module, group in by(mine, "layer", "head").items()
        }
        best.append({m: means[m] for m in sorted(means, key=lambda m: (-means[m], *m))[:7]})
    shared = {m: (best[0][m] + best[1][m]) / 2 for m in best[0].keys() & best[1].keys()}
    found = ask(home, "shared-heads", model="m", k="7")
    assert shared
    assert {(r["layer"], r["head"]): r["score"] for r in found} == pytest.approx(shared)
    assert all(r["behaviours"] == ["refusal", "truth"] for r in found)
    assert [r["score"] for r in found] == sorted((r["score"] for r in found), reverse=True)


def evaluations(draw: random.Random) -> Rows:
    settings = [("unsteered", None, None), ("real", 8, 2.0), ("real", 8, 4.0), ("iti", 4, 2.0)]
    return [
        {
            "run_id": run,
            "model": "m",
            "model_id": "0",
            "behaviour": BEHAVIOUR_OF[run],
            "method": method,
            "fold": fold,
            "seed": seed,
            "split": split,
            "top_k": top_k,
            "alpha": alpha,
            "token_scope": "all",
            "metric": metric,
            "value": draw.random(),
        }
        for run in RUNS
        for split in ("validation", "test")
        for method, top_k, alpha in settings
        if split == "validation" or alpha != 4.0
        for fold in range(FOLDS)
        for seed in range(1 if method == "unsteered" else SEEDS)
        for metric in ("mc1", "mc2", "kl")
        if not (method == "unsteered" and metric == "kl")
    ]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_gain_against_kl_equals_a_loop_over_folds_and_seeds(home: Home, split: str) -> None:
    rows = evaluations(random.Random(1))
    filled(home, "evaluations", rows)
    value = {
        (*(r[n] for n in ("run_id", "method", "alpha", "fold", "seed", "metric")),): r["value"]
        for r in rows
        if r["split"] == split
    }
    found = ask(home, "gain-against-kl", model="m", behaviour="truth", metric="mc2", split=split)
    doses = {("real", 2.0), ("iti", 2.0)} | ({("real", 4.0)} if split == "validation" else set())
    assert len(found) == 2 * len(doses)
    for row in found:
        alpha = row["alpha"] if split == "validation" else 2.0
        cells = [(f, s) for f in range(FOLDS) for s in range(SEEDS)]
        dose = row["run_id"], row["method"], alpha
        steered = [value[(*dose, f, s, "mc2")] for f, s in cells]
        before = [value[(row["run_id"], "unsteered", None, f, 0, "mc2")] for f, _ in cells]
        gains = [a - b for a, b in zip(steered, before, strict=True)]
        assert row["gain"] == pytest.approx(statistics.fmean(gains))
        assert row["value"] == pytest.approx(statistics.fmean(steered))
        kl = statistics.fmean(value[(*dose, f, s, "kl")] for f, s in cells)
        assert row["kl"] == pytest.approx(kl)
        assert row["n"] == len(cells)
    of_one = ask(home, "gain-against-kl", model="m", behaviour="truth", split=split, run_id="r2")
    assert {row["run_id"] for row in of_one} == {"r2"}


def test_test_metrics_are_means_and_deviations_of_one_run(home: Home) -> None:
    rows = evaluations(random.Random(2))
    filled(home, "evaluations", rows)
    mine = [r for r in rows if r["run_id"] == "r2" and r["split"] == "test"]
    expected = {
        key: [r["value"] for r in group] for key, group in by(mine, "method", "metric").items()
    }
    found = ask(home, "test-metrics", run_id="r2")
    assert {(r["method"], r["metric"]) for r in found} == set(expected)
    for row in found:
        values = expected[row["method"], row["metric"]]
        assert row["mean"] == pytest.approx(statistics.fmean(values))
        assert row["sd"] == pytest.approx(statistics.stdev(values))
        assert row["n"] == len(values)


def test_a_comparison_says_whether_its_interval_excludes_zero(home: Home) -> None:
    shared = {"run_id": "r1", "behaviour": "truth", "method": "real", "metric": "mc1"}
    rows = [
        shared | {"baseline": name, "basis": basis, "difference": 0.1, "low": low, "high": high}
        for name, basis, low, high in (
            ("iti", "tuned", 0.05, 0.2),
            ("all", "tuned", -0.3, -0.1),
            ("random", "tuned", -0.1, 0.3),
            ("iti", "matched_kl", 0.0, 0.2),
        )
    ]
    filled(home, "comparisons", [row | {"n_questions": 9} for row in rows])
    found = ask(home, "method-comparison", run_id="r1")
    assert {r["baseline"]: r["excludes_zero"] for r in found} == {
        "iti": True,
        "all": True,
        "random": False,
    }
    (equal,) = ask(home, "method-comparison", run_id="r1", basis="matched_kl")
    assert (equal["baseline"], equal["excludes_zero"]) == ("iti", False)


def test_the_leaderboard_has_the_last_run_s_methods_seen_from_each(home: Home) -> None:
    filled(home, "runs", runs())
    tested = {
        "model": "m",
        "model_id": "0",
        "behaviour": "truth",
        "seed": 0,
        "split": "test",
        "token_scope": "all",
    }
    values = {"real": (0.5, 0.7), "iti": (0.6, 0.8), "unsteered": (0.1, 0.3)}
    filled(
        home,
        "evaluations",
        [
            tested
            | {"run_id": run, "method": method, "fold": fold, "metric": "mc1", "value": value}
            for run in RUNS
            for method, of_folds in values.items()
            for fold, value in enumerate(of_folds)
        ],
    )
    shared = {"run_id": "r2", "behaviour": "truth", "metric": "mc1", "n_questions": 9}
    sides = [("real", "unsteered", 0.4), ("real", "iti", -0.1), ("iti", "unsteered", 0.5)]
    filled(
        home,
        "comparisons",
        [
            shared
            | {"method": one, "baseline": other, "basis": basis, "difference": value * times}
            | {"low": (value - 0.05) * times, "high": (value + 0.05) * times}
            for one, other, value in sides
            for basis, times in (("matched_kl", 1.0), ("tuned", 3.0))
        ],
    )
    about = {"run_id": "r2", "method": "iti", "scope": "all", "bounded": False, "bakes": True}
    times = {"fit_seconds": 3.0, "token_seconds": 0.3, "bare_token_seconds": 0.2}
    filled(home, "methods", [about | times])
    found = {row["method"]: row for row in ask(home, "leaderboard", behaviour="truth")}
    assert {row["run_id"] for row in found.values()} == {"r2"}
    assert {row["metric"] for row in found.values()} == {"mc1"}
    iti, real = found["iti"], found["real"]
    assert [iti[name] for name in ("gain", "own_method", "bakes")] == [0.5, "real", True]
    assert [iti[name] for name in ("difference", "low", "high")] == pytest.approx([0.1, 0.05, 0.15])
    assert iti["token_factor"] == pytest.approx(1.5)
    assert (real["gain"], real["own_method"], real["difference"]) == (0.4, None, None)
    assert [one["value"] for one in (iti, real)] == pytest.approx([0.7, 0.6])
    assert list(found) == ["iti", "real", "unsteered"]
    (first,) = {r["run_id"] for r in ask(home, "leaderboard", run_id="r1")}
    assert first == "r1" and not ask(home, "leaderboard", run_id="r3")


def drift_row(run: str, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run_id": run,
        "baseline_run_id": "b",
        "compared_run_id": "b",
        "model": "m",
        "model_id": "0",
        "behaviour": "truth",
        "localizer": "real",
        "method": "real",
        "module_kind": "head",
        "changed": True,
        "what_changed": "data",
        "exceeded": "",
        "data_questions": 5,
        "new_questions": 1,
        "gone_questions": 0,
        "spearman": 0.9,
    }
    return row | changes


def test_drift_is_told_over_time_where_something_was_new(home: Home) -> None:
    filled(home, "runs", runs())
    rows = [
        drift_row("r2", spearman=0.8),
        drift_row("r1", spearman=0.9),
        drift_row("r1", fold=0, seed=0, spearman=0.1),
        drift_row("r3", changed=False, what_changed="", spearman=None),
    ]
    filled(home, "score_drift", rows)
    found = ask(home, "drift", model="m")
    assert [(r["run_id"], r["spearman"]) for r in found] == [("r1", 0.9), ("r2", 0.8)]
    assert ask(home, "drift", localizer="iti") == []


def test_the_slowest_stages_leave_out_what_came_from_the_cache(home: Home) -> None:
    draw = random.Random(3)
    rows = [
        {
            "run_id": run,
            "stage": stage,
            "shard": f"{stage}-{shard}",
            "seconds": draw.random(),
            "cached": draw.random() < 0.4,
            "worker": "w",
            "device": "cpu" if stage == "scores" else None,
        }
        for run in RUNS
        for stage in ("scores", "pictures")
        for shard in range(5)
    ]
    filled(home, "stage_timings", rows)
    for given in ({}, {"run_id": "r2"}):
        found = ask(home, "slowest-stages", **given)
        for row in found:
            mine = [r for r in rows if r["stage"] == row["stage"]]
            mine = [r for r in mine if r["run_id"] == given.get("run_id", r["run_id"])]
            worked = {r["shard"]: r["seconds"] for r in mine if not r["cached"]}
            seconds = [r["seconds"] for r in mine if not r["cached"]]
            assert (row["shards"], row["from_cache"]) == (len(mine), len(mine) - len(seconds))
            assert row["seconds"] == pytest.approx(sum(seconds))
            assert row["longest"] == pytest.approx(max(seconds))
            assert row["longest_shard"] in worked
        assert found[0]["seconds"] >= found[1]["seconds"]


def test_answers_changed_are_those_with_another_verdict(home: Home) -> None:
    draw = random.Random(4)
    verdicts = ("true", "false", "neither")
    rows = [
        {
            "run_id": "r1",
            "method": method,
            "fold": fold,
            "seed": seed,
            "question_id": f"q{question}",
            "question": f"{question}?",
            "generation": f"{method} {seed}",
            "verdict": draw.choice(verdicts),
        }
        for method, seeds in (("unsteered", 1), ("real", 2), ("iti", 2))
        for seed in range(seeds)
        for fold in range(2)
        for question in range(4)
    ]
    filled(home, "answers", rows)
    before = {
        (r["fold"], r["question_id"]): r["verdict"] for r in rows if r["method"] == "unsteered"
    }
    expected = {
        (r["question_id"], r["fold"], r["seed"], before[r["fold"], r["question_id"]], r["verdict"])
        for r in rows
        if r["method"] == "real" and r["verdict"] != before[r["fold"], r["question_id"]]
    }
    found = ask(home, "answers-changed", run_id="r1")
    names = ("question_id", "fold", "seed", "verdict_before", "verdict_after")
    assert {tuple(r[name] for name in names) for r in found} == expected
    assert len(found) == len(expected) > 0
    assert all(r["answer_before"] == "unsteered 0" for r in found)


def test_the_transfer_matrix_is_of_the_last_run_and_over_folds(home: Home) -> None:
    cells = [
        {
            "run_id": run,
            "model": "m",
            "model_id": "0",
            "source": source,
            "target": target,
            "method": "real",
            "fold": fold,
            "metric": metric,
            "steered": 0.6,
            "unsteered": 0.5,
            "gain": 0.1 if run == "t1" else 0.2,
            "n_questions": 3,
            "n_excluded": 0,
        }
        for run in ("t1", "t2")
        for source in "ab"
        for target in "ab"
        for fold in (None, 0)
        for metric in ("mc1", "mc2")
    ]
    filled(home, "transfer", cells)
    for given, gain in (({}, 0.2), ({"run_id": "t1"}, 0.1)):
        found = ask(home, "transfer-matrix", **given)
        assert [(r["source"], r["target"]) for r in found] == [
            (source, target) for source in "ab" for target in "ab"
        ]
        assert {r["gain"] for r in found} == {gain}
