"""What the project deploys: forms that a person can fill in, schedules that parse, entrypoints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError, validate
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from flows.stack.deployments import (
    FOLDER,
    PREFECT_FILE,
    DeploymentSpec,
    flow_of,
    read_automations,
    read_deployments,
)
from real_tasks.evaluation.judges import JUDGES
from real_tasks.localizers import LOCALIZERS
from real_tasks.questions.behaviours import BEHAVIOURS
from real_tasks.vocabulary.config_forms import OneOf
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig, TransferConfig

SPECS = {spec.name: spec for spec in read_deployments()}


def schema_of(flow: Flow[..., Any]) -> dict[str, Any]:
    return parameter_schema(flow).model_dump(mode="json", exclude_unset=True)


@pytest.fixture(scope="module")
def schemas() -> dict[str, dict[str, Any]]:
    """The form of every deployment, as the server gets it."""
    return {name: schema_of(flow_of(spec)) for name, spec in SPECS.items()}


def fields(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of a form, nested ones and those of list items too, with its path."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields(field, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from fields(schema["items"], path)
    for name, definition in schema.get("definitions", {}).items():
        yield from fields(definition, name)


def test_the_file_declares_the_flows_that_the_project_has() -> None:
    assert set(SPECS) >= {"experiment", "rescore", "transfer", "compare", "clean"}
    for spec in SPECS.values():
        assert spec.description and spec.tags


@pytest.mark.parametrize("name", SPECS)
def test_an_entrypoint_is_a_module_path_and_imports(name: str) -> None:
    assert ":" not in SPECS[name].entrypoint
    flow = flow_of(SPECS[name])
    assert flow.name == {"leaderboard": "experiment"}.get(name, name)
    assert flow.description and flow.flow_run_name


@pytest.mark.parametrize("entrypoint", ["flows.nowhere.flow", "flows.clean.nothing", "flows"])
def test_an_entrypoint_that_cannot_be_imported_is_named(entrypoint: str) -> None:
    wrong = SPECS["clean"].model_copy(update={"entrypoint": entrypoint})
    with pytest.raises(UserInputError, match="'clean' names .* cannot be imported"):
        flow_of(wrong)


def test_an_entrypoint_that_is_no_flow_is_named() -> None:
    wrong = SPECS["clean"].model_copy(update={"entrypoint": "flows.stack.deployments.register_all"})
    with pytest.raises(UserInputError, match="which is a function"):
        flow_of(wrong)


def test_every_field_of_every_form_has_a_title_and_a_description(
    schemas: dict[str, dict[str, Any]],
) -> None:
    for name, schema in schemas.items():
        for path, field in fields(schema):
            assert field.get("description"), f"{name}: {path} has no description"
            titled = field.get("title") or field.get("$ref")
            assert titled and "_" not in titled.removeprefix("#/definitions/"), f"{name}: {path}"
        for definition in schema["definitions"].values():
            assert definition["title"] and "Config" not in definition["title"]


def test_every_form_is_filled_in_before_anybody_touches_it(
    schemas: dict[str, dict[str, Any]],
) -> None:
    for name, schema in schemas.items():
        config = schema["properties"]["config"]
        assert config["default"], name
        validate({"config": config["default"]}, schema)
        for path, field in fields(schema):
            required = path.endswith(".name") or "KnownShape." in path or "behaviours" in path
            assert required or "default" in field, f"{name}: {path} is empty in the form"


def test_the_defaults_of_a_form_are_those_of_the_code(schemas: dict[str, dict[str, Any]]) -> None:
    default = schemas["experiment"]["properties"]["config"]["default"]
    assert ExperimentConfig.model_validate(default) == ExperimentConfig()
    carried = TransferConfig.model_validate(schemas["transfer"]["properties"]["config"]["default"])
    assert [behaviour.name for behaviour in carried.behaviours] == ["demo_truth", "demo_options"]


def test_names_are_chosen_from_the_registries(schemas: dict[str, dict[str, Any]]) -> None:
    definitions = schemas["experiment"]["definitions"]
    config = definitions["ExperimentConfig"]["properties"]
    judge = definitions["EvaluationConfig"]["properties"]["judge"]
    assert config["behaviour"]["properties"]["name"]["enum"] == list(BEHAVIOURS)
    assert config["localizer"]["properties"]["name"]["enum"] == list(LOCALIZERS)
    assert config["baselines"]["items"]["properties"]["name"]["enum"] == list(LOCALIZERS)
    assert judge["properties"]["name"]["enum"] == list(JUDGES)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("behaviour", "name", "no_such_behaviour"),
        ("data", "n_folds", 1),
        ("evaluation", "max_kl", 0),
        ("evaluation", "top_k", [0]),
        ("evaluation", "alphas", []),
        ("model", "dtype", "float8"),
        ("execution", "retries", -1),
        ("model", "unknown", 1),
    ],
)
def test_a_wrong_value_is_refused_before_a_run_is_made(
    schemas: dict[str, dict[str, Any]], section: str, field: str, value: Any
) -> None:
    schema = schemas["experiment"]
    config = ExperimentConfig().model_dump(mode="json")
    config[section][field] = value
    with pytest.raises(ValidationError):
        validate({"config": config}, schema)


@pytest.mark.parametrize("name", SPECS)
def test_parameters_of_a_deployment_and_its_schedules_fit_the_form(
    name: str, schemas: dict[str, dict[str, Any]]
) -> None:
    spec = SPECS[name]
    validate(spec.parameters, {**schemas[name], "required": []})
    flow = flow_of(spec)
    for schedule in spec.schedules:
        validate(schedule.parameters, {**schemas[name], "required": []})
        flow.validate_parameters({**spec.parameters, **schedule.parameters})


@pytest.mark.parametrize("name", SPECS)
def test_schedules_parse_have_a_slug_and_are_off(name: str) -> None:
    schedules = SPECS[name].schedules
    slugs = [schedule.slug for schedule in schedules]
    assert all(slugs) and len(set(slugs)) == len(slugs)
    declared = yaml.safe_load(PREFECT_FILE.read_text())["deployments"]
    (written,) = [one.get("schedules", []) for one in declared if one["name"] == name]
    for said, made in zip(written, schedules, strict=True):
        assert (made.slug, made.cron, made.active) == (said["slug"], said.get("cron"), False)
        seconds = made.interval and made.interval.total_seconds()
        assert seconds == said.get("interval")


def test_there_are_examples_of_cron_and_of_interval_and_re_scoring_has_both() -> None:
    re_scoring = SPECS["rescore"].schedules
    assert any(schedule.cron for schedule in re_scoring)
    assert any(schedule.interval for schedule in re_scoring)


@pytest.mark.parametrize("name", SPECS)
def test_a_run_too_many_waits_in_line(name: str) -> None:
    limit = SPECS[name].concurrency_limit
    assert limit.limit >= 1
    assert limit.collision_strategy.value == "ENQUEUE"


def test_prefects_own_command_reads_the_file_alike() -> None:
    from prefect.cli.deploy._models import PrefectYamlModel

    model = PrefectYamlModel.model_validate(yaml.safe_load(PREFECT_FILE.read_text()))
    assert [one.name for one in model.deployments] == list(SPECS)
    for one in model.deployments:
        assert one.work_pool is not None and one.work_pool.name == "real"
        slugs = [getattr(schedule, "slug", None) for schedule in one.schedules or []]
        assert slugs == [schedule.slug for schedule in SPECS[str(one.name)].schedules]


def test_automations_are_prefects_and_the_one_that_acts_on_drift_is_off() -> None:
    automations = {automation.name: automation for automation in read_automations()}
    assert not automations["Drift pauses re-scoring"].enabled
    assert automations["Runs that were killed are set to Crashed"].enabled


def test_the_leaderboard_is_deployed_as_its_file_runs_it() -> None:
    file = yaml.safe_load((FOLDER / "experiments" / "leaderboard.yaml").read_text())
    assert SPECS["leaderboard"].parameters == {"config": file}
    assert [one.active for one in SPECS["leaderboard"].schedules] == [False]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "(?s)does not declare deployments.*valid dictionary"),
        ("a: [", "no YAML"),
        ("name: x", "does not declare deployments"),
        ("deployments: [{name: x}]", "does not declare deployments"),
    ],
)
def test_a_wrong_file_is_an_error_that_says_why(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "prefect.yaml"
    path.write_text(text)
    with pytest.raises(UserInputError, match=says):
        read_deployments(path)


def test_a_missing_file_is_an_error_that_says_where_deployments_come_from(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="from a checkout"):
        read_deployments(tmp_path / "nowhere.yaml")


def test_titles_are_words(schemas: dict[str, dict[str, Any]]) -> None:
    definitions = schemas["experiment"]["definitions"]
    titles = {
        name: field.get("title")
        for part in ("ExperimentConfig", "EvaluationConfig", "DataConfig", "ExecutionConfig")
        for name, field in definitions[part]["properties"].items()
    }
    expected = {
        "max_kl": "Max KL",
        "n_folds": "Number of folds",
        "top_k": "K (modules)",
        "seeds": "Seeds",
        "max_new_tokens": "Max new tokens",
        "cpus_per_task": "CPUs per task",
        "methods": "Methods (none named: the default ones)",
    }
    assert {name: titles[name] for name in expected} == expected
    assert definitions["ExperimentConfig"]["title"] == "Experiment"


def test_a_kind_without_a_registry_is_typed_and_not_chosen() -> None:
    from typing import Annotated

    from pydantic import TypeAdapter

    schema = TypeAdapter(Annotated[str, OneOf("no such kind")]).json_schema()
    assert schema == {"type": "string"}


def test_deployments_of_one_machine_have_one_pool() -> None:
    assert {spec.work_pool.name for spec in SPECS.values()} == {"real"}
    assert isinstance(next(iter(SPECS.values())), DeploymentSpec)
