"""A race against the grid: planted grids with noise, of which all is known."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from jaxtyping import Float

from real_tasks.evaluation.measuring import Evaluator
from real_tasks.evaluation.record import OVERFLOWS, evaluation_record
from real_tasks.evaluation.search.race import kl_bounds
from real_tasks.evaluation.side_effects import SideEffects
from real_tasks.evaluation.tuning import HALVINGS, Choice, MethodResult, choose, evaluate_method
from real_tasks.report.contents import race_in_words
from real_tasks.results.rows import evaluation_rows
from real_tasks.vocabulary.errors import OverflowedError
from real_tasks.vocabulary.experiment_config import EvaluationConfig
from real_tasks.vocabulary.types import FoldSplit, ModuleId
from tests.unit.evaluation.replay import Known, Replay
from tests.unit.tiny_models import pushing, random_data, random_texts, tiny_loaded

ALPHAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
KS = (4, 8, 16)
CAP = 0.2


def planted(seed: int, n_questions: int = 60, n_texts: int = 24, race: bool = True) -> Replay:
    """Questions of unlike difficulty that steering helps until it harms; KL as alpha squared."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 1.5, n_questions)
    best, height = rng.uniform(1.5, 8), rng.uniform(0.3, 2.5)
    tokens = rng.integers(20, 200, n_texts).astype(float)
    of_text = rng.lognormal(0, 0.5, n_texts)
    cost = 10 ** rng.uniform(-3.5, -2)
    shift = rng.normal(0, 0.3, len(KS))
    grid = {}
    for k, own in zip(KS, shift, strict=True):
        for alpha in ALPHAS:
            gain = height * math.exp(-(math.log(alpha / best) ** 2)) + own * alpha / (1 + alpha)
            logit = gain - difficulty + rng.normal(0, 0.4, n_questions)
            mc2 = 1 / (1 + np.exp(-logit))
            noise = rng.lognormal(0, 0.2, n_texts)
            kl = cost * math.sqrt(k) * alpha**2 * of_text * noise
            mc1 = (logit > 0).astype(float)
            grid[k, alpha] = Known(kl, {"mc1": mc1, "mc2": mc2, "other": mc2 / 2})
    return Replay(grid, tokens, ("mc1", "mc2"), race)


def tuned(replay: Replay, cap: float = CAP) -> MethodResult:
    alphas = tuple(dict.fromkeys(alpha for _, alpha in replay.grid))
    search: Literal["race", "grid"] = "race" if replay.race else "grid"
    config = EvaluationConfig(alphas=alphas, max_kl=cap, matched_kl=0.05, search=search)
    return evaluate_method(replay.as_evaluator(), replay.candidates(), config)


def objective(replay: Replay, result: MethodResult) -> Float[np.ndarray, "question"]:
    assert result.chosen.top_k is not None and result.chosen.alpha is not None
    known = replay.grid[result.chosen.top_k, result.chosen.alpha]
    return np.sum([known.metrics[name] for name in replay.objective], axis=0)


def not_told_apart(difference: Float[np.ndarray, "question"], seed: int) -> bool:
    """Whether the bootstrap interval of a mean paired difference reaches 0."""
    n = len(difference)
    drawn = np.random.default_rng(seed).integers(0, n, (1000, n))
    return bool(np.quantile(difference[drawn].mean(axis=1), 0.975) >= 0)


def test_a_race_chooses_what_the_grid_does_or_what_all_questions_do_not_tell_from_it() -> None:
    same, alike, work = [], [], []
    for seed in range(300):
        whole, raced = planted(seed, race=False), planted(seed)
        by_grid, by_race = tuned(whole), tuned(raced)
        assert by_grid.fits_cap == by_race.fits_cap
        work.append((*whole.work, *raced.work))
        if by_grid.fits_cap:
            difference = objective(raced, by_race) - objective(whole, by_grid)
            same.append(not difference.any())
            alike.append(same[-1] or not_told_apart(difference, seed))
            assert by_race.chosen.kl <= CAP
    assert np.mean(alike) >= 0.95
    assert np.mean(same) >= 0.8
    questions, tokens, fewer_questions, fewer_tokens = np.sum(work, axis=0)
    assert fewer_questions < 0.5 * questions
    assert fewer_tokens < 0.5 * tokens


def test_what_is_chosen_is_measured_in_full_and_of_the_others_it_is_said_how_much() -> None:
    raced = planted(3)
    result = tuned(raced)
    known = raced.grid[result.chosen.top_k or 0, result.chosen.alpha or 0.0]
    assert result.chosen.metrics["mc1"] == pytest.approx(known.metrics["mc1"].mean())
    assert result.chosen.metrics["other"] == pytest.approx(known.metrics["other"].mean())
    assert result.chosen.kl == pytest.approx(float(np.average(known.kl, weights=raced.tokens)))
    assert [(one.top_k, one.alpha) for one in result.settings] == list(raced.grid)
    for setting, place in zip(result.settings, raced.grid, strict=True):
        asked = set() if not setting.metrics else raced.asked[place]
        assert setting.n_questions == len(asked), place
        assert setting.n_texts == len(raced.read[place]), place
    assert {one.n_questions for one in result.settings} > {0, 60}
    rows = evaluation_record(result, [])["validation"]
    assert [row["n_questions"] for row in rows] == [one.n_questions for one in result.settings]


def test_tables_and_report_say_how_much_a_race_measured_and_nothing_of_a_grid() -> None:
    record = evaluation_record(tuned(planted(3)), [])
    rows = evaluation_rows("real", 0, 0, "all", record | {"race": {"order": []}})
    asked = [row["value"] for row in rows if row["metric"] == "n_questions"]
    assert asked == [one["n_questions"] for one in record["validation"]]
    said = race_in_words(rows)
    over = sum(value == 0 for value in asked)
    share = sum(asked) / (len(asked) - over) / 60
    assert f"of 18 settings {over} were ruled out" in said and f"asked {share:.0%} of" in said
    assert all(row["metric"] != "n_questions" for row in rows if row["split"] == "test")
    assert race_in_words(evaluation_rows("real", 0, 0, "all", record)) == ""


def test_estimates_from_few_questions_and_texts_are_near_what_all_of_them_say() -> None:
    errors, plain, of_kl = [], [], []
    for seed in range(60):
        raced = planted(seed)
        for setting in tuned(raced).settings:
            known = raced.grid[setting.top_k or 0, setting.alpha or 0.0]
            if 0 < setting.n_questions < 60:
                order = [i for portion in raced.questions for i in portion]
                few = known.metrics["mc2"][order[: setting.n_questions]]
                errors.append(setting.metrics["mc2"] - known.metrics["mc2"].mean())
                plain.append(few.mean() - known.metrics["mc2"].mean())
            if setting.n_texts < raced.n_texts and setting.n_questions < 60:
                of_kl.append(setting.kl / float(np.average(known.kl, weights=raced.tokens)))
    assert np.std(errors) < 0.6 * np.std(plain) and abs(np.mean(errors)) < 0.01
    assert np.median(of_kl) == pytest.approx(1, abs=0.05) and np.std(np.log(of_kl)) < 0.2


def test_a_rare_failure_that_the_first_questions_do_not_show_does_not_decide() -> None:
    """Two settings differ by a hair on the first questions; one fails on a tenth of the others."""
    first = planted(0).questions[0]
    sound, hollow = np.full(60, 0.9), np.full(60, 0.91)
    rest = np.setdiff1d(np.arange(60), first)
    fails = np.zeros(60)
    fails[rest[::9]] = 1.0
    weak = (np.arange(60) % 2).astype(float)
    kl, ones = np.full(24, 0.01), np.ones(60)
    grid = {
        (1, 1.0): Known(kl, {"mc1": ones, "mc2": sound}),
        (1, 2.0): Known(kl, {"mc1": 1 - fails, "mc2": hollow}),
        (1, 3.0): Known(kl, {"mc1": weak, "mc2": sound}),
    }
    result = tuned(Replay(grid, np.full(24, 50.0), ("mc1", "mc2"), race=True))
    assert result.chosen.alpha == 1.0


def test_no_setting_over_the_cap_is_chosen_whatever_few_texts_say() -> None:
    """The first texts know nothing of the KL that the others have."""
    raced = planted(5)
    alone = [texts[0] for texts in raced.texts[:-1]]
    hidden = {}
    for (k, alpha), known in raced.grid.items():
        kl = np.full(24, 0.5)
        kl[alone] = 0.01
        hidden[k, alpha] = Known(kl if alpha > 1 else np.full(24, 0.01), known.metrics)
    raced = replace(raced, grid=hidden, asked={}, read={})
    result = tuned(raced)
    assert result.chosen.alpha is not None and result.chosen.alpha <= 1
    assert result.chosen.kl == pytest.approx(0.01)


def test_where_all_of_it_is_over_the_cap_nothing_is_steered_and_no_question_is_asked() -> None:
    raced = planted(1)
    result = tuned(raced, cap=1e-9)
    assert not result.fits_cap and result.spec is None
    assert len(result.settings) == 1 + len(raced.grid) + 3 * HALVINGS
    assert raced.asked == {}
    assert raced.work[1] < 0.5 * len(result.settings) * raced.tokens.sum()


def test_where_all_of_the_grid_is_over_the_cap_halves_of_its_smallest_alpha_race() -> None:
    raced = planted(1)
    smallest = min(alpha for _, alpha in raced.grid)
    kls = {k: float(np.average(raced.grid[k, smallest].kl, weights=raced.tokens)) for k in KS}
    config = EvaluationConfig(max_kl=max(kls.values()), matched_kl=0.05, search="race")
    asked = (2 * smallest, 4 * smallest)
    result = evaluate_method(raced.as_evaluator(), raced.candidates(), config, asked)
    assert result.fits_cap and result.chosen.alpha == smallest
    assert {one.alpha for one in result.settings} == {smallest, *asked}


@dataclass
class Overflowing(Replay):
    """Overflows beyond an alpha, on neutral text or, from some round on, on questions."""

    beyond: float = 3.0
    where: str = "texts"

    def effects_of_texts(
        self, part: Any, spec: Any, n_portions: int
    ) -> list[tuple[SideEffects, int]]:
        if self.where == "texts" and spec.alpha > self.beyond:
            raise OverflowedError("too strong")
        return super().effects_of_texts(part, spec, n_portions)

    def values(self, spec: Any, n_portions: int) -> dict[str, list[float]]:
        if self.where == "questions" and spec.alpha > self.beyond and n_portions > 1:
            raise OverflowedError("too strong")
        return super().values(spec, n_portions)


@pytest.mark.parametrize("where", ["texts", "questions"])
def test_what_overflows_is_out_of_the_race(where: str) -> None:
    plain = planted(2)
    raced = Overflowing(plain.grid, plain.tokens, plain.objective, race=True, where=where)
    result = tuned(raced, cap=1e6)
    assert result.fits_cap and (result.chosen.alpha or 0) <= 3
    rows = evaluation_record(result, [])["validation"]
    strong = [row for row in rows if row["alpha"] > 3]
    ruled_out = [row for row in strong if row["metrics"] == {OVERFLOWS: 1.0}]
    assert ruled_out if where == "questions" else ruled_out == strong


def test_bounds_from_few_texts_hold_as_often_as_they_say_and_miss_what_is_far_off() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        tokens = rng.integers(20, 200, 32)
        kls = rng.lognormal(0, 0.5, 32)
        few = [
            (SideEffects(2.0, float(kl)), int(n)) for kl, n in zip(kls[:8], tokens[:8], strict=True)
        ]
        low, high = kl_bounds(few, 32)
        mean = float(np.average(kls, weights=tokens))
        held.append((low <= mean, mean <= high))
    assert (np.mean(held, axis=0) >= (0.95, 0.8)).all()  # KL is skewed: few texts show less of it.
    everything = [(SideEffects(2.0, kl), 10) for kl in (0.1, 0.2, 0.3)]
    assert kl_bounds(everything, 3) == pytest.approx((0.2, 0.2))


def test_the_dose_of_a_comparison_is_found_from_what_the_race_knows() -> None:
    for seed in range(20):
        whole, raced = planted(seed, race=False), planted(seed)
        by_grid, by_race = tuned(whole), tuned(raced)
        if by_grid.chosen.top_k == by_race.chosen.top_k and by_grid.matched_alpha:
            assert by_race.matched_alpha == pytest.approx(by_grid.matched_alpha, rel=0.02)
            between = [place for place in raced.read if place not in raced.grid]
            assert len(between) <= 5


def test_measured_in_portions_a_model_gives_the_numbers_that_it_gives_at_once() -> None:
    loaded = tiny_loaded()
    data = replace(random_data(24), neutral_texts=tuple(random_texts(40, shortest=1)))
    data = replace(data, measures=("multiple_choice", "generation"))
    split = FoldSplit(train=(), validation=tuple(range(20, 0, -1)), test=(21, 22, 23))
    spec = pushing(loaded, (ModuleId("head", 0, 1),), torch.ones(1, loaded.shape.head_dim), 0.7)
    config = EvaluationConfig(
        measures=data.measures, objective=("mc1", "mc2"), max_new_tokens=4, search="grid"
    )
    whole = Evaluator(loaded, data, split, config)
    parts = Evaluator(loaded, data, split, config.model_copy(update={"search": "race"}))
    assert parts.n_questions == (8, 20) and parts.n_text_portions == 9
    assert sorted(parts.order) == sorted(whole.order) and parts.order != whole.order
    for setting in (None, spec):
        first, second = (one.measure("validation", setting) for one in (whole, parts))
        assert first.questions == second.questions == split.validation
        assert first.generations == second.generations and first.verdicts == second.verdicts
        assert first.per_question.keys() == second.per_question.keys()
        for name, values in first.per_question.items():
            assert second.per_question[name] == pytest.approx(values, abs=1e-5), name
        assert second.kl == pytest.approx(first.kl, abs=1e-6)
        assert second.cross_entropy == pytest.approx(first.cross_entropy, abs=1e-5)
    values = parts.values(spec, 1)
    assert values.keys() == {"mc1", "mc2"}
    expected = dict(zip(first.questions, first.per_question["mc2"], strict=True))
    assert values["mc2"] == pytest.approx([expected[q] for q in parts.order[:8]], abs=1e-5)
    assert parts.measure("test", spec).questions == (21, 22, 23)
    caps = {"alphas": (0.1, 0.2, 50.0), "max_kl": 2 * first.kl, "matched_kl": first.kl}
    for search, evaluator in (("grid", whole), ("race", parts)):
        own = config.model_copy(update=caps | {"search": search})
        result = evaluate_method(evaluator, {1: spec}, own)
        assert result.chosen.alpha in (0.1, 0.2)
        assert result.settings[2].metrics == {}  # alpha 50 is over the cap
        assert result.matched_alpha == pytest.approx(0.7, rel=0.02)


def test_once_it_is_enough_the_leader_wins_and_is_measured_in_full() -> None:
    whole, replay = planted(5), planted(5)
    config = EvaluationConfig(alphas=ALPHAS, max_kl=CAP, search="race")
    choose(whole.as_evaluator(), whole.candidates(), config)
    found = choose(replay.as_evaluator(), replay.candidates(), config, enough=lambda: True)
    assert isinstance(found, Choice)
    in_full = [one for one in found.settings if one.n_questions == replay.n_questions[-1]]
    assert in_full == [found.chosen]
    assert replay.work[0] < whole.work[0]
