import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import duckdb
import pytest
from matplotlib.figure import Figure

from real_tasks.report.contents import (
    AnswerPair,
    answer_pairs,
    answer_sample,
    default_queries,
    top_modules,
    verdict_changes,
)
from real_tasks.report.figures.picture import Picture
from real_tasks.report.figures.style import png_bytes
from real_tasks.report.page import ReportContent, duration, render_report
from real_tasks.results.summary import result_table
from tests.unit.synthetic_results import (
    comparison,
    curve_rows,
    evaluation_rows,
    score_rows,
    selected_rows,
)

SCORES = score_rows(2, 3)
RESULTS = result_table(evaluation_rows([row for row in curve_rows() if row["alpha"] == 1.2]))
VOID_TAGS = {"meta", "img", "br"}


def answer(method: str, question: int, seed: int, verdict: str) -> dict[str, Any]:
    return {
        "method": method,
        "fold": question % 2,
        "seed": seed,
        "question_id": f"q{question}",
        "question": f"what is {question} ?",
        "generation": f"{method} says {question}",
        "verdict": verdict,
    }


ANSWERS = [answer("unsteered", i, 0, "false") for i in range(6)] + [
    answer("real", i, seed, "true" if i else "neither") for i in range(6) for seed in range(2)
]


def full_content() -> ReportContent:
    pairs = answer_pairs(ANSWERS, "real")
    return ReportContent(
        title="REAL on the demo",
        facts={"run": "r1", "device": "cpu"},
        results=RESULTS,
        max_kl=0.05,
        matched_kl=0.02,
        token_scope="all",
        comparisons=[comparison("iti", 0.01, 0.02)],
        pictures=[Picture("map", "A map", "How to read it.", "A map.", png_bytes(Figure((4, 3))))],
        top_modules=top_modules(SCORES, selected_rows(SCORES, 2), "real"),
        answers=answer_sample(pairs, 4),
        verdict_changes=verdict_changes(pairs),
        config_yaml="model:\n  path: demo\n",
        stage_seconds={"extract": 1.2, "localize": 64.0},
        versions={"torch": "2.13.0"},
        queries=default_queries("r1"),
        paths={"store": "/somewhere/artifacts"},
        warnings=["mind the gap"],
    )


class Page(HTMLParser):
    """Collects links, ids and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.targets: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.targets += [str(values[name]) for name in ("src", "href") if name in values]
        self.ids += [str(values["id"])] if "id" in values else []
        self.images += [values] if tag == "img" else []
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_well_formed_file_that_asks_for_nothing() -> None:
    html = render_report(full_content())
    page = Page(html)
    assert page.open == []
    assert not page.tags & {"script", "link", "iframe"}
    assert "@import" not in html and "url(" not in html
    for target in page.targets:
        assert target.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"https?://", html)


def test_every_link_of_the_contents_leads_somewhere_and_pictures_have_alternatives() -> None:
    for content in (full_content(), replace(full_content(), pictures=(), answers=())):
        page = Page(render_report(content))
        links = [target[1:] for target in page.targets if target.startswith("#")]
        assert links and set(links) <= set(page.ids)
        assert len(set(page.ids)) == len(page.ids)
        assert all(image["alt"] and image["width"] == "400" for image in page.images)


def test_text_from_the_model_and_the_configuration_is_escaped() -> None:
    evil = "<script>alert('x')</script> & <b>"
    pair = AnswerPair(evil, evil, "false", evil, "true")
    content = replace(
        full_content(),
        answers=[pair],
        config_yaml=evil,
        title=evil,
        facts={"run": evil},
        warnings=[evil],
    )
    html = render_report(content)
    assert "<script" not in html and "<b>" not in html
    assert html.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &lt;b&gt;") >= 7


def test_the_report_says_tie_when_the_interval_includes_zero_and_ahead_when_not() -> None:
    tie = render_report(full_content())
    assert "REAL and ITI tie" in tie and "is ahead of ITI" not in tie
    win = render_report(replace(full_content(), comparisons=[comparison("iti", 0.1, 0.02)]))
    assert "REAL is ahead of ITI" in win and "REAL and ITI tie" not in win


def test_the_report_has_the_numbers_the_configuration_and_the_ways_on() -> None:
    html = render_report(full_content())
    for text in (
        "mind the gap",
        f"{RESULTS[1]['mc1']:.2f}",
        "path: demo",
        "1 min 04 s",
        "1 min 05 s",
        "torch 2.13.0",
        'real sql "SELECT',
        "/somewhere/artifacts",
        "cap on KL of 0.05 nats/token",
        "<code>all</code> (prompt and answer)",
    ):
        assert text in html


def test_a_report_with_nothing_but_facts_can_be_made() -> None:
    html = render_report(
        ReportContent("empty", {"run": "r1"}, [], max_kl=0.05, matched_kl=0.02, token_scope="last")
    )
    page = Page(html)
    assert page.images == [] and "There are no results" in html
    assert {target[1:] for target in page.targets} <= set(page.ids)


def test_answers_are_paired_by_fold_and_question_even_if_the_unsteered_have_one_seed() -> None:
    pairs = answer_pairs(ANSWERS, "real")
    assert len(pairs) == 12
    for pair in pairs:
        number = pair.question.split()[2]
        assert (pair.before, pair.after) == (f"unsteered says {number}", f"real says {number}")
    assert verdict_changes(pairs) == {("false", "true"): 10, ("false", "neither"): 2}


def test_the_sample_of_answers_has_each_question_once_and_is_the_same_again() -> None:
    pairs = answer_pairs(ANSWERS, "real")
    sample = answer_sample(pairs, 4)
    assert len({pair.question for pair in sample}) == len(sample) == 4
    assert sample == answer_sample(pairs, 4)
    assert len(answer_sample(pairs, 100)) == 6
    assert answer_sample([], 3) == []


def test_top_modules_are_those_with_the_highest_mean_over_folds_and_seeds() -> None:
    rows = top_modules(SCORES, selected_rows(SCORES, 2), "real", 3)
    first = rows[0]
    values = [
        row["score"]
        for row in SCORES
        if (row["localizer"], row["layer"], row["head"]) == ("real", 1, 2)
    ]
    assert (first["layer"], first["head"], first["n"]) == (1, 2, 4)
    assert first["score"] == pytest.approx(sum(values) / 4)
    assert (first["n_selected"], first["best_rank"], first["worst_rank"]) == (4, 1, 1)
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)


def test_the_queries_are_valid_sql_over_the_views_whatever_the_run_is_called() -> None:
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE evaluations (run_id TEXT, method TEXT, fold INT, seed INT, split TEXT, "
        "metric TEXT, value DOUBLE)"
    )
    connection.execute("CREATE TABLE runs (run_id TEXT, started_at TIMESTAMP)")
    connection.execute(
        "CREATE TABLE module_scores (run_id TEXT, localizer TEXT, fold INT, seed INT, layer INT, "
        "head INT, score DOUBLE, rank INT)"
    )
    connection.execute(
        "CREATE TABLE selected_modules (run_id TEXT, method TEXT, fold INT, seed INT, layer INT, "
        "head INT)"
    )
    connection.execute(
        "CREATE TABLE answers (run_id TEXT, method TEXT, question TEXT, generation TEXT, "
        "verdict TEXT)"
    )
    connection.execute("INSERT INTO evaluations VALUES ('r''1', 'real', 0, 0, 'test', 'mc1', 0.5)")
    queries = default_queries("r'1")
    found = {what: connection.execute(sql).fetchall() for what, sql in queries.items()}
    assert found["Test metrics of every method"] == [("real", "mc1", 0.5, None)]
    assert not any('"' in sql or "$" in sql for sql in queries.values())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (12.2, "12 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_leaderboard_comes_first_and_metrics_stand_on_two_lines() -> None:
    page = render_report(replace(full_content(), leaderboard=(["method"], [["REAL ahead of all"]])))
    assert page.index("REAL ahead of all") < page.index("All metrics") < page.index("<h2>Pictures")
    assert "bounded: no strength of it costs that KL" in page
    assert "All metrics" not in render_report(full_content())
