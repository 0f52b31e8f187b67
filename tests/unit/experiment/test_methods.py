import sys
from pathlib import Path

import pytest
import yaml

from real_tasks.experiment.methods.known import (
    as_yaml,
    known_methods,
    methods_of,
    rankings_of,
    said_methods,
    summaries,
    with_methods,
)
from real_tasks.export.targets import exported_as
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.installed import InstalledFolder
from real_tasks.vocabulary.methods.library import library

DEMO = with_methods(ExperimentConfig())


def test_the_default_experiment_knows_the_methods_of_the_tables() -> None:
    assert set(DEMO.methods) == {
        "unsteered",
        "real",
        "real_equal_weights",
        "iti",
        "causal",
        "random",
        "all",
        "random_direction",
        "pca_direction",
        "probe_direction",
        "caa",
    }
    assert [method.name for method in methods_of(DEMO)] == list(DEMO.methods)


def test_without_effects_caa_has_to_be_asked_for() -> None:
    config = ExperimentConfig(baselines=(PlugIn(name="iti"),))
    names = with_methods(config).methods
    assert "caa" not in names and {"unsteered", "real", "iti", "all"} <= set(names)
    asked = config.model_copy(update={"methods": ("caa",)})
    assert [method.name for method in methods_of(asked)] == ["caa"]


def test_methods_come_in_the_order_of_the_configuration() -> None:
    config = DEMO.model_copy(update={"methods": ("random", "unsteered", "iti")})
    assert [method.name for method in methods_of(config)] == ["random", "unsteered", "iti"]


def test_real_weighs_by_score_and_the_others_equally() -> None:
    weighting = {method.name: method.weighting for method in methods_of(DEMO)}
    assert [name for name, kind in weighting.items() if kind == "score"] == [
        "real",
        "random_direction",
        "pca_direction",
        "probe_direction",
    ]


def test_the_random_direction_steers_the_modules_of_the_studied_localizer() -> None:
    methods = known_methods(DEMO)
    assert methods["random_direction"].localizer == "real"
    assert methods["random_direction"].fitter == PlugIn(name="random")
    assert methods["all"].localizer is None and methods["all"].fitter == PlugIn(
        name="mean_difference"
    )
    assert methods["unsteered"].fitter is None


def test_only_methods_whose_outcome_a_seed_changes_are_seeded() -> None:
    seeded = {name for name, method in known_methods(DEMO).items() if method.seeded}
    assert {"real", "real_equal_weights", "random", "random_direction"} <= seeded
    assert not seeded & {"unsteered", "all", "iti", "caa"}


def test_without_a_baseline_its_method_is_not_evaluated_unless_it_is_named() -> None:
    config = ExperimentConfig(localizer=PlugIn(name="iti"), baselines=())
    default = with_methods(config)
    assert {"unsteered", "all", "iti", "random_direction"} <= set(default.methods)
    assert not {"real", "random"} & set(default.methods)
    assert known_methods(config)["random_direction"].localizer == "iti"
    named = config.model_copy(update={"methods": ("real",)})
    assert [one.localizer.name for one in rankings_of(named)] == ["iti", "real"]


def test_methods_steer_the_kind_of_module_that_the_experiment_is_about() -> None:
    known = methods_of(with_methods(ExperimentConfig(module_kind="mlp")))
    assert {one.name: one.kind for one in known if one.kind != "mlp"} == {"caa": "layer"}


def test_every_localizer_ranks_the_experiments_modules() -> None:
    found = [(ranking.localizer.name, ranking.kind) for ranking in rankings_of(DEMO)]
    assert found[:-1] == [(name, "head") for name in ("real", "iti", "causal", "random")]


def test_caa_has_layers_ranked_by_their_effect_once() -> None:
    with_caa = DEMO.model_copy(update={"methods": ("unsteered", "caa")})
    ranking = rankings_of(with_caa)[-1]
    assert (ranking.localizer.name, ranking.kind) == ("causal", "layer")
    assert ranking.localizer == next(one for one in DEMO.baselines if one.name == "causal")
    alone = with_caa.model_copy(update={"baselines": ()})
    assert rankings_of(alone)[-1].localizer.params == {"alpha": 3.0, "questions": 32}
    already = with_caa.model_copy(
        update={"module_kind": "layer", "baselines": (PlugIn(name="causal"),)}
    )
    found = [(ranking.localizer.name, ranking.kind) for ranking in rankings_of(already)]
    assert found == [("real", "layer"), ("causal", "layer")]


def test_a_baselines_parameters_hold_for_every_kind_of_module_that_it_ranks() -> None:
    strong = PlugIn(name="causal", params={"alpha": 7.0})
    config = with_methods(ExperimentConfig(baselines=(strong,)))
    ranked = {one.kind: one.localizer for one in rankings_of(config) if one.localizer == strong}
    assert set(ranked) == {"head", "layer"}


def test_an_unknown_method_is_an_error_that_lists_the_known_ones() -> None:
    config = DEMO.model_copy(update={"methods": ("unsteered", "reel")})
    with pytest.raises(UserInputError, match="'reel'") as caught:
        with_methods(config)
    for name in known_methods(DEMO):
        assert name in str(caught.value)


def test_a_method_of_one_s_own_starts_from_another_and_says_what_differs() -> None:
    own = {"name": "erase", "like": "iti", "operator": "project_out", "strengths": [0.5, 1]}
    config = with_methods(ExperimentConfig.model_validate({"methods": ["unsteered", own]}))
    unsteered, erase = methods_of(config)
    assert unsteered.fitter is None
    assert (erase.localizer, erase.operator.name, erase.strengths) == (
        "iti",
        "project_out",
        (0.5, 1),
    )
    assert erase.top_k == config.evaluation.top_k and erase.kind == "head"
    assert known_methods(config)["iti"].operator.name == "add"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"name": "iti"}, "there is a method 'iti' already"),
        ({"name": "mine", "like": "ity"}, "is like 'ity', which is unknown"),
        ({"name": "mine", "operator": "rotate"}, "needs plane, which the fitter 'mean_difference'"),
        ({"name": "mine", "operator": "project_out", "strengths": [2]}, "end at 1"),
        ({"name": "mine", "operator": "subtract"}, "unknown operator 'subtract'"),
        ({"name": "mine", "gate": "sometimes"}, "unknown gate 'sometimes'"),
        ({"name": "mine", "gate": {"name": "tokens"}}, "methods.mine.gate.params.*ids"),
        ({"name": "mine", "where": "writers", "part": "head"}, "what writes"),
        ({"name": "mine", "fitter": "plane", "operator": "rotate", "gate": "coordinate"}, "needs"),
    ],
)
def test_a_method_whose_parts_do_not_go_together_is_one_clear_error(
    own: dict[str, object], message: str
) -> None:
    config = ExperimentConfig.model_validate({"methods": [own]})
    with pytest.raises(UserInputError, match=message):
        methods_of(with_methods(config))


def test_what_is_printed_of_a_method_can_be_run() -> None:
    for name, said in said_methods(DEMO).items():
        config = ExperimentConfig.model_validate(yaml.safe_load(as_yaml(said)))
        (found,) = methods_of(with_methods(config))
        assert found == known_methods(DEMO)[name].model_copy(update={"name": f"my_{name}"})


def test_every_method_of_the_library_says_what_it_does_and_those_of_papers_their_paper() -> None:
    for name, said in library().items():
        assert said.what.endswith("."), name
        assert said.paper or name in ("unsteered", "all", "random", "causal", "random_direction")


def test_methods_of_installed_packages_are_there_and_bad_ones_are_told_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "halved.yaml").write_text("what: Halves.\nlocalizer: iti\nstrengths: [0.5]\n")
    (tmp_path / "iti.yaml").write_text("what: Another.\n")
    (tmp_path / "broken.yaml").write_text("operator: [")
    folder = InstalledFolder("theirs", tmp_path, "theirs 1.0")
    monkeypatch.setattr(sys.modules[library.__module__], "method_folders", lambda: [folder])
    library.cache_clear()
    try:
        assert known_methods(DEMO)["halved"].strengths == (0.5,)
        assert library()["iti"].what != "Another."
    finally:
        library.cache_clear()
    assert "theirs 1.0 is left out: iti.yaml: there is a method 'iti' already" in caplog.text
    assert "broken.yaml cannot be read as YAML" in caplog.text


def test_a_summary_says_what_a_method_needs_and_what_it_can_be_exported_as() -> None:
    found = {name: "\n".join(lines) for name, lines in summaries(DEMO, exported_as).items()}
    assert "needs activations; exported as checkpoint (baked), spec" in found["real"]
    assert "exported as checkpoint (baked), spec" in found["directional_ablation"]
    assert "exported as spec" in found["cast"] and "exported as spec" in found["stmp"]
    assert "needs gradients" in found["bipo"]
    assert "As real, but pushes its modules all alike" in found["real_equal_weights"]
    assert "in proportion" in found["real"] and "in proportion" not in found["real_equal_weights"]
    assert "exported" not in found["unsteered"]
