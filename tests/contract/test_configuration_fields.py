"""Every field of every configuration, with bad values: one clear error, or rightly accepted."""

import math
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from real_tasks.behaviours import BEHAVIOURS
from real_tasks.checks import resolved
from real_tasks.config import ExperimentConfig, Frozen, TransferConfig
from real_tasks.configuration import load_config
from real_tasks.errors import UserInputError
from real_tasks.evaluation.judges import JUDGES
from real_tasks.localizers import LOCALIZERS
from real_tasks.organism import EMBEDDED_MODELS
from real_tasks.registry import Registry
from real_tasks.rescore_config import RescoreConfig

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
