"""Bad input, one test for each kind: the message says what was found and how to mend it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from real_tasks.experiment.checks import check_modules
from real_tasks.experiment.planning.plan import planned_shape
from real_tasks.experiment.plug_ins import resolved
from real_tasks.experiment.prepared import prepare
from real_tasks.experiment.question_checks import check_behaviour
from real_tasks.experiment.sources import dataset_of, load_behaviour
from real_tasks.experiment.yaml_files import load_config
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import Answer, BehaviourData, ModelShape, Question
from tests.unit.tiny_models import tiny_family, tiny_llama, tiny_tokenizer

DEMO = resolved(ExperimentConfig())


def question(name: str, *answers: Answer) -> Question:
    return Question(name, f"what is {name} ?", "any", answers)


def good_question(name: str) -> Question:
    return question(
        name, Answer(f"{name}a", f"true {name}", 1, True), Answer(f"{name}b", f"false {name}", 0)
    )


def behaviour(*changed: Question, n_questions: int = 20) -> BehaviourData:
    """Good data of ``n_questions``, the first of them replaced by ``changed``."""
    questions = [good_question(f"q{index}") for index in range(n_questions)]
    questions[: len(changed)] = changed
    return BehaviourData("mine", tuple(questions), ("some text", "another text"))


def config(**changes: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate(changes)


def test_good_data_and_the_default_experiment_pass() -> None:
    check_behaviour(behaviour(), DEMO)
    check_modules(ModelShape(5, 8, 32, 128), DEMO)
    prepare(DEMO)


def test_resolving_completes_the_parameters_of_plug_ins_and_changes_nothing_else() -> None:
    found = resolved(config(localizer={"name": "real", "params": {"epochs": 3}}))
    assert found.localizer.params["epochs"] == 3
    assert found.localizer.params["codebook_size"] == 16
    assert found.baselines[0].params["inverse_penalty"] == 1.0
    assert found.model.params["steps"] == DEMO.model.params["steps"]
    assert resolved(found) == found
    assert found.evaluation == ExperimentConfig().evaluation


def test_an_unknown_key_of_the_configuration_is_named() -> None:
    with pytest.raises(UserInputError, match=r"evaluation\.max_lk: unknown key \(found 1\)"):
        load_config(None, ["evaluation.max_lk=1"])


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"localizer": {"name": "real", "params": {"epoch": 3}}}, "localizer.params.epoch"),
        ({"behaviour": {"name": "demo_truth", "params": {"x": 1}}}, "behaviour.params.x"),
        ({"model": {"params": {"width": 1}}}, "model.params.width"),
        ({"baselines": [{"name": "iti", "params": {"x": 1}}]}, "baselines.0.params.x"),
    ],
)
def test_an_unknown_parameter_of_a_plug_in_is_named(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(UserInputError, match=f"{path}: unknown key"):
        resolved(config(**changes))


def test_a_system_prompt_that_nothing_would_say_is_refused() -> None:
    with pytest.raises(UserInputError, match=r"'Be honest\.'.*model\.chat_template to true"):
        resolved(config(model={"system_prompt": "Be honest."}))
    chat = {"system_prompt": "Be honest.", "chat_template": True, "path": "./mine"}
    assert resolved(config(model=chat)).model.system_prompt == "Be honest."


def test_a_wrong_parameter_of_a_plug_in_comes_with_what_it_is_and_which_there_are() -> None:
    judge = {"name": "endpoint", "params": {"base_url": "localhost:80"}}
    with pytest.raises(UserInputError, match=r"base_url: address of the endpoint"):
        resolved(config(evaluation={"judge": judge}))
    with pytest.raises(
        UserInputError, match=r"known: preset, instruction, path, revision, skip_bad"
    ):
        resolved(config(behaviour={"name": "truthfulqa", "params": {"presets": "primer"}}))
    with pytest.raises(UserInputError, match="known: no parameters"):
        resolved(config(evaluation={"judge": {"name": "contains", "params": {"x": 1}}}))


@pytest.mark.parametrize(
    "assignment",
    [
        "data.n_folds=1",
        "data.validation_share=1.0",
        "evaluation.max_kl=0",
        "evaluation.alphas=[]",
        "evaluation.alphas=[-1]",
        "evaluation.top_k=[0]",
        "extraction.batch_tokens=0",
        "extraction.dtype=float8",
        "evaluation.token_scope=some",
        "execution.retries=-1",
        "localizer.params.temperature=0",
        "localizer.params.codebook_size=1",
        "model.params.steps=0",
        "seeds=[]",
    ],
)
def test_a_value_out_of_range_is_an_error_with_path_and_value(assignment: str) -> None:
    path, _, value = assignment.partition("=")
    with pytest.raises(UserInputError, match=path) as caught:
        load_config(None, [assignment])
    found = str(caught.value).partition("(found ")[2]
    assert value.strip("[]") in found and found


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"localizer": {"name": "reel"}}, "unknown localizer 'reel'; known: causal, .*iti, .*real"),
        (
            {"baselines": [{"name": "x"}]},
            "unknown localizer 'x'; known: causal, .*iti, .*random, .*real",
        ),
        ({"behaviour": {"name": "lies"}}, "unknown behaviour 'lies'; known: .*demo_truth"),
        ({"evaluation": {"judge": "me"}}, "unknown judge 'me'; known: .*exact_match"),
        (
            {"methods": ["unsteered", "it"]},
            "unknown method 'it'.*all, .*caa, .*causal, .*iti, .*pca_direction",
        ),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(
    changes: dict[str, Any], known: str
) -> None:
    with pytest.raises(UserInputError, match=known):
        resolved(config(**changes))


def test_a_localizer_or_a_method_listed_twice_is_an_error() -> None:
    with pytest.raises(UserInputError, match="localizer 'real' appears 2 times"):
        resolved(config(baselines=[{"name": "real"}], methods=["real"]))
    with pytest.raises(UserInputError, match="method 'iti' appears 2 times"):
        resolved(config(methods=["iti", "iti"]))


def test_a_model_path_that_is_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for path, found in ((tmp_path / "absent", "is no folder"), (tmp_path, "missing: model.safe")):
        changed = resolved(config(model={"path": str(path)}))
        with pytest.raises(UserInputError, match=found) as caught:
            prepare(changed)
        assert str(path) in str(caught.value) and "save_pretrained" in str(caught.value)


def test_parameters_for_a_checkpoint_are_an_error() -> None:
    changed = config(model={"path": "./llama", "params": {"steps": 3}})
    with pytest.raises(UserInputError, match=r"'./llama' is not an embedded model \(demo\)"):
        resolved(changed)


def test_the_shape_of_a_checkpoint_is_read_from_its_configuration(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert planned_shape(config(model={"path": str(tmp_path)})) == ModelShape(3, 8, 12, 32)


@pytest.mark.parametrize(
    ("family", "kind", "found"),
    [("mixtral", "neuron", "experts"), ("phi", "residual_mid", "side by side")],
)
def test_a_kind_that_the_architecture_lacks_is_an_error(
    family: str, kind: str, found: str, tmp_path: Path
) -> None:
    tiny_family(family).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    changed = resolved(
        config(model={"path": str(tmp_path)}, module_kind=kind, evaluation={"top_k": [1]})
    )
    with pytest.raises(UserInputError, match=f"'{family}' has no modules.*'{kind}'.*{found}"):
        prepare(changed)
    with pytest.raises(UserInputError, match=f"'{family}' has no modules.*'{kind}'.*{found}"):
        planned_shape(changed)


def test_neurons_need_their_number() -> None:
    neurons = config(module_kind="neuron", localizer={"name": "iti"}, baselines=[])
    check_modules(ModelShape(5, 8, 32, 128, 256), neurons)
    with pytest.raises(UserInputError, match=r"'neuron', but nothing says how many.*d_mlp"):
        check_modules(ModelShape(5, 8, 32, 128), neurons)


def test_there_is_one_final_part_to_choose() -> None:
    final = config(module_kind="final", evaluation={"top_k": [1, 2]})
    with pytest.raises(UserInputError, match=r"top_k holds 2.*1 modules.*'final' \(1 layers x 1\)"):
        check_modules(ModelShape(5, 8, 32, 128), final)


def test_an_unknown_device_is_an_error() -> None:
    changed = resolved(config(execution={"device": "gpu"}))
    with pytest.raises(UserInputError, match="unknown device 'gpu'; expected auto, cpu"):
        prepare(changed)


@pytest.mark.parametrize("label", [0, 1])
def test_a_question_with_one_label_only_is_an_error(label: int) -> None:
    bad = question("bad", Answer("a", "x", label, label == 1), Answer("b", "y", label))
    with pytest.raises(UserInputError, match=rf"'bad'.*labels \[{label}\] only.*at least one"):
        check_behaviour(behaviour(bad), DEMO)


def test_labels_other_than_0_and_1_are_an_error() -> None:
    bad = question("bad", Answer("a", "x", 1, True), Answer("b", "y", 0), Answer("c", "z", 2))
    with pytest.raises(UserInputError, match="'bad'.*labels"):
        check_behaviour(behaviour(bad), DEMO)


def test_too_few_questions_for_the_folds_is_an_error() -> None:
    with pytest.raises(UserInputError, match=r"7 questions.*2 folds.*at least 8.*data\.n_folds"):
        check_behaviour(behaviour(n_questions=7), DEMO)
    with pytest.raises(UserInputError, match="20 questions.*6 folds.*at least 24"):
        check_behaviour(behaviour(), config(data={"n_folds": 6}))


def test_too_few_training_questions_for_the_cross_fitting_is_an_error() -> None:
    changed = config(localizer={"name": "real", "params": {"cross_folds": 8}})
    with pytest.raises(UserInputError, match="7 training questions.*8 parts.*cross_folds"):
        check_behaviour(behaviour(), changed)


def test_a_question_asked_twice_is_an_error() -> None:
    same_id = good_question("q7")
    with pytest.raises(UserInputError, match="question id 'q7' appears 2 times"):
        check_behaviour(behaviour(same_id), DEMO)
    same_text = replace(good_question("new"), text="what  is q7 ? ")
    with pytest.raises(UserInputError, match=r"question 'what is q7 \?' appears 2 times"):
        check_behaviour(behaviour(same_text), DEMO)


def test_an_answer_that_is_true_and_false_is_an_error() -> None:
    bad = question("bad", Answer("a", "x", 1, True), Answer("b", "x", 0))
    with pytest.raises(UserInputError, match="'bad'.*'x' as aligned and as violating; keep one"):
        check_behaviour(behaviour(bad), DEMO)


def test_an_answer_given_twice_is_an_error() -> None:
    good = good_question("bad").answers
    for again in (Answer("c", "true  bad", 1), replace(good[1], text="other")):
        bad = question("bad", *good, again)
        with pytest.raises(UserInputError, match="'bad'.*appears 2 times"):
            check_behaviour(behaviour(bad), DEMO)


@pytest.mark.parametrize("best", [(False, False, False), (True, True, False), (False, False, True)])
def test_without_exactly_one_best_aligned_answer_there_is_an_error(
    best: tuple[bool, bool, bool],
) -> None:
    labels = (1, 1, 0)
    answers = [Answer(f"a{i}", f"x{i}", labels[i], best[i]) for i in range(3)]
    with pytest.raises(UserInputError, match="'bad'.*exactly one best answer"):
        check_behaviour(behaviour(question("bad", *answers)), DEMO)


def test_a_behaviour_without_neutral_text_is_an_error() -> None:
    with pytest.raises(UserInputError, match="'mine' brings no neutral text"):
        check_behaviour(replace(behaviour(), neutral_texts=()), DEMO)


def test_a_single_neutral_text_is_an_error_since_tuning_and_tests_need_their_own() -> None:
    with pytest.raises(UserInputError, match=r"a single neutral text.*take at least 2"):
        check_behaviour(replace(behaviour(), neutral_texts=("one",)), DEMO)


def test_units_that_do_not_divide_the_latent_are_an_error_with_those_that_do() -> None:
    changed = config(localizer={"name": "real", "params": {"units": 5}})
    with pytest.raises(UserInputError, match=r"units=5.*width 16.*one of \[1, 2, 4, 8, 16\]"):
        check_modules(ModelShape(5, 8, 32, 128), changed)


def test_a_methods_own_numbers_of_modules_are_looked_at_before_any_work() -> None:
    asked = config(methods=["unsteered", "angular_steering"])
    check_modules(ModelShape(4, 8, 32, 128), asked)
    with pytest.raises(UserInputError, match=r"'angular_steering'.*\[1, 2, 4\].*3 modules.*like:"):
        check_modules(ModelShape(3, 8, 32, 128), asked)


def test_k_larger_than_the_number_of_modules_is_an_error() -> None:
    changed = config(evaluation={"top_k": [4, 41]})
    with pytest.raises(UserInputError, match=r"holds 41.*'demo' has 40 modules.*at most 40"):
        check_modules(ModelShape(5, 8, 32, 128), changed)
    check_modules(ModelShape(5, 8, 32, 128), config(evaluation={"top_k": [40]}))


@pytest.mark.parametrize(
    "assignment", ["evaluation.top_k=[41]", "localizer.params.units=5", "data.n_folds=60"]
)
def test_the_whole_experiment_is_checked_before_anything_is_made(
    assignment: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> None:
        raise AssertionError("a model was trained or loaded")

    monkeypatch.setattr("real_tasks.models.embedded.demo.train", never)
    monkeypatch.setattr("real_tasks.models.loading.read_weights", never)
    with pytest.raises(UserInputError):
        prepare(load_config(None, [assignment]))
    assert not home.exists()


def test_a_behaviour_is_loaded_with_its_parameters() -> None:
    def load(seed: int) -> BehaviourData:
        return load_behaviour(PlugIn(name="demo_truth", params={"world_seed": seed}))

    assert load(0).name == "demo_truth"
    assert load(0) == load(0)
    assert load(0).questions != load(1).questions


def test_a_limit_takes_questions_evenly_from_all_over_the_data() -> None:
    everything = dataset_of(DEMO).questions
    some = dataset_of(resolved(config(data={"limit": 45}))).questions
    assert some == everything[::4]
    assert dataset_of(resolved(config(data={"limit": 1000}))).questions == everything


def test_neutral_text_can_come_from_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("One paragraph.\n\nAnother one.\n\nA third.\n")
    own = config(evaluation={"neutral": str(tmp_path / "own.txt"), "neutral_texts": 2})
    assert dataset_of(resolved(own)).neutral_texts == ("One paragraph.", "Another one.")
    assert dataset_of(resolved(own)).source["neutral"].endswith("own.txt: 2 texts, 4 words")
