"""What methods need of the data, said before anything is read."""

from dataclasses import replace

import pytest

from real_tasks.experiment.methods.known import known_methods, method_names, with_methods
from real_tasks.experiment.needs import allowed_methods, check_needs, with_allowed_methods
from real_tasks.experiment.sources import load_behaviour
from real_tasks.experiment.work import work_of
from real_tasks.steering.fitters import FITTERS
from real_tasks.steering.fitters.mean_difference import MeanDifference
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.method_config import MethodConfig
from real_tasks.vocabulary.methods.library import library
from real_tasks.vocabulary.types import Answer, Aspect, BehaviourData, Question

OF_CLASS_A = {"name": "mine", "like": "one_vs_rest"} | {
    "fitter": {"name": "one_vs_rest", "params": {"class_name": "a"}}
}


def own(*classes: str, violating: int = 1) -> BehaviourData:
    """Sixteen questions of a file: an aligned answer, so many violating, classes in turn."""
    names = classes or ("",)
    questions = tuple(
        Question(
            str(n),
            f"{n}?",
            "all",
            tuple(
                Answer(f"{n}-{i}", str(i), int(i == 0), i == 0, names[(n + i) % len(names)])
                for i in range(1 + violating)
            ),
        )
        for n in range(16)
    )
    return BehaviourData("own", questions, source={"file": "questions.jsonl"})


def check(data: BehaviourData, *methods: object) -> None:
    check_needs(data, ExperimentConfig.model_validate({"methods": ["unsteered", *methods]}))


def test_data_without_pairs_are_refused_for_a_method_that_needs_them() -> None:
    check(own(), "paired_direction", "iti", "random")
    with pytest.raises(UserInputError) as caught:
        check(own(violating=2), "paired_direction")
    assert str(caught.value) == (
        "paired_direction needs pairs; demo_truth has them, questions.jsonl has none: add a field "
        "pair, or give each question as many aligned as violating answers"
    )
    check(own(violating=2), "iti", "random")


def test_every_fold_has_to_have_a_pair_to_train_on() -> None:
    data = own(violating=2)
    questions = (replace(data.questions[0], answers=data.questions[0].answers[:2]),)
    data = replace(data, questions=questions + data.questions[1:])
    with pytest.raises(UserInputError, match="questions.jsonl, training questions of fold 0 has"):
        check(data, "paired_direction")


def test_classes_are_asked_for_and_have_to_be_the_datas() -> None:
    check(own("a", "b", "c"), OF_CLASS_A)
    with pytest.raises(UserInputError, match="mine needs classes; questions.jsonl has none: add"):
        check(own(), OF_CLASS_A)
    with pytest.raises(UserInputError, match="mine on questions.jsonl: .*is 'a'; .*: b, c"):
        check(own("b", "c"), OF_CLASS_A)
    with pytest.raises(UserInputError, match="one_vs_rest on .*class_name is ''; .*: a, b"):
        check(own("a", "b"), "one_vs_rest")


def test_all_methods_that_the_data_do_not_allow_are_told_in_one_error() -> None:
    with pytest.raises(UserInputError) as caught:
        check(own(violating=2), OF_CLASS_A, "paired_direction")
    assert "mine needs classes" in str(caught.value)
    assert "paired_direction needs pairs" in str(caught.value)


def test_a_star_stands_for_every_method_that_the_data_allow() -> None:
    star = ExperimentConfig(methods=("*",))
    one_by_one = {name for name in library() if _allowed(own(violating=2), name)}
    assert {"real", "iti", "cast"} <= one_by_one < set(library())
    found = method_names(with_allowed_methods(star, own(violating=2)))
    assert set(found) - {"real_equal_weights"} == one_by_one
    assert "paired_direction" in method_names(with_allowed_methods(star, own()))
    mine = star.model_copy(update={"methods": ("*", "paired_direction")})
    assert "paired_direction" in method_names(with_allowed_methods(mine, own(violating=2)))
    with pytest.raises(UserInputError, match="unknown method 'reall'"):
        with_methods(star.model_copy(update={"methods": ("*", "reall")}))


def _allowed(data: BehaviourData, name: str) -> bool:
    try:
        check(data, *{name} - {"unsteered"})
    except UserInputError:
        return False
    return True


def test_the_demos_data_allow_pairs_and_those_of_truthfulqa_would_not() -> None:
    data = load_behaviour(PlugIn(name="demo_truth"))
    check(data, "paired_direction")
    with pytest.raises(UserInputError, match="paired_direction needs pairs"):
        check(replace(data, paired=False), "paired_direction")


def asking() -> dict[str, Aspect]:
    """The methods that ask something of the data, and what; each asks for one thing."""
    fitters = {name: method.fitter for name, method in library().items() if method.fitter}
    asked = {name: sorted(FITTERS[fitter.name].asks) for name, fitter in fitters.items()}
    assert max(map(len, asked.values())) == 1
    return {name: asks[0] for name, asks in asked.items() if asks}


def test_the_methods_that_data_allow_are_listed_and_why_not_the_others() -> None:
    allowed, *others = allowed_methods(own(violating=2))
    assert {"paired_direction", "one_vs_rest", "anonact"} <= set(asking())
    assert [line.partition(";")[0] for line in others] == sorted(
        f"not allowed: {name} needs {aspect}" for name, aspect in asking().items()
    )
    names = [name for name in known_methods(ExperimentConfig()) if name not in asking()]
    assert allowed == "methods that these data allow: " + ", ".join(names)


def test_conditions_are_asked_for_and_the_same_questions_under_them() -> None:
    def asked(*conditions: str) -> BehaviourData:
        data = own()
        questions = [
            replace(one, text=f"{n % 8}?", condition=conditions[n * len(conditions) // 16])
            for n, one in enumerate(data.questions)
        ]
        return replace(data, questions=tuple(questions))

    def differ(**params: str) -> dict[str, object]:
        fitter = {"name": "prompt_difference", "params": params}
        return {"name": "mine", "like": "prompt_difference", "fitter": fitter}

    check(asked("owls", "none"), differ(condition="owls"), differ(condition="owls") | {"name": "b"})
    said = {
        "conditions": "allowed with parameters: {} on questions.jsonl: "
        "fitter.params.condition is ''",
        "classes": "not allowed: {} needs classes",
    }
    _, *others = allowed_methods(asked("owls", "none"))
    assert [line.partition(";")[0] for line in others] == sorted(
        said[aspect].format(name) for name, aspect in asking().items() if aspect in said
    )
    for data, params, message in (
        (asked(""), {}, "mine needs conditions; questions.jsonl has none: add a field condition"),
        (asked("a", "b"), {"condition": "c"}, "condition is 'c'; .*: a, b"),
        (asked("a", "b"), {"condition": "b", "reference": "b"}, "both 'b'.*no direction"),
        (asked("a", "b", "a", "c"), {"condition": "b", "reference": "a"}, "no training question"),
    ):
        with pytest.raises(UserInputError, match=message):
            check(data, differ(**params))


def test_activations_are_read_where_the_fitters_of_the_methods_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = ExperimentConfig(methods=("unsteered", "iti", "caa"))
    assert work_of(config).readings == (("head", "last"), ("layer", "last"))
    monkeypatch.setattr(MeanDifference, "reading", "answer_mean")
    work = work_of(config)
    assert set(work.readings) == {
        (k, at) for k in ("head", "layer") for at in ("last", "answer_mean")
    }
    assert {fit.reading for fit in work.fits} == {"answer_mean"}


def test_what_is_trained_through_the_model_is_fitted_to_the_best_modules_alone() -> None:
    config = ExperimentConfig(
        methods=("iti", "bipo", "lqr", MethodConfig(name="more", like="bipo", top_k=(1, 3)))
    )
    found = {fit.fitter.name: fit.best for fit in work_of(config).fits if fit.best is None}
    assert set(found) == {"mean_difference", "lqr"}
    assert {fit.best for fit in work_of(config).fits} == {None, ("causal", 1), ("causal", 3)}
