"""Every field of every configuration, with bad values: one clear error, or rightly accepted."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from flows.cli import main
from real_tasks.evaluation.judges import JUDGES
from real_tasks.experiment.plug_ins import resolved
from real_tasks.experiment.prepared import prepare
from real_tasks.experiment.sources import dataset_of
from real_tasks.experiment.yaml_files import load_config, load_prepared, load_prepared_transfer
from real_tasks.localizers import LOCALIZERS
from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.errors import SeveralFaultsError, UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig, TransferConfig
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.rescore_config import RescoreConfig
from tests.unit.tiny_models import WORDS, tiny_llama, tiny_tokenizer

BAD: tuple[Any, ...] = (
    *(math.nan, math.inf, -math.inf, -1, 0, 1e300, 10**30, -(10**30), 0.5, True, None),
    *("", "\0", "\ud800", "²", "nan", "x" * 5000),
    *([], [0, 0], [1, 1], [math.nan], ["a", "a"], [[]], {}, {"x": {"y": 1}}, {"name": "\0"}),
)
REGISTRIES: tuple[Registry[Any], ...] = (BEHAVIOURS, LOCALIZERS, JUDGES, EMBEDDED_MODELS)
MODELS: list[type[BaseModel]] = [ExperimentConfig, TransferConfig, RescoreConfig] + [
    registry[name].Params for registry in REGISTRIES for name in registry
]


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all fields of a model, those of models inside it included."""
    for name, field in model.model_fields.items():
        yield (*path, name)
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from leaves(inner, (*path, name))


def numbers(value: Any) -> Iterator[Any]:
    """Numbers and texts of a configuration, at any depth."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from numbers(inner)
    else:
        yield value


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__qualname__)
def test_a_value_that_nothing_can_hold_is_refused_in_every_field(model: type[Frozen]) -> None:
    for path in leaves(model):
        for value in BAD if path[-1] != "params" else ():  # Those are validated by the plug-in.
            tree: Any = value
            for name in reversed(path):
                tree = {name: tree}
            try:
                accepted = model.model_validate(tree)
            except ValidationError as error:
                assert error.errors(), path
                continue
            for kept in numbers(accepted.model_dump()):
                if isinstance(kept, float):
                    assert math.isfinite(kept), path
                if isinstance(kept, int):
                    assert abs(kept) < 2**63, path
                if isinstance(kept, str):
                    assert "\0" not in kept and not re.search("[\ud800-\udfff]", kept), path


@pytest.mark.parametrize("value", BAD, ids=lambda value: repr(value)[:20])
def test_an_experiment_with_a_bad_value_is_resolved_or_told_in_one_error(value: Any) -> None:
    for path in leaves(ExperimentConfig):
        tree: Any = value
        for name in reversed(path):
            tree = {name: tree}
        try:
            config = ExperimentConfig.model_validate(tree)
        except ValidationError:
            continue
        try:
            resolved(config)
        except UserInputError as error:
            assert str(error), path


@pytest.mark.parametrize(
    "assignment",
    [
        "seeds=[0,0]",
        "seeds=[9223372036854775808]",
        "seeds=[-1]",
        "data.split_seed=-1",
        "data.limit=!!int abc",
        "model.revision=!!timestamp 2026-13-45",
        "evaluation.alphas=[1,1]",
        "evaluation.alphas=[1e30]",
        "evaluation.alphas=[.inf]",
        "evaluation.top_k=[4,4]",
        "evaluation.max_kl=.inf",
        "evaluation.bootstrap_samples=10000000000",
        "localizer.params.bootstrap_samples=10000000000",
        "localizer.params.learning_rate=.inf",
        "model.chat_template=true",
        'behaviour.params.path="\\0"',
        'model.path="\\0"',
        "seeds.0.x=1",
        "baselines.².name=iti",
        "seeds.²=1",
    ],
)
def test_a_setting_that_only_the_work_would_have_found_is_told_when_it_is_read(
    assignment: str,
) -> None:
    with pytest.raises(UserInputError):
        load_config(None, [assignment])


TOGETHER = {
    "seeds=[0,0]": "seeds: 0 appears 2 times",
    "evaluation.alphas=[1,1]": "evaluation.alphas: 1.0 appears 2 times",
    "evaluation.max_kl=.inf": "evaluation.max_kl: expected a finite number",
    "evaluation.bootstrap_samples=10000000000": "evaluation.bootstrap_samples: Input should be",
    "evaluation.top_k=[41]": "evaluation.top_k holds 41",
    "evaluation.max_new_tokens=250": "with 250 new tokens are longer than the model's 256",
    "evaluation.judge=lacking": "needs the Python module 'no_such_module'",
    "model.chat_template=true": "model.chat_template is true, but the embedded model 'demo' has",
    "model.system_prompt=hi": "",
    "data.n_folds=60": "180 questions, but 60 folds",
    "execution.device=gpu": "unknown device 'gpu'",
    "localizer.params.epochs=0": "localizer.params.epochs: Input should be",
    "baselines.0.params.nonsense=1": "baselines.0.params.nonsense: unknown key",
    "evaluation.lm_eval_tasks.²=1": "'²' is no place in a list",
    "extraction.dtype=!!int abc": "extraction.dtype",
}


@pytest.fixture
def judge_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    JUDGES["exact_match"]  # All judges are registered now.

    class Lacking:
        libraries = ("no_such_module",)

        class Params(Frozen):
            pass

    monkeypatch.setitem(JUDGES._entries, "lacking", Lacking)


@pytest.fixture
def no_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a stage was run")

    for work in (
        "real_tasks.models.embedded.demo.train",
        "real_tasks.models.loading.read_weights",
        "real_tasks.tasks.cache.stage.Stage._configured",
        "flows.commands.launch._run",
    ):
        monkeypatch.setattr(work, never)


@pytest.mark.usefixtures("judge_without_its_library", "no_stage")
def test_all_that_is_wrong_is_told_in_one_error_before_any_stage(home: Path) -> None:
    with pytest.raises(SeveralFaultsError) as caught:
        load_prepared(None, list(TOGETHER))
    told = str(caught.value)
    for said in TOGETHER.values():
        assert said in told
    n_faults = len([said for said in TOGETHER.values() if said])
    assert len(caught.value.faults) == n_faults, told
    assert not home.exists()


@pytest.mark.usefixtures("judge_without_its_library", "no_stage", "home")
@pytest.mark.parametrize("command", ["run", "transfer"])
def test_a_command_ends_with_that_one_error(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviours = "behaviours=[demo_truth,demo_options]"
    given = [*TOGETHER, *([behaviours] if command == "transfer" else [])]
    with pytest.raises(SystemExit) as ended:
        main([command, *(part for one in given for part in ("--set", one))])
    assert ended.value.code == 2
    assert "things are wrong" in capsys.readouterr().err


@pytest.mark.usefixtures("judge_without_its_library")
@pytest.mark.parametrize("assignment", [one for one in TOGETHER if TOGETHER[one]])
def test_each_of_them_is_told_alone_as_well(assignment: str) -> None:
    with pytest.raises(UserInputError) as caught:
        load_prepared(None, [assignment])
    assert not isinstance(caught.value, SeveralFaultsError), caught.value
    assert TOGETHER[assignment] in str(caught.value)


def test_what_only_follows_from_another_fault_is_not_told() -> None:
    with pytest.raises(UserInputError) as caught:
        load_prepared(None, ["behaviour.name=jsonl", "behaviour.params.path=[3]", "localizer=reel"])
    faults = caught.value.faults if isinstance(caught.value, SeveralFaultsError) else ()
    assert [fault.split(":")[0] for fault in faults] == [
        "behaviour.params.path",
        "unknown localizer 'reel'; known",
    ]


def test_faults_of_a_file_of_questions_and_of_a_checkpoint_are_told_with_those_of_fields(
    tmp_path: Path,
) -> None:
    model = tmp_path / "model"
    tiny_llama().save_pretrained(model)
    tiny_tokenizer(words=(*WORDS, "more")).save_pretrained(model)
    row = {"question": "w1 ?", "aligned": ["w2"], "violating": ["w3"]}
    questions = tmp_path / "own.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for _ in range(3)))
    (tmp_path / "neutral.txt").write_text("one\n")
    own = {
        "model": {"path": str(model)},
        "behaviour": {"name": "jsonl", "params": {"path": str(questions)}},
        "evaluation": {"neutral": str(tmp_path / "neutral.txt")},
        "seeds": [1, 1],
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    with pytest.raises(SeveralFaultsError) as caught:
        load_prepared(tmp_path / "own.yaml", [])
    told = str(caught.value)
    assert "1 tokens beyond the model's 68 embeddings" in told
    assert "seeds: 1 appears 2 times" in told
    assert "line 2" in told


def test_a_transfer_tells_the_faults_of_all_its_behaviours_together() -> None:
    with pytest.raises(SeveralFaultsError) as caught:
        load_prepared_transfer(
            None,
            [
                "behaviours=[demo_truth, lies, {name: jsonl, params: {path: gone.jsonl}}]",
                "seeds=[]",
            ],
        )
    told = str(caught.value)
    for said in ("seeds", "unknown behaviour 'lies'", "gone.jsonl"):
        assert told.count(said) == 1, told


def test_a_transfer_with_a_doubtful_model_tells_that_fault_alone() -> None:
    assignment = "model.shape.d_model={a: 1}"
    with pytest.raises(UserInputError, match=r"experiment\.model\.shape") as caught:
        load_prepared_transfer(None, [assignment])
    assert "behaviour" not in str(caught.value)


def test_an_emptied_field_of_a_form_means_none_given() -> None:
    assert RescoreConfig.model_validate({"baseline": "", "top_k": ""}) == RescoreConfig()
    emptied = {"model": {"revision": ""}, "data": {"limit": ""}, "execution": {"address": ""}}
    assert ExperimentConfig.model_validate(emptied) == ExperimentConfig()


@pytest.mark.usefixtures("no_stage")
def test_no_field_with_a_bad_value_gets_to_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset_of(resolved(ExperimentConfig()))
    monkeypatch.setattr("real_tasks.experiment.sources.dataset_of", lambda _: data)
    monkeypatch.setattr("real_tasks.experiment.checks.check_texts", lambda *_: None)
    for path in leaves(ExperimentConfig):
        if path[0] in ("execution", "behaviour") or path == ("evaluation", "lm_eval_tasks"):
            continue
        for value in (math.nan, -1, 10**30, "\0", [0, 0], {"x": {"y": 1}}):
            tree: Any = value
            for name in reversed(path):
                tree = {name: tree}
            try:
                prepare(ExperimentConfig.model_validate(tree))
            except (ValidationError, UserInputError) as error:
                assert str(error), path
