"""Tuning against a model whose KL is c * alpha^2 and whose MC1 and MC2 are known curves."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
import torch

from real_tasks.evaluation.measuring import Evaluator, Measurement, Part
from real_tasks.evaluation.record import OVERFLOWS, evaluation_record
from real_tasks.evaluation.search.matched import alpha_at_kl
from real_tasks.evaluation.tuning import HALVINGS, MethodResult, evaluate_method
from real_tasks.steering.spec import SteeringSpec
from real_tasks.vocabulary.errors import OverflowedError
from real_tasks.vocabulary.experiment_config import EvaluationConfig
from real_tasks.vocabulary.types import ModelShape, ModuleId, SelectedModule

ALPHAS = (4.0, 1.0, 2.0, 3.0)
CONFIG = EvaluationConfig(top_k=(1, 2), alphas=ALPHAS, max_kl=0.05, matched_kl=0.02)
Effect = Callable[[int, float], float]


@dataclass
class Known:
    """Stands in for an Evaluator; K is the number of modules of the spec.

    Test questions cost twice the KL of validation questions, so that a mix-up would show.
    """

    effect: Effect
    cost: Callable[[int, float], float]
    asked: list[tuple[str, str, int, float]] = field(default_factory=list)
    objective: tuple[str, ...] = ("mc1", "mc2", "true_share")
    n_texts: int = 5

    def side_effects(self, part: Part, spec: SteeringSpec | None) -> tuple[float, float]:
        k, alpha = self._note("side_effects", part, spec)
        kl = self.cost(k, alpha) if alpha else 0.0
        return 2.0 + kl, kl * (2 if part == "test" else 1)

    def measure(self, part: Part, spec: SteeringSpec | None) -> Measurement:
        k, alpha = self._note("measure", part, spec)
        return Measurement(
            questions=(0, 1) if part == "validation" else (2, 3),
            per_question={
                "mc1": [self.effect(k, alpha)] * 2,
                "mc2": [0.25, 0.25],
                "true_share": [1.0, 0.0],
            },
            generations=("x", "y"),
            verdicts=("true", "false"),
            cross_entropy=2.0,
            kl=self.cost(k, alpha),
        )

    def _note(self, what: str, part: str, spec: SteeringSpec | None) -> tuple[int, float]:
        k, alpha = (len(spec.modules), spec.alpha) if spec else (0, 0.0)
        self.asked.append((what, part, k, alpha))
        return k, alpha


def square(c: float) -> Callable[[int, float], float]:
    return lambda _, alpha: c * alpha**2


def candidate(k: int) -> SteeringSpec:
    return SteeringSpec.adding(
        model="m",
        model_digest="d",
        modules=tuple(ModuleId("head", 0, head) for head in range(k)),
        directions=torch.ones(k, 2),
        sigmas=torch.ones(k),
        strengths=torch.ones(k),
        alpha=1.0,
        token_scope="all",
        shape=ModelShape(n_layers=1, n_heads=4, head_dim=2, d_model=8),
    )


CANDIDATES = {1: candidate(1), 2: candidate(2)}


def tuned(known: Known, config: EvaluationConfig = CONFIG, **other: Any) -> MethodResult:
    return evaluate_method(cast(Evaluator, known), other.get("candidates", CANDIDATES), config)


def reached(evaluator: Known, target: float) -> float | None:
    return alpha_at_kl(cast(Evaluator, evaluator), candidate(1), target)


def test_the_chosen_point_is_the_best_under_the_cap() -> None:
    # KL: .005, .02, .045, .08; the effect is larger for K = 2 and grows with alpha.
    result = tuned(Known(lambda k, alpha: 0.1 * k * alpha, square(0.005)))
    assert (result.chosen.top_k, result.chosen.alpha) == (2, 3.0)
    assert result.chosen.kl == pytest.approx(0.045)
    assert result.chosen.metrics["mc1"] == pytest.approx(0.6)
    assert result.fits_cap
    assert result.spec is not None and result.spec.alpha == 3.0 and len(result.spec.modules) == 2
    assert result.test.questions == (2, 3)
    assert result.test.per_question["mc1"] == pytest.approx([0.6, 0.6])


def test_the_best_may_lie_inside_the_grid() -> None:
    result = tuned(Known(lambda k, alpha: 1 - (alpha - 2) ** 2 - 0.1 * k, square(0.005)))
    assert (result.chosen.top_k, result.chosen.alpha) == (1, 2.0)


def test_no_choice_is_scored_beyond_the_cap() -> None:
    known = Known(lambda _, alpha: alpha, square(0.005))
    result = tuned(known)
    assert {s.alpha for s in result.settings if s.metrics} == {1.0, 2.0, 3.0}
    assert {s.alpha for s in result.settings if not s.metrics} == {4.0}
    beyond = [k for what, _, k, alpha in known.asked if what == "measure" and alpha == 4.0]
    assert beyond == [result.chosen.top_k]  # for the curve alone
    assert len(result.settings) == 2 * len(ALPHAS)


def test_a_setting_exactly_at_the_cap_is_allowed() -> None:
    config = CONFIG.model_copy(update={"max_kl": 0.0625})
    result = tuned(Known(lambda _, alpha: alpha, square(0.00390625)), config)
    assert result.chosen.alpha == 4.0


def test_of_equally_good_settings_the_one_with_the_lowest_kl_is_chosen() -> None:
    known = Known(lambda *_: 0.5, lambda k, alpha: 0.005 * alpha**2 / k)
    assert (tuned(known).chosen.top_k, tuned(known).chosen.alpha) == (2, 1.0)
    known = Known(lambda _, alpha: 0.5 if alpha > 1 else 0.1, lambda k, alpha: 0.005 * k * alpha)
    assert (tuned(known).chosen.top_k, tuned(known).chosen.alpha) == (1, 2.0)


def test_the_objective_is_a_choice_of_metrics() -> None:
    @dataclass
    class Traded(Known):
        """MC1 falls with alpha, true generations rise faster."""

        def measure(self, part: Part, spec: SteeringSpec | None) -> Measurement:
            found = super().measure(part, spec)
            alpha = spec.alpha if spec else 0.0
            questions = {"mc1": [-alpha], "mc2": [0.0], "true_share": [2 * alpha]}
            return replace(found, per_question=questions)

    known = Traded(lambda *_: 0.0, square(0.005))
    assert tuned(known).chosen.alpha == 3.0
    only_mc1 = Traded(lambda *_: 0.0, square(0.005), objective=("mc1",))
    assert tuned(only_mc1).chosen.alpha == 1.0


def test_nothing_is_chosen_on_test_questions() -> None:
    known = Known(lambda _, alpha: alpha, square(0.005))
    result = tuned(known)
    on_test = [(what, k, alpha) for what, part, k, alpha in known.asked if part == "test"]
    assert [what for what, _, _ in on_test] == ["measure", "measure"]
    assert {(k, alpha) for _, k, alpha in on_test} == {
        (result.chosen.top_k, result.chosen.alpha),
        (result.chosen.top_k, result.matched_alpha),
    }


def test_where_nothing_fits_under_the_cap_nothing_is_steered_and_that_is_said() -> None:
    known = Known(lambda _, alpha: alpha, square(1000.0))
    result = tuned(known)
    assert not result.fits_cap
    assert (result.chosen.top_k, result.chosen.alpha, result.chosen.kl) == (None, None, 0.0)
    assert result.spec is None and result.matched is None and result.matched_alpha is None
    assert result.test.per_question["mc1"] == [0.0, 0.0]
    assert len(result.settings) == 1 + 2 * (len(ALPHAS) + HALVINGS)
    assert {alpha for what, part, _, alpha in known.asked if part == "test"} == {0.0}


@pytest.mark.parametrize("why", ["cost", "overflow"])
def test_where_no_alpha_of_the_grid_can_be_used_the_first_half_of_the_smallest_that_can_is(
    why: str,
) -> None:
    if why == "cost":  # KL: 1 at the smallest, then .25, .0625, .0156
        known: Known = Known(lambda k, alpha: k * alpha, square(1.0))
    else:
        known = Overflowing(lambda k, alpha: k * alpha, square(0.001), beyond=0.2)
    result = tuned(known)
    assert result.fits_cap and result.spec is not None
    assert (result.chosen.top_k, result.chosen.alpha, result.spec.alpha) == (2, 0.125, 0.125)
    tried = [*ALPHAS, 0.5, 0.25, 0.125]
    rows = evaluation_record(result, [])["validation"]
    assert sorted((row["top_k"], row["alpha"]) for row in rows) == sorted(
        (k, alpha) for k in (1, 2) for alpha in tried
    )
    assert {alpha for _, part, _, alpha in known.asked if part == "test"} <= {
        0.125,
        result.matched_alpha,
    }


def test_without_candidates_the_unsteered_model_is_measured_and_is_its_own_match() -> None:
    result = tuned(Known(lambda *_: 0.4, square(1.0)), candidates={})
    assert result.fits_cap
    assert result.spec is None
    assert result.matched == result.test
    assert [setting.alpha for setting in result.settings] == [None]
    assert [alpha for alpha, _ in result.curve] == [None]


def test_the_curve_goes_through_all_alphas_in_order_at_the_chosen_k() -> None:
    known = Known(lambda k, alpha: 0.1 * k * alpha, square(0.005))
    result = tuned(known)
    assert [alpha for alpha, _ in result.curve] == sorted(ALPHAS)
    assert [m.per_question["mc1"][0] for _, m in result.curve] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8]
    )
    assert {m.questions for _, m in result.curve} == {(0, 1)}


def test_the_matched_dose_costs_the_kl_asked_for() -> None:
    result = tuned(Known(lambda _, alpha: alpha, square(0.005)))
    assert result.matched_alpha == pytest.approx(2.0, rel=0.01)
    assert result.matched is not None and result.matched.questions == (2, 3)
    assert result.matched.kl == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("target", [1e-4, 0.02, 3.0])
@pytest.mark.parametrize("c", [1e-5, 0.005, 40.0])
@pytest.mark.parametrize("shape", ["square", "quartic", "saturating", "kinked", "offset"])
def test_the_alpha_at_a_kl_hits_it_within_a_percent(shape: str, c: float, target: float) -> None:
    curves: dict[str, Callable[[float], float]] = {
        "square": lambda a: c * a**2,
        "quartic": lambda a: c * a**2 * (1 + a**2),
        "saturating": lambda a: 8 * c * a**2 / (1 + c * a**2),
        "kinked": lambda a: c * a**2 if a < 2 else c * 4 * (1 + 20 * (a - 2)),
        "offset": lambda a: c * max(a - 0.5, 0) ** 2,
    }
    curve = curves[shape]
    known = Known(lambda *_: 0.0, lambda _, alpha: curve(alpha))
    alpha = reached(known, target)
    assert alpha is not None
    assert curve(alpha) == pytest.approx(target, rel=0.0101)
    assert len(known.asked) < 60
    assert {part for _, part, _, _ in known.asked} == {"validation"}


@dataclass
class Overflowing(Known):
    """Overflows beyond an alpha: everywhere, or only where one part's questions are measured."""

    beyond: float = 2.5
    where: str = "side_effects"
    part: str = ""

    def _note(self, what: str, part: str, spec: SteeringSpec | None) -> tuple[int, float]:
        strong = spec is not None and spec.alpha > self.beyond
        if strong and what in (self.where, "measure") and self.part in ("", part):
            raise OverflowedError("too strong")
        return super()._note(what, part, spec)


@pytest.mark.parametrize("where", ["side_effects", "measure"])
def test_a_setting_that_overflows_is_ruled_out_and_the_others_are_recorded(where: str) -> None:
    known = Overflowing(lambda k, alpha: 0.1 * k * alpha, square(0.005), where=where)
    result = tuned(known)
    assert (result.chosen.top_k, result.chosen.alpha) == (2, 2.0) and result.fits_cap
    assert [alpha for alpha, _ in result.curve] == [1.0, 2.0]
    assert result.matched_alpha == pytest.approx(2.0, rel=0.01)
    record = evaluation_record(result, [])
    rows = {(row["top_k"], row["alpha"]): row["metrics"] for row in record["validation"]}
    assert rows.keys() == {(k, alpha) for k in (1, 2) for alpha in ALPHAS}
    ruled_out = {place for place, metrics in rows.items() if metrics == {OVERFLOWS: 1.0}}
    strong = {(k, alpha) for k in (1, 2) for alpha in (3.0, 4.0)}
    # Beyond the cap, questions are asked for the curve alone.
    expected = strong if where == "side_effects" else {p for p in strong if p[1] == 3.0}
    assert ruled_out == expected
    assert rows[2, 2.0]["mc1"] == pytest.approx(0.4)


def test_what_overflows_on_test_questions_alone_is_not_used_either() -> None:
    known = Overflowing(lambda k, alpha: 0.1 * k * alpha, square(0.005), part="test")
    result = tuned(known)
    assert (result.chosen.top_k, result.chosen.alpha) == (2, 2.0)
    assert result.spec is not None and result.spec.alpha == 2.0


def test_where_every_setting_overflows_nothing_is_steered() -> None:
    result = tuned(Overflowing(lambda _, alpha: alpha, square(0.005), beyond=0.01))
    assert not result.fits_cap and result.spec is None and result.chosen.alpha is None
    assert [setting.overflows for setting in result.settings] == [False] + [True] * 20


@pytest.mark.parametrize("beyond", [0.3, 1.0, 2.1, 50.0])
def test_the_matched_dose_is_found_below_what_overflows_or_said_to_be_out_of_reach(
    beyond: float,
) -> None:
    alpha = reached(Overflowing(lambda *_: 0.0, square(0.005), beyond=beyond), 0.02)
    if beyond < 2:
        assert alpha is None
    else:
        assert alpha == pytest.approx(2.0, rel=0.01)


def test_a_kl_that_no_alpha_reaches_is_out_of_reach() -> None:
    bounded = Known(lambda *_: 0.0, lambda _, alpha: 0.01 * alpha**2 / (1 + alpha**2))
    assert reached(bounded, 0.02) == math.inf
    assert max(alpha for _, _, _, alpha in bounded.asked) >= 5e3
    assert reached(Known(lambda *_: 0.0, lambda *_: 0.0), 0.02) == math.inf


def test_a_matched_dose_out_of_reach_leaves_the_tuned_result() -> None:
    flat = Known(lambda _, alpha: alpha, lambda *_: 0.001)
    result = tuned(flat)
    assert result.matched is None and result.matched_alpha is None
    assert result.chosen.alpha == 4.0 and result.fits_cap


def test_the_record_holds_each_setting_once_with_what_was_measured_there() -> None:
    result = tuned(Known(lambda k, alpha: 0.1 * k * alpha, square(0.005)))
    selected = [SelectedModule(ModuleId("head", 0, 1), 1, 0.9, 1.0)]
    record = evaluation_record(result, selected)
    rows = {(row["top_k"], row["alpha"]): row["metrics"] for row in record["validation"]}
    assert rows.keys() == {(k, alpha) for k in (1, 2) for alpha in ALPHAS}
    assert rows[2, 1.0]["mc1"] == pytest.approx(0.2)
    assert rows[2, 4.0]["mc1"] == pytest.approx(0.8)  # from the curve, though beyond the cap
    assert set(rows[1, 4.0]) == {"cross_entropy", "kl"}
    assert rows[1, 4.0]["kl"] == pytest.approx(0.08)
    counts = [(row["n_questions"], row["n_texts"]) for row in record["validation"]]
    assert counts.count((2, 5)) == 7 and counts.count((0, 5)) == 1  # the one beyond the cap
    assert (record["top_k"], record["alpha"], record["fits_cap"]) == (2, 3.0, True)
    assert record["test"]["metrics"]["mc1"] == pytest.approx(0.6)
    assert record["selected"][0]["module"] == {"kind": "head", "layer": 0, "head": 1}


def test_a_setting_whose_answers_are_too_strange_to_the_unsteered_model_is_passed_over() -> None:
    @dataclass
    class Stranger(Known):
        """The perplexity of answers grows with alpha from 4."""

        def measure(self, part: Part, spec: SteeringSpec | None) -> Measurement:
            found = super().measure(part, spec)
            perplexity = 4.0 + (spec.alpha if spec else 0.0)
            own = {**found.per_question, "generation_perplexity": [perplexity] * 2}
            return replace(found, per_question=own)

    known = Stranger(lambda k, alpha: 0.1 * k * alpha, square(0.005))
    assert tuned(known).chosen.alpha == 3.0
    capped = tuned(known, CONFIG.model_copy(update={"max_generation_perplexity": 1.5}))
    assert (capped.chosen.top_k, capped.chosen.alpha) == (2, 2.0)
    strict = tuned(known, CONFIG.model_copy(update={"max_generation_perplexity": 1.0}))
    assert not strict.fits_cap and strict.spec is None
