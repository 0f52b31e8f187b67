from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from real_tasks.evaluation.judges import JUDGES
from real_tasks.experiment.assignments import merged
from real_tasks.experiment.commented import commented_yaml
from real_tasks.experiment.plug_ins import resolved
from real_tasks.experiment.yaml_files import load_config
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.vocabulary.config import ModelConfig
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.rescore_config import RescoreConfig


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_without_file_and_changes_it_is_the_demo() -> None:
    assert load_config(None, []) == resolved(ExperimentConfig())


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("seeds=[7, 8]", ("seeds",), (7, 8)),
        ("data.shuffle_labels=true", ("data", "shuffle_labels"), True),
        ("evaluation.max_kl=2e-2", ("evaluation", "max_kl"), 0.02),
        ("evaluation.alphas=[1,2.5]", ("evaluation", "alphas"), (1.0, 2.5)),
        ("execution.device=cpu", ("execution", "device"), "cpu"),
        ("model.params.steps=12", ("model", "params", "steps"), 12),
        ("localizer.params.codebook_size=64", ("localizer", "params", "codebook_size"), 64),
        ("baselines.0.params.max_iterations=9", ("baselines", 0, "params", "max_iterations"), 9),
        ("methods.1=all", ("methods",), None),
    ],
)
def test_a_dotted_path_sets_one_field_and_leaves_the_others(
    assignment: str, path: tuple[str | int, ...], value: Any
) -> None:
    if value is None:
        assert load_config(None, ["methods=[iti, real]", assignment]).methods == ("iti", "all")
        return
    tree: Any = load_config(None, [assignment]).model_dump()
    plain: Any = load_config(None, []).model_dump()
    place, other = tree, plain
    for part in path[:-1]:
        place, other = place[part], other[part]
    assert place[path[-1]] == value
    assert other[path[-1]] != value
    place[path[-1]] = other[path[-1]]
    assert tree == plain


def test_later_changes_win_over_earlier_ones_and_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "evaluation:\n  max_kl: 0.5\n  matched_kl: 0.1\n")
    assert load_config(path, []).evaluation.max_kl == 0.5
    changed = load_config(path, ["evaluation.max_kl=0.2", "evaluation.max_kl=0.3"])
    assert changed.evaluation.max_kl == 0.3
    assert changed.evaluation.matched_kl == 0.1


def test_an_entry_of_a_list_in_the_file_can_be_set(tmp_path: Path) -> None:
    path = written(tmp_path, "baselines: [{name: random}, {name: iti}]\nmethods: [real]")
    found = load_config(path, ["baselines.1.params.inverse_penalty=0.5"])
    assert [baseline.name for baseline in found.baselines] == ["random", "iti"]
    assert found.baselines[1].params["inverse_penalty"] == 0.5


def test_an_entry_of_a_list_below_the_top_can_be_set() -> None:
    assert load_config(None, ["evaluation.top_k.1=9"]).evaluation.top_k == (4, 9, 16)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("evaluation.max_kl", "expected a.dotted.path=value"),
        ("=3", "expected a.dotted.path=value"),
        ("seeds=[1", "is no YAML value"),
        ("baselines.7.name=iti", "'7' is no place in a list of 3"),
        ("baselines.first.name=iti", "'first' is no place in a list of 3"),
        ("seeds.3=1", "'3' is no place in a list of 3"),
        ("localizer.name.deeper=1", "name holds 'real', which has no fields"),
    ],
)
def test_a_malformed_change_is_an_error_that_quotes_it(assignment: str, message: str) -> None:
    with pytest.raises(UserInputError, match=message) as caught:
        load_config(None, [assignment])
    assert repr(assignment) in str(caught.value)


def test_several_faults_are_listed_together() -> None:
    with pytest.raises(UserInputError) as caught:
        load_config(None, ["evaluation.max_kl=-1", "data.n_folds=one"])
    assert "evaluation.max_kl: " in str(caught.value) and "data.n_folds: " in str(caught.value)


def test_a_typo_brings_a_hint() -> None:
    with pytest.raises(UserInputError, match="did you mean max_kl?"):
        load_config(None, ["evaluation.max_lk=0.1"])
    with pytest.raises(UserInputError, match="did you mean evaluation?"):
        load_config(None, ["evalution.max_kl=0.1"])
    with pytest.raises(UserInputError, match="known: n_folds, validation_share"):
        load_config(None, ["data.zzz=1"])


def test_a_typo_in_an_entry_that_the_demo_does_not_have_brings_a_hint_too(tmp_path: Path) -> None:
    path = written(tmp_path, "baselines: [{name: iti}, {name: random}, {nam: real}]")
    with pytest.raises(UserInputError, match=r"baselines\.2\.nam: unknown key") as caught:
        load_config(path, [])
    assert "did you mean name?" in str(caught.value)


def test_a_missing_file_is_an_error_that_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="no configuration at .*absent.yaml; `real config >"):
        load_config(tmp_path / "absent.yaml", [])


@pytest.mark.parametrize("text", ["a: [1", "\ta: 1"])
def test_a_file_that_is_no_yaml_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserInputError, match="mine.yaml cannot be read as YAML"):
        load_config(written(tmp_path, text), [])


def test_a_file_that_is_no_text_or_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    for path in (tmp_path / "mine.yaml", tmp_path):
        with pytest.raises(UserInputError, match="cannot be read as YAML"):
            load_config(path, [])


def test_a_file_that_holds_a_list_is_an_error_and_an_empty_one_is_the_demo(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="holds a list, expected a mapping"):
        load_config(written(tmp_path, "- 1\n- 2\n"), [])
    assert load_config(written(tmp_path, "# nothing\n"), []) == load_config(None, [])


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["model.path=./my-llama", "model.dtype=bfloat16"],
        ["baselines=[]", "methods=[real]", "seeds=[3]"],
        ["localizer.name=random", "baselines=[{name: iti, params: {tolerance: 1.0e-9}}]"]
        + ["methods=[iti]"],
        ["model.path='yes'", "evaluation.max_kl=1e-7", "evaluation.alphas=[1e-3, 1e6]"],
        ["model.path='a: b # c'", "execution.max_workers=3"],
    ],
)
def test_the_commented_yaml_loads_back_to_the_equal_configuration(
    changes: list[str], tmp_path: Path
) -> None:
    config = load_config(None, changes)
    text = commented_yaml(config)
    assert load_config(written(tmp_path, text), []) == config
    assert yaml.safe_load(text) == config.model_dump(mode="json")


def test_the_commented_yaml_shows_every_field_right_below_its_description() -> None:
    config = load_config(None, [])
    lines = [line.strip() for line in commented_yaml(config).splitlines()]
    pairs = list(zip(lines, lines[1:], strict=False))
    for model in models_in(config):
        for name, field in type(model).model_fields.items():
            below = [after for line, after in pairs if line.startswith(f"# {field.description}")]
            assert any(after.startswith(f"{name}:") for after in below), name
    fields = [line for line in lines if not line.startswith("#") and line != "-"]
    assert len([line for line in lines if line.startswith("# ")]) == len(fields)


def models_in(model: BaseModel) -> Iterator[BaseModel]:
    yield model
    for name in type(model).model_fields:
        value = getattr(model, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, BaseModel):
                yield from models_in(item)


def test_every_field_of_the_configuration_and_of_every_plug_in_has_a_description() -> None:
    models: list[type[BaseModel]] = [type(model) for model in models_in(load_config(None, []))]
    registries: tuple[Any, ...] = (LOCALIZERS, BEHAVIOURS, JUDGES, EMBEDDED_MODELS)
    models += [registry[name].Params for registry in registries for name in registry]
    for model in models:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert "\n" not in field.description


def test_what_an_empty_list_of_methods_stands_for_is_said_and_a_list_that_names_some_is_all() -> (
    None
):
    def said(*assignments: str) -> str:
        lines = commented_yaml(load_config(None, assignments)).splitlines()
        return lines[lines.index(next(one for one in lines if one.startswith("methods:"))) - 1]

    assert said().endswith(
        "here unsteered, real, real_equal_weights, iti, causal, random, caa, all, "
        "random_direction, pca_direction, probe_direction"
    )
    assert said("baselines=[]").endswith(
        "real_equal_weights, all, random_direction, pca_direction, probe_direction"
    )
    assert "here" not in said("methods=[real]")


@pytest.mark.parametrize(
    "form",
    [
        {"model": {"revision": ""}, "execution": {"address": "", "device_map": ""}},
        {"model": {"shape": ""}, "data": {"limit": ""}, "evaluation": {"lm_eval_limit": ""}},
    ],
)
def test_a_field_that_was_emptied_in_a_form_is_not_given(form: dict[str, Any]) -> None:
    assert ExperimentConfig.model_validate(form) == ExperimentConfig()


def test_an_emptied_field_of_a_re_scoring_and_of_a_plug_in_is_not_given_either() -> None:
    given = RescoreConfig.model_validate({"baseline": "", "method": "", "top_k": ""})
    assert given == RescoreConfig()
    params = BEHAVIOURS["truthfulqa"].Params.model_validate({"path": "", "revision": ""})
    assert params == BEHAVIOURS["truthfulqa"].Params()


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(None, []).seeds = (1,)  # type: ignore[misc]


def test_files_are_laid_over_each_other_from_left_to_right(tmp_path: Path) -> None:
    under, over = tmp_path / "under.yaml", tmp_path / "over.yaml"
    under.write_text("evaluation: {max_kl: 0.5, alphas: [1, 2]}\nseeds: [1]\n")
    over.write_text("evaluation: {alphas: [3]}\nmodel: {dtype: bfloat16}\n")
    found = load_config([under, over], ["evaluation.matched_kl=0.3"])
    assert (found.evaluation.max_kl, found.evaluation.alphas) == (0.5, (3.0,))
    assert (found.evaluation.matched_kl, found.seeds, found.model.dtype) == (0.3, (1,), "bfloat16")
    assert load_config([over, under], []).evaluation.alphas == (1.0, 2.0)
    assert load_config([], []) == load_config(None, [])
    assert load_config([under], []) == load_config(under, [])


def test_files_of_separate_fields_give_the_same_in_any_order(tmp_path: Path) -> None:
    texts = {"a": "seeds: [5]", "b": "evaluation: {max_kl: 0.5}", "c": "evaluation: {alphas: [7]}"}
    paths = [tmp_path / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text)
    assert load_config(paths, []) == load_config(paths[::-1], [])


def test_a_plug_in_keeps_its_parameters_under_another_file_and_loses_them_by_another_name() -> None:
    under = {"localizer": {"name": "real", "params": {"epochs": 9, "units": 4}}}
    more = merged(under, {"localizer": {"params": {"epochs": 3}}})
    assert more == {"localizer": {"name": "real", "params": {"epochs": 3, "units": 4}}}
    same = merged(under, {"localizer": {"name": "real", "params": {"epochs": 3}}})
    assert same == more
    assert merged(under, {"localizer": {"name": "iti"}}) == {"localizer": {"name": "iti"}}


def test_merging_changes_neither_of_the_two() -> None:
    under, over = {"a": {"b": 1}, "c": [1]}, {"a": {"d": 2}, "c": [2], "e": None}
    assert merged(under, over) == {"a": {"b": 1, "d": 2}, "c": [2], "e": None}
    assert (under, over) == ({"a": {"b": 1}, "c": [1]}, {"a": {"d": 2}, "c": [2], "e": None})


def test_a_typo_below_a_field_that_is_empty_by_default_brings_a_hint() -> None:
    with pytest.raises(UserInputError, match="did you mean n_layers?"):
        load_config(None, ["model.shape.n_layer=2"])


def test_the_parameters_of_a_judge_are_shown_with_their_descriptions() -> None:
    name = next(name for name in JUDGES if JUDGES[name].Params.model_fields)
    text = commented_yaml(load_config(None, [f"evaluation.judge={{name: {name}}}"]))
    for field in JUDGES[name].Params.model_fields.values():
        assert f"# {field.description}" in text


def test_a_plug_in_given_by_its_name_alone_can_be_changed_further() -> None:
    found = load_config(
        None, ["behaviour=jsonl", "behaviour.params.path=q.jsonl", "evaluation.judge=contains"]
    )
    assert (found.behaviour.name, found.behaviour.params["path"]) == ("jsonl", "q.jsonl")
    assert found.evaluation.judge.name == "contains"


def test_a_name_in_one_file_and_parameters_in_the_next_are_laid_together() -> None:
    below, over = {"behaviour": "caa"}, {"behaviour": {"params": {"path": "x"}}}
    together = {"behaviour": {"name": "caa", "params": {"path": "x"}}}
    assert merged(below, over) == merged(over, below) == together


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("demo", "demo"),
        ("org/llama", "llama"),
        ("runs/a/checkpoint-100", "a/checkpoint-100"),
        ("runs/b/checkpoint-100/", "b/checkpoint-100"),
        ("tuned/final", "tuned/final"),
        ("runs/a/checkpoint-100/merged/", "a/checkpoint-100/merged"),
        ("a/global_step-100-hf", "a/global_step-100-hf"),
        ("a/pytorch_model", "a/pytorch_model"),
        ("a/epoch=3", "a/epoch=3"),
        ("a/100", "a/100"),
        ("a/best.ckpt", "a/best.ckpt"),
        ("a/x/..", "a"),
        ("./a/./checkpoint-1/../checkpoint-2/.", "a/checkpoint-2"),
        ("a/llama-hf", "llama-hf"),
        ("a/model2vec", "model2vec"),
        ("/model", "model"),
        ("a/" + "1" * 200 + "x", "1" * 200 + "x"),
        ("hub/models--org--llama/snapshots/" + "0" * 40, "llama"),
    ],
)
def test_a_model_is_named_so_that_it_can_be_told_from_others(path: str, name: str) -> None:
    assert ModelConfig(path=path).name == name


def test_the_folder_one_stands_in_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llama").mkdir()
    monkeypatch.chdir(tmp_path / "llama")
    assert ModelConfig(path=".").name == "llama"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seeds: [1]\nseeds: [2]", r"'seeds' is there twice \(lines 1 and 2\)"),
        ("evaluation:\n  max_kl: 1\n  max_kl: 2", r"evaluation: 'max_kl' is there twice"),
        ("data:\n  limit: !!int abc", r"data\.limit: 'abc' \(line 2\) cannot be read"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b", "cannot be read as YAML"),
        ("x: &x [*x]", "stands inside what it stands for"),
        ("[" * 3000, "nested more than 40 levels"),
        ("{a: " * 3000, "nested more than 40 levels"),
        ("? [a]\n: 1", "a key is no text"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: !!set {x}", "tag tag:yaml.org,2002:set is not known"),
        ("x: " + "y" * 1_000_001, "at most 1,000,000"),
    ],
)
def test_yaml_that_cannot_be_trusted_is_told_before_anything_is_built(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserInputError, match=told):
        load_config(tmp_path / "a.yaml", [])


def test_aliases_count_as_what_they_stand_for(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    (tmp_path / "a.yaml").write_text(bomb)
    with pytest.raises(UserInputError, match=r"more than 100,000 values"):
        load_config(tmp_path / "a.yaml", [])
    (tmp_path / "a.yaml").write_text("seeds: &s [3, 4]\nevaluation: {top_k: *s}")
    found = load_config(tmp_path / "a.yaml", [])
    assert found.seeds == found.evaluation.top_k == (3, 4)


def test_a_template_is_a_text_without_quotes_and_a_date_the_name_of_a_revision() -> None:
    for template in ("Q: {question} A: {answer}", "{question} - {answer}", "Q: {question}{answer}"):
        found = load_config(None, ["behaviour=jsonl", f"behaviour.params.template={template}"])
        assert found.behaviour.params["template"] == template
    assert load_config(None, ["model.revision=2026-13-45"]).model.revision == "2026-13-45"
    with pytest.raises(UserInputError, match="expected a template that ends with {answer}"):
        load_config(None, ["behaviour=jsonl", "behaviour.params.template=Q: {question}"])
    with pytest.raises(UserInputError, match=r"quoted twice: --set 'behaviour.params.preamble="):
        load_config(None, ["behaviour=jsonl", "behaviour.params.preamble=Say: so: it"])


@pytest.mark.parametrize("text", ["Note: be brief", "# first", "- one", "yes", "12:30", "a: b: c"])
def test_a_text_that_yaml_reads_otherwise_is_to_be_quoted(text: str) -> None:
    with pytest.raises(UserInputError, match="quoted"):
        load_config(None, [f"model.path={text}"])
    quoted = load_config(None, [f'model.path="{text}"'])
    assert quoted.model.path == text
