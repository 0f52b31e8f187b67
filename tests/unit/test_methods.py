import pytest

from real_tasks.config import ExperimentConfig, PlugIn
from real_tasks.errors import UserInputError
from real_tasks.methods import known_methods, methods_of

DEMO = ExperimentConfig()


def test_the_default_experiment_knows_the_methods_of_the_tables() -> None:
    assert set(known_methods(DEMO)) == {
        "unsteered",
        "real",
        "real_equal_weights",
        "iti",
        "random",
        "all",
        "random_direction",
    }
    assert [method.name for method in methods_of(DEMO)] == list(DEMO.methods)


def test_methods_come_in_the_order_of_the_configuration() -> None:
    config = DEMO.model_copy(update={"methods": ("random", "unsteered", "iti")})
    assert [method.name for method in methods_of(config)] == ["random", "unsteered", "iti"]


def test_real_weighs_by_score_and_the_others_equally() -> None:
    weighting = {name: method.weighting for name, method in known_methods(DEMO).items()}
    assert [name for name, kind in weighting.items() if kind == "score"] == [
        "real",
        "random_direction",
    ]


def test_the_random_direction_steers_the_modules_of_the_studied_localizer() -> None:
    methods = known_methods(DEMO)
    assert methods["random_direction"].localizer == "real"
    assert methods["random_direction"].direction == "random"
    assert methods["all"].localizer is None and methods["all"].direction == "mean_difference"
    assert methods["unsteered"].direction is None


def test_only_methods_whose_outcome_a_seed_changes_are_seeded() -> None:
    seeded = {name for name, method in known_methods(DEMO).items() if method.seeded}
    assert seeded == {"real", "real_equal_weights", "random", "random_direction"}


def test_without_a_baseline_there_is_no_method_of_its_name() -> None:
    config = ExperimentConfig(localizer=PlugIn(name="iti"), baselines=())
    known = known_methods(config)
    assert set(known) == {"unsteered", "all", "iti", "random_direction"}
    assert known["random_direction"].localizer == "iti"


def test_an_unknown_method_is_an_error_that_lists_the_known_ones() -> None:
    config = DEMO.model_copy(update={"methods": ("unsteered", "reel")})
    with pytest.raises(UserInputError, match="'reel'") as caught:
        methods_of(config)
    for name in known_methods(DEMO):
        assert name in str(caught.value)
