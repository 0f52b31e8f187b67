from collections.abc import Mapping
from typing import Any

import pytest

from real_tasks.experiment.methods.known import known_methods
from real_tasks.questions.folds import fold_of_questions
from real_tasks.results.rows import (
    answer_rows,
    columns,
    comparison_rows,
    evaluation_rows,
    method_rows,
    sample_rows,
    score_rows,
    selected_rows,
)
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import LocalizerResult, ModuleId, ModuleScore
from storage.tables.rows import to_table
from storage.tables.schemas import TABLES
from tests.unit.tiny_models import random_data

DATA = random_data(n_questions=6)
RUN = {"run_id": "r", "model": "m", "model_id": "0", "behaviour": "b"}


METRICS = ("mc1", "mc0", "mc2", "mc3", "true_share", "false_share")


def measurement(mc1: Mapping[int, float], kl: float = 0.01) -> dict[str, Any]:
    """A test measurement: the other metrics are `mc1` plus what tells them apart."""
    per_question = {
        metric: [value + place / 10 for value in mc1.values()]
        for place, metric in enumerate(METRICS)
    }
    means = {name: sum(values) / len(values) for name, values in per_question.items()}
    return {
        "questions": list(mc1),
        "per_question": per_question,
        "generations": [f"said {question}" for question in mc1],
        "verdicts": ["true", "false", "neither"][: len(mc1)],
        "cross_entropy": 2.0,
        "kl": kl,
        "metrics": means | {"cross_entropy": 2.0, "kl": kl},
    }


def evaluation(
    mc1: Mapping[int, float], matched: Mapping[int, float] | None = None
) -> dict[str, Any]:
    """What a method's evaluation is on disk."""
    module = {"kind": "head", "layer": 2, "head": 3}
    return {
        "top_k": 4,
        "alpha": 1.5,
        "validation": [
            {"top_k": 4, "alpha": 1.5, "metrics": {"mc1": 0.5, "kl": 0.01, "cross_entropy": 2.0}},
            {"top_k": 4, "alpha": 9.0, "metrics": {"kl": 0.9, "cross_entropy": 3.0}},
        ],
        "test": measurement(mc1),
        "matched": None if matched is None else measurement(matched),
        "selected": [{"module": module, "rank": 1, "score": 0.9, "strength": 1.0}],
    }


def unsteered() -> dict[str, Any]:
    nothing = {"top_k": None, "alpha": None}
    metrics = {"mc1": 0.5, "kl": 0.0}
    changed = {"validation": [nothing | {"metrics": metrics}], "selected": []}
    return evaluation({0: 0.0}) | nothing | changed


def fits(table: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Complete the rows with the run's columns and let the schema check them."""
    own = {name: value for name, value in RUN.items() if name in TABLES[table].schema.names}
    found: list[dict[str, Any]] = to_table(table, columns(rows, **own)).to_pylist()
    return found


def test_sample_rows_fit_their_table_and_tell_the_fold_of_every_answer() -> None:
    found = to_table("samples", sample_rows(DATA, 2)).to_pylist()
    assert len(found) == sum(len(question.answers) for question in DATA.questions)
    folds = dict(
        zip((q.question_id for q in DATA.questions), fold_of_questions(range(6), 2), strict=True)
    )
    assert all(row["fold"] == folds[row["question_id"]] for row in found)
    assert {row["behaviour"] for row in found} == {DATA.name}
    by_id = {answer.answer_id: answer for q in DATA.questions for answer in q.answers}
    for row in found:
        answer = by_id[row["answer_id"]]
        expected = (answer.text, answer.label, answer.is_best)
        assert (row["answer"], row["label"], row["is_best"]) == expected


def test_score_rows_fit_their_table_best_first() -> None:
    scores = tuple(
        ModuleScore(ModuleId("head", 0, head), score, roc_auc=score, collapsed=False)
        for head, score in enumerate((0.5, 0.9, 0.7))
    )
    found = fits("module_scores", score_rows("real", 1, 7, LocalizerResult("cross_fit", scores)))
    assert [(row["head"], row["rank"]) for row in found] == [(1, 1), (2, 2), (0, 3)]
    assert {(row["localizer"], row["fold"], row["seed"]) for row in found} == {("real", 1, 7)}
    assert found[0]["protocol"] == "cross_fit"
    assert found[0]["roc_auc"] == 0.9 and found[0]["perplexity"] is None


def test_a_layer_module_has_no_head_in_the_tables() -> None:
    scores = (ModuleScore(ModuleId("layer", 2), 0.5),)
    found = fits("module_scores", score_rows("x", 0, 0, LocalizerResult("none", scores)))
    assert (found[0]["module_kind"], found[0]["layer"], found[0]["head"]) == ("layer", 2, None)


def test_selected_rows_fit_their_table() -> None:
    found = fits("selected_modules", selected_rows("real", 0, 1, evaluation({0: 1.0})))
    assert found == [
        {
            "run_id": "r",
            "method": "real",
            "fold": 0,
            "seed": 1,
            "module_kind": "head",
            "layer": 2,
            "head": 3,
            "rank": 1,
            "score": 0.9,
            "strength": 1.0,
        }
    ]
    assert selected_rows("unsteered", 0, 1, unsteered()) == []


def test_evaluation_rows_hold_every_metric_of_every_setting_once() -> None:
    found = fits("evaluations", evaluation_rows("real", 0, 1, "all", evaluation({0: 1.0, 4: 0.0})))
    keys = [(row["split"], row["top_k"], row["alpha"], row["metric"]) for row in found]
    assert len(set(keys)) == len(keys) == 3 + 2 + 8
    values = dict(zip(keys, (row["value"] for row in found), strict=True))
    assert values["validation", 4, 9.0, "kl"] == 0.9
    assert ("validation", 4, 9.0, "mc1") not in values
    assert values["test", 4, 1.5, "mc1"] == 0.5
    assert values["test", 4, 1.5, "mc0"] == pytest.approx(0.6)


def test_the_unsteered_model_has_neither_k_nor_alpha_in_the_tables() -> None:
    found = fits("evaluations", evaluation_rows("unsteered", 0, 1, "all", unsteered()))
    assert {(row["top_k"], row["alpha"]) for row in found} == {(None, None)}
    assert {row["split"] for row in found} == {"validation", "test"}


def test_answer_rows_fit_their_table_and_name_the_question() -> None:
    rows = answer_rows("real", 1, 2, DATA, evaluation({5: 1.0, 3: 0.0}))
    found = fits("answers", rows)
    assert [row["question_id"] for row in found] == ["q5", "q3"]
    assert [row["question"] for row in found] == [DATA.questions[i].text for i in (5, 3)]
    assert [row["generation"] for row in found] == ["said 5", "said 3"]
    assert [row["verdict"] for row in found] == ["true", "false"]


def test_comparison_rows_compare_like_with_like_on_both_bases() -> None:
    ours = evaluation({0: 1.0, 1: 1.0}, matched={0: 0.5, 1: 0.5})
    theirs = evaluation({0: 0.0, 1: 0.5}, matched={0: 0.5, 1: 0.0})
    rows = comparison_rows("real", {"real": [ours], "iti": [theirs]}, 100)
    found = {(row["basis"], row["metric"]): row for row in fits("comparisons", rows)}
    assert len(rows) == 2 * len(METRICS) == len(found)
    assert found["tuned", "mc1"]["difference"] == pytest.approx(0.75)
    assert found["matched_kl", "mc1"]["difference"] == pytest.approx(0.25)
    assert {(row["method"], row["baseline"]) for row in rows} == {("real", "iti")}
    assert {row["n_questions"] for row in rows} == {2}


def test_a_dose_that_cannot_be_matched_leaves_no_row() -> None:
    ours = evaluation({0: 1.0}, matched={0: 0.5})
    out_of_reach = evaluation({0: 0.0}, matched=None)
    rows = comparison_rows("real", {"real": [ours], "iti": [out_of_reach]}, 10)
    assert {row["basis"] for row in rows} == {"tuned"}
    assert len(rows) == len(METRICS)


def test_only_metrics_that_every_result_has_are_compared() -> None:
    ours, theirs = evaluation({0: 1.0, 1: 0.5}), evaluation({0: 0.5, 1: 0.5})
    del theirs["test"]["per_question"]["mc2"]
    rows = comparison_rows("real", {"real": [ours], "iti": [theirs]}, 10)
    assert {row["metric"] for row in rows} == set(METRICS) - {"mc2"}


def test_where_nothing_is_generated_there_are_no_answers() -> None:
    silent = evaluation({0: 1.0})
    silent["test"] |= {"generations": [], "verdicts": []}
    assert answer_rows("real", 0, 0, DATA, silent) == []


def test_every_method_is_compared_with_the_unsteered_model_as_it_is_on_both_bases() -> None:
    methods = {
        "real": [evaluation({0: 1.0}, matched={0: 0.5})],
        "unsteered": [evaluation({0: 0.25}, matched=None)],
        "iti": [evaluation({0: 0.75}, matched={0: 0.0})],
    }
    found = {
        (row["method"], row["baseline"], row["basis"], row["metric"]): row["difference"]
        for row in comparison_rows("real", methods, 10)
    }
    for method, tuned, matched in (("real", 0.75, 0.25), ("iti", 0.5, -0.25)):
        assert found[method, "unsteered", "tuned", "mc1"] == pytest.approx(tuned)
        assert found[method, "unsteered", "matched_kl", "mc1"] == pytest.approx(matched)
    assert {key[3] for key in found if key[0] == "iti"} == {"mc1", "mc2", "true_share"}
    assert {key[3] for key in found if key[:2] == ("real", "unsteered")} == set(METRICS)


def test_a_method_s_row_has_the_means_of_what_its_evaluations_noted() -> None:
    noted = [
        {"fit_seconds": 1.0, "token_seconds": 0.2, "bare_token_seconds": 0.1, "bakes": True},
        {"fit_seconds": 3.0},  # nothing is steered in this fold
    ]
    facts = {"iti": noted, "unsteered": [{"fit_seconds": 0.0}]}
    methods = [known_methods(ExperimentConfig())[name].columns for name in facts]
    steered, bare = fits(
        "methods",
        [
            {"run_id": "r", **row}
            for row in method_rows(methods, dict.fromkeys(facts, ""), (), facts)
        ],
    )
    assert (steered["fit_seconds"], steered["token_seconds"], steered["bakes"]) == (2.0, 0.2, True)
    assert bare["bakes"] is None and bare["token_seconds"] is None


def test_folds_and_seeds_of_a_method_are_taken_together() -> None:
    ours = [evaluation({0: 1.0}), evaluation({1: 0.0}), evaluation({0: 0.0}), evaluation({1: 0.0})]
    theirs = [evaluation({0: 0.0}), evaluation({1: 0.0})]
    rows = comparison_rows("real", {"real": ours, "iti": theirs}, 10)
    mc1 = next(row for row in rows if row["metric"] == "mc1")
    assert (mc1["difference"], mc1["n_questions"]) == (pytest.approx(0.25), 2)


def test_a_method_that_was_not_evaluated_is_not_compared() -> None:
    assert comparison_rows("real", {"iti": [evaluation({0: 1.0})]}, 10) == []


def test_columns_are_added_to_every_row_and_do_not_hide_what_it_has() -> None:
    assert columns([{"a": 1}, {"a": 2, "b": 0}], b=9) == [{"a": 1, "b": 9}, {"a": 2, "b": 0}]
