import math
import random
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from flows.transfer import transfer
from real_tasks.evaluation.gain import OBJECTIVE
from real_tasks.evaluation.transfer import (
    LeakFree,
    TransferCell,
    leak_free_questions,
    transfer_rows,
)
from real_tasks.experiment.commented import commented_yaml
from real_tasks.experiment.prepared import handing_over
from real_tasks.experiment.transfer import (
    behaviour_labels,
    check_transfer,
    prepared_transfer_for,
    resolved_transfer,
    source_experiment,
)
from real_tasks.experiment.yaml_files import (
    load_config,
    load_prepared_transfer,
    load_transfer_config,
)
from real_tasks.questions.folds import split
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig, TransferConfig
from real_tasks.vocabulary.types import Answer, BehaviourData, FoldSplit, Question
from storage.tables.rows import to_table

BOTH = (
    PlugIn(name="demo_truth"),
    PlugIn(name="demo_truth", params={"world_seed": 1}),
)
DEMO_TRANSFER = TransferConfig(behaviours=BOTH)


def question(number: int, text: str, *alternates: str) -> Question:
    answers = (Answer(f"{number}a", "yes", 1, is_best=True), Answer(f"{number}b", "no", 0))
    others = tuple(question(number, other) for other in alternates)
    return Question(f"q{number}", text, "any", answers, alternates=others)


def behaviour(*texts: str) -> BehaviourData:
    questions = tuple(question(number, text) for number, text in enumerate(texts))
    return BehaviourData("any", questions, ("neutral",), measures=("multiple_choice",))


def cell(values: dict[str, list[float]], **changes: Any) -> TransferCell:
    """A cell on the questions 0, 1, ... whose unsteered values are all 0."""
    questions = list(range(len(next(iter(values.values())))))
    nothing = {name: [0.0] * len(questions) for name in values}
    found: dict[str, Any] = {
        "questions": {"kept": questions, "excluded": []},
        "steered": {"questions": questions, "per_question": values},
        "unsteered": {"questions": questions, "per_question": nothing},
    }
    which = {"source": "a", "target": "b", "fold": 0, "seed": 0}
    told = {name: changes.pop(name) for name in which if name in changes}
    return TransferCell(**(which | told), found=found | changes)


def pooled(rows: list[dict[str, Any]], metric: str = "m") -> dict[str, Any]:
    (row,) = [row for row in rows if row["fold"] is None and row["metric"] == metric]
    return row


def test_a_test_question_that_the_source_was_found_or_tuned_on_is_left_out() -> None:
    source = behaviour("Who lives?", "Who dies?", "Who sings?")
    target = behaviour("What  is it?", "who DIES?", "Who  lives?", "Who sings?")
    seen = FoldSplit(train=(0,), validation=(1,), test=(2,))
    found = leak_free_questions(source, seen, target, FoldSplit((), (), (0, 1, 2, 3)))
    assert found == LeakFree(kept=(0, 3), excluded=(1, 2))


def test_every_way_in_which_a_question_is_put_counts() -> None:
    source = replace(behaviour(), questions=(question(0, "A or B?", "B or A?"),))
    target = replace(
        behaviour(), questions=(question(0, "C or D?", "B or A?"), question(1, "C or E?"))
    )
    found = leak_free_questions(source, FoldSplit((0,), (), ()), target, FoldSplit((), (), (0, 1)))
    assert found == LeakFree(kept=(1,), excluded=(0,))


def test_of_a_behaviour_itself_no_question_is_left_out() -> None:
    data = behaviour(*(f"Question {i}?" for i in range(20)))
    for fold in (0, 1):
        parts = split(range(20), fold, ExperimentConfig().data)
        assert leak_free_questions(data, parts, data, parts) == LeakFree(parts.test, ())


def test_shared_questions_in_another_order_leak_as_a_plain_loop_says() -> None:
    draw = random.Random(0)
    texts = [f"Question {i}?" for i in range(30)]
    source, target = behaviour(*texts), behaviour(*draw.sample(texts, 20))
    theirs, ours = (
        split(range(30), 0, ExperimentConfig().data),
        split(range(20), 0, ExperimentConfig().data),
    )
    found = leak_free_questions(source, theirs, target, ours)
    used = [source.questions[i].text for i in theirs.train + theirs.validation]
    assert found.excluded
    assert found.kept
    for index in ours.test:
        assert (index in found.excluded) == (target.questions[index].text in used)
    assert sorted(found.kept + found.excluded) == list(ours.test)


def test_a_planted_gain_is_found_with_an_interval_around_it() -> None:
    draw = np.random.default_rng(0)
    values = (0.25 + draw.normal(0, 0.1, 400)).tolist()
    row = pooled(transfer_rows([cell({"m": values})], "real", {"b": ("m",)}, 500))
    assert row["gain"] == pytest.approx(0.25, abs=0.02)
    assert row["low"] < row["gain"] < row["high"]
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(400), rel=0.2)


def test_every_fold_and_seed_has_a_row_and_all_of_them_together_one() -> None:
    cells = [
        cell({"m": [float(seed), 1.0]}, fold=fold, seed=seed) for fold in (0, 1) for seed in (0, 4)
    ]
    rows = transfer_rows(cells, "real", {"b": ("m",)}, 10)
    keys = [(row["fold"], row["seed"]) for row in rows if row["metric"] == "m"]
    assert keys == [(0, 0), (0, 4), (1, 0), (1, 4), (None, None)]
    assert {row["method"] for row in rows} == {"real"}


def test_the_row_over_all_averages_seeds_first_and_then_questions() -> None:
    runs = {
        (0, 0): {0: 1.0, 1: 3.0},
        (0, 1): {0: 2.0, 1: 5.0},
        (1, 0): {2: 8.0},
    }
    cells = [
        cell(
            {"m": list(values.values())},
            fold=fold,
            seed=seed,
            questions={"kept": list(values), "excluded": []},
            steered={"questions": list(values), "per_question": {"m": list(values.values())}},
            unsteered={"questions": list(values), "per_question": {"m": [0.5] * len(values)}},
        )
        for (fold, seed), values in runs.items()
    ]
    row = pooled(transfer_rows(cells, "real", {"b": ("m",)}, 10))
    assert row["steered"] == pytest.approx(fmean([1.5, 4.0, 8.0]))
    assert row["unsteered"] == pytest.approx(0.5)
    assert row["gain"] == pytest.approx(row["steered"] - row["unsteered"])
    assert row["n_questions"] == 3


def test_excluded_questions_are_counted_but_never_measured() -> None:
    measured = {"questions": [4, 7, 9], "per_question": {"m": [1.0, 100.0, 2.0]}}
    nothing = {"questions": [4, 7, 9], "per_question": {"m": [0.0, 0.0, 0.0]}}
    questions = {"kept": [4, 9], "excluded": [7]}
    one = cell({"m": [0.0]}, questions=questions, steered=measured, unsteered=nothing)
    other = one._replace(seed=1)
    row = pooled(transfer_rows([one, other], "real", {"b": ("m",)}, 10))
    assert (row["steered"], row["n_questions"], row["n_excluded"]) == (1.5, 2, 1)


def test_the_objective_is_the_mean_of_the_metrics_that_decide_k_and_alpha() -> None:
    values = {"mc1": [1.0, 0.0], "mc2": [0.5, 0.25], "mc3": [9.0, 9.0]}
    rows = transfer_rows([cell(values)], "real", {"b": ("mc1", "mc2")}, 10)
    assert pooled(rows, OBJECTIVE)["steered"] == pytest.approx(fmean([0.75, 0.125]))
    assert {row["metric"] for row in rows} == {"mc1", "mc2", "mc3", OBJECTIVE}


def test_chosen_metrics_are_reported_beside_the_objective() -> None:
    values = {"mc1": [1.0], "mc2": [0.5], "mc3": [9.0]}
    rows = transfer_rows([cell(values)], "real", {"b": ("mc1", "mc2")}, 10, metrics=("mc3", "far"))
    assert {row["metric"] for row in rows} == {"mc3", OBJECTIVE}


def test_a_question_without_a_number_is_left_out_of_that_metric_alone() -> None:
    values = {"mc1": [1.0, 0.0, 1.0], "rouge": [math.nan, 0.5, 0.7], "bleu": [math.nan] * 3}
    rows = transfer_rows([cell(values)], "real", {"b": ("mc1",)}, 10)
    assert pooled(rows, "mc1")["n_questions"] == 3
    assert pooled(rows, "rouge")["n_questions"] == 2
    assert pooled(rows, "rouge")["steered"] == pytest.approx(0.6)
    assert all(row["metric"] != "bleu" for row in rows)


def test_the_rows_fit_the_table() -> None:
    rows = transfer_rows([cell({"m": [1.0, 0.0]})], "real", {"b": ("m",)}, 10)
    table = to_table(
        "transfer", [{"run_id": "r", "model": "x", "model_id": "0", **row} for row in rows]
    )
    assert table.num_rows == len(rows) == 4


def test_namesakes_are_told_apart_by_what_differs() -> None:
    assert behaviour_labels([PlugIn(name="a"), PlugIn(name="b")]) == ("a", "b")
    paths = ["data/caa/sycophancy", "data/caa/refusal"]
    some = [PlugIn(name="caa", params={"path": path, "toward": "x"}) for path in paths]
    assert behaviour_labels(some) == ("caa:sycophancy", "caa:refusal")
    ways = [PlugIn(name="caa", params={"path": paths[0], "toward": way}) for way in ("x", "y")]
    assert behaviour_labels(ways) == ("caa:x", "caa:y")
    deep = [PlugIn(name="caa", params={"path": path}) for path in ("q.json", "a/q.json")]
    assert behaviour_labels(deep) == ("caa:q.json", "caa:a/q.json")


def test_a_behaviour_with_a_name_of_its_own_goes_by_it() -> None:
    named = [PlugIn(name="caa", params={"path": path, "name": path[0]}) for path in ("xx", "yy")]
    assert behaviour_labels(named) == ("x", "y")


@pytest.mark.parametrize(
    "twice",
    [
        [PlugIn(name="a", params={"x": 1})] * 2,
        [PlugIn(name="a", params={"name": "n"}), PlugIn(name="b", params={"name": "n"})],
    ],
)
def test_two_behaviours_that_cannot_be_told_apart_are_refused(twice: list[PlugIn]) -> None:
    with pytest.raises(UserInputError, match="twice"):
        behaviour_labels(twice)


def test_parameters_that_are_the_defaults_tell_no_behaviours_apart() -> None:
    same = (PlugIn(name="demo_truth"), PlugIn(name="demo_truth", params={"world_seed": 0}))
    with pytest.raises(UserInputError, match="twice"):
        resolved_transfer(TransferConfig(behaviours=same))


def test_a_source_runs_the_method_with_what_it_needs_and_nothing_else() -> None:
    plain = source_experiment(resolved_transfer(DEMO_TRANSFER), 1)
    assert plain.behaviour.params["world_seed"] == 1
    assert (plain.methods, plain.baselines) == (("unsteered", "real"), ())
    iti = source_experiment(DEMO_TRANSFER.model_copy(update={"method": "iti"}), 0)
    assert iti.methods == ("unsteered", "iti")
    assert [baseline.name for baseline in iti.baselines] == ["iti"]


@pytest.mark.parametrize("method", ["unsteered", "magic"])
def test_a_method_that_steers_nothing_is_refused(method: str) -> None:
    config = DEMO_TRANSFER.model_copy(update={"method": method})
    with pytest.raises(UserInputError, match="cannot be carried over.*real_equal_weights"):
        resolved_transfer(config)


def test_a_target_without_a_question_left_is_refused_before_any_work() -> None:
    texts = [f"Question {i}?" for i in range(16)]
    turned = behaviour(*texts[8:], *texts[:8])
    other = behaviour(*(f"Other {i}?" for i in range(16)))
    check_transfer(DEMO_TRANSFER, [behaviour(*texts), other])
    with pytest.raises(UserInputError, match="nothing is left to test"):
        check_transfer(DEMO_TRANSFER, [behaviour(*texts), turned])


def test_a_metric_that_no_target_has_is_refused() -> None:
    data = [behaviour(*(f"{who} {i}?" for i in range(16))) for who in ("one", "two")]
    check_transfer(DEMO_TRANSFER.model_copy(update={"metrics": ("mc1",)}), data)
    with pytest.raises(UserInputError, match="'mc9', which nothing measures.*mc0, mc1"):
        check_transfer(DEMO_TRANSFER.model_copy(update={"metrics": ("mc9",)}), data)


def test_files_of_an_experiment_serve_a_transfer_too(tmp_path: Path) -> None:
    shared, pair = tmp_path / "shared.yaml", tmp_path / "pair.yaml"
    shared.write_text("evaluation: {max_kl: 0.5}\nseeds: [3]\n")
    pair.write_text("behaviours: [{name: demo_truth}, {name: demo_truth, params: {world_seed: 1}}]")
    found = load_transfer_config([shared, pair], ["evaluation.max_kl=0.25", "method=iti"])
    expected = load_config(shared, ["evaluation.max_kl=0.25"])
    assert found.experiment == expected
    assert found.method == "iti"
    assert [one.params["world_seed"] for one in found.behaviours] == [0, 1]


def test_the_commented_yaml_of_a_transfer_loads_back(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    config = resolved_transfer(DEMO_TRANSFER)
    path.write_text(commented_yaml(config))
    assert load_transfer_config(path, []) == config
    changed = load_transfer_config(path, ["seeds=[9]", "behaviours.1.params.world_seed=5"])
    assert changed.experiment.seeds == (9,)
    assert changed.behaviours[1].params["world_seed"] == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("behaviours: [{name: demo_truth}]", "behaviours: .*at least 2"),
        ("seeds: [1]", "behaviours: Field required"),
        ("behaviours: [{name: demo_truth}, {nam: x}]", "did you mean name?"),
        ("evalution: {}", "did you mean evaluation?"),
        ("experiment: [1]", "experiment holds a list, expected a mapping"),
    ],
)
def test_a_wrong_configuration_of_a_transfer_is_explained(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserInputError, match=message):
        load_transfer_config(path, [])


def test_a_transfer_without_a_file_is_that_of_the_form_and_each_part_of_it_can_be_set() -> None:
    default = load_transfer_config(None, [])
    assert default == resolved_transfer(transfer.fn.__defaults__[0])
    assert [one.name for one in default.behaviours] == ["demo_truth", "demo_options"]
    named = load_transfer_config(None, ["behaviours=[demo_truth, demo_conflict]", "seeds=[4]"])
    assert [one.name for one in named.behaviours] == ["demo_truth", "demo_conflict"]
    assert named.experiment.seeds == (4,)


def test_a_transfer_that_a_command_prepared_is_not_prepared_again_by_the_flow() -> None:
    prepared = load_prepared_transfer(None, [])
    with handing_over(prepared) as config:
        assert config is prepared.config and prepared_transfer_for(config) is prepared
