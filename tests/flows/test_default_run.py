"""What is done with a run whose methods, measures and all else were left at their defaults."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.utilities.callables import parameter_schema
from typer.testing import CliRunner

from flows.clean import clean
from flows.cli import app, in_words
from flows.compact import compact
from flows.compare import compare
from flows.experiment import Summary, experiment
from flows.rescore import rescore
from flows.transfer import transfer
from real_tasks.experiment.methods.known import with_methods
from real_tasks.experiment.prepared import handing_over, prepare
from real_tasks.experiment.yaml_files import load_config
from real_tasks.questions.behaviours.jsonl import OwnFile
from real_tasks.tasks.reports import write_report
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.rescore_config import RescoreConfig
from real_tasks.vocabulary.types import BehaviourData
from storage.paths import Home
from storage.sql.catalog import Catalog
from tests.drill.harm import DAMAGES, harmed
from tests.flows.test_experiment import SMALL
from tests.flows.test_rescore import DATA, lines
from tests.forms import sent

pytestmark = pytest.mark.usefixtures("prefect_server")

N_QUESTIONS = 12
OWN = [
    # Sizes and effort, and whose questions; what is empty by default stays so.
    *(one for one in SMALL if not one.startswith("methods")),
    "behaviour={name: jsonl, params: {path: questions.jsonl}}",
    "evaluation.neutral=neutral.txt",
    "evaluation.max_kl=100",
]


def rows(root: Path, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Catalog(Home(root)).query(sql).to_pylist()
    return found


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: None
) -> Iterator[tuple[Path, Summary, list[int]]]:
    """A home with a run that was prepared by its command, and how often its data were read."""
    root, reads = tmp_path_factory.mktemp("default"), [0]
    (root / "neutral.txt").write_text("\n\n".join(DATA.neutral_texts[:4]))
    (root / "questions.jsonl").write_text(lines(0, N_QUESTIONS))
    load = OwnFile.load

    def counted(self: OwnFile) -> BehaviourData:
        reads[0] += 1
        return load(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REAL_HOME", str(root / "home"))
        patch.chdir(root)
        patch.setattr(OwnFile, "load", counted)
        with handing_over(prepare(load_config(None, OWN))) as config:
            summary = experiment(config)
        yield root, summary, reads


@pytest.fixture
def home(
    made: tuple[Path, Summary, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of that home, the current one, beside the questions in the present folder."""
    folder = tmp_path / "folder"
    shutil.copytree(made[0], folder, ignore=shutil.ignore_patterns("mlflow"))
    monkeypatch.setenv("REAL_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    return folder / "home"


def from_its_form(flow: Flow[..., Any], **changes: Any) -> Any:
    """Run a flow as the Run button of its deployment does; the form is changed in some fields."""
    schema = parameter_schema(flow).model_dump(mode="json", exclude_unset=True)
    return flow(**flow.validate_parameters({"config": sent(schema) | changes}))


def stored(root: Path, run_id: str) -> Path:
    return root / "runs" / run_id / "config.yaml"


def test_the_questions_are_read_once_by_the_command_and_the_flow_together(
    made: tuple[Path, Summary, list[int]],
) -> None:
    assert made[2] == [1]


def test_what_is_stored_is_complete_and_runs_again_from_the_cache(
    made: tuple[Path, Summary, list[int]], home: Path
) -> None:
    config = load_config(stored(home, made[1].run_id), [])
    assert config == with_methods(config) and len(config.methods) > 5
    assert config.evaluation.measures == ("multiple_choice", "generation")
    assert config.evaluation.objective == ("mc1", "mc2", "true_share")
    assert prepare(config).config == config
    again = experiment(config)
    assert {stage["stage"] for stage in again.stages if stage["cached"] != stage["shards"]} == set()


def test_a_default_run_is_scored_again_and_only_new_data_are_work(home: Path) -> None:
    nothing = rescore()
    assert nothing.changed == [] and "Nothing is new" in nothing.sentences[0]
    Path("questions.jsonl").write_text(lines(0, N_QUESTIONS + 4))
    new = rescore()
    assert new.changed == ["data"]
    (overall,) = rows(home, "FROM score_drift WHERE fold IS NULL AND changed")
    assert (overall["method"], overall["localizer"]) == ("real", "real")
    assert (overall["data_questions"], overall["new_questions"]) == (N_QUESTIONS + 4, 4)
    assert overall["gain"] is not None and overall["gain_before"] is not None


def test_a_run_that_an_earlier_version_stored_incomplete_is_completed_when_it_is_read(
    made: tuple[Path, Summary, list[int]], home: Path
) -> None:
    path = stored(home, made[1].run_id)
    tree = yaml.safe_load(path.read_text())
    tree["methods"], tree["evaluation"]["measures"], tree["evaluation"]["objective"] = [], [], []
    path.write_text(yaml.safe_dump(tree))
    (path.parent / "SHA256SUMS").unlink()
    assert rescore().changed == []
    assert rescore(RescoreConfig(method="caa")).changed == []
    arguments = ["export", "--method", "iti", "--format", "spec", "--to", str(home.parent / "iti")]
    assert CliRunner().invoke(app, arguments).exit_code == 0


def test_a_default_run_is_compared_reported_exported_compacted_and_cleaned(
    made: tuple[Path, Summary, list[int]], home: Path
) -> None:
    assert write_report(Home(home), None).read_text() == Path(made[1].report).read_text().replace(
        str(made[0] / "home"), str(home)
    )
    other = experiment(load_config(None, OWN))
    compared = from_its_form(compare)
    assert (compared.run_id, compared.other) == (other.run_id, made[1].run_id)
    for format in ("spec", "lofit", "checkpoint"):
        to = home.parent / format
        arguments = ["export", "--format", format, "--to", str(to)]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        assert (to / "README.md").is_file()
    before = rows(home, "SELECT count(*) AS n FROM evaluations")
    merged = from_its_form(compact, older_than_days=0, min_parts=1)
    assert any(line.startswith("evaluations") for line in merged)
    assert rows(home, "SELECT count(*) AS n FROM evaluations") == before
    assert from_its_form(clean).counts == {}
    assert rescore().changed == []


def test_a_default_run_is_the_source_of_a_transfer_that_takes_its_stages_from_the_cache(
    made: tuple[Path, Summary, list[int]], home: Path
) -> None:
    Path("others.jsonl").write_text(lines(N_QUESTIONS, 2 * N_QUESTIONS))
    shared = load_config(None, OWN).model_dump(mode="json")
    others = {"name": "jsonl", "params": {"path": "others.jsonl"}}
    both = [shared["behaviour"], others]
    done = from_its_form(transfer, experiment=shared, behaviours=both)
    cells = rows(home, "FROM transfer WHERE fold IS NULL AND metric = 'objective'")
    assert len(cells) == 4 and {cell["method"] for cell in cells} == {"real"}
    cached = {stage["stage"] for stage in done.stages if stage["cached"] == stage["shards"]}
    assert {"dataset", "checkpoint", "activations", "scores"} <= cached
    assert rescore(RescoreConfig(baseline=made[1].run_id)).changed == []


READ_BY = {
    "sql": ("table of runs", "table", "samples", "folder of a table", "folder of a run"),
    "report": ("record", "configuration", "words of pictures", "checksums", "report"),
    "export": ("spec", "tensors of a spec"),
}


@pytest.mark.parametrize(("command", "kind"), [(c, kind) for c in READ_BY for kind in READ_BY[c]])
def test_a_damaged_file_is_said_in_words_or_read_around(
    home: Path, command: str, kind: str
) -> None:
    """One damage a kind, by chance; `tests.drill.damage` tries all of them."""
    arguments = {
        "sql": ["sql", "FROM runs, samples, evaluations LIMIT 1"],
        "report": ["report"],
        "export": ["export", "--format", "spec", "--to", "spec"],
    }
    draw = Random(f"{command} {kind}")
    assert any(harmed(home, kind, how, draw) for how in draw.sample([*DAMAGES], len(DAMAGES)))
    failed = CliRunner().invoke(app, arguments[command]).exception
    assert failed is None or isinstance(failed, SystemExit) or in_words(failed), failed


def test_a_form_may_leave_out_or_empty_whatever_has_a_default() -> None:
    forms: list[dict[str, Any]] = [
        {},
        {"methods": [], "evaluation": {"measures": [], "objective": []}},
        {"localizer": {"name": "real"}, "behaviour": {"name": "demo_truth", "params": {}}},
    ]
    found = [prepare(ExperimentConfig.model_validate(form)).config for form in forms]
    assert found[0] == found[1] == found[2] == prepare(found[0]).config
