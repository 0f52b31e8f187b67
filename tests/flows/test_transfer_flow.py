"""Transfer between two behaviours of the demo, on a model that was hardly trained."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.experiment import Summary
from flows.transfer import transfer
from real_tasks.evaluation.measuring import Evaluator, Measurement
from real_tasks.experiment.yaml_files import load_transfer_config
from real_tasks.tasks.reports import write_report
from real_tasks.vocabulary.errors import OverflowedError, UserInputError
from real_tasks.vocabulary.experiment_config import TransferConfig
from storage.paths import Home
from storage.sql.catalog import Catalog
from storage.tracking.tracker import Tracker
from tests.flows.test_experiment import SMALL

pytestmark = pytest.mark.usefixtures("prefect_server")

BOTH = "behaviours=[demo_truth, demo_options]"


def small(*changes: str) -> TransferConfig:
    kept = [one for one in SMALL if not one.startswith("methods")]
    return load_transfer_config(None, [*kept, BOTH, *changes])


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: None
) -> Iterator[tuple[Path, Summary]]:
    root = tmp_path_factory.mktemp("transfer") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REAL_HOME", str(root))
        yield root, transfer(small())


def rows(root: Path, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Catalog(Home(root)).query(sql).to_pylist()
    return found


def test_every_behaviour_is_measured_with_what_was_found_on_every_other(
    made: tuple[Path, Summary],
) -> None:
    root, summary = made
    pairs = rows(root, "SELECT DISTINCT source, target FROM transfer WHERE fold IS NULL")
    names = ("demo_truth", "demo_options")
    assert {(p["source"], p["target"]) for p in pairs} == {(a, b) for a in names for b in names}
    (run,) = rows(root, "FROM runs")
    assert (run["run_id"], run["flow"], run["status"]) == (
        summary.run_id,
        "transfer",
        "completed",
    )
    assert run["behaviour"] == "demo_truth, demo_options"


def test_a_behaviour_on_itself_is_the_ordinary_test_of_its_own_evaluation(
    made: tuple[Path, Summary],
) -> None:
    root, _ = made
    found = rows(
        root,
        "SELECT fold, steered, unsteered, n_excluded FROM transfer WHERE source = 'demo_truth' "
        "AND target = 'demo_truth' AND metric = 'mc2' AND fold IS NOT NULL",
    )
    tested = []
    for path in (root / "artifacts" / "evaluation").glob("*/evaluation.json"):
        metrics = json.loads(path.read_text())["test"]["metrics"]
        if "mc2" in metrics:
            tested.append(metrics["mc2"])
    assert {row["n_excluded"] for row in found} == {0}
    for row in found:
        assert any(row["steered"] == pytest.approx(value) for value in tested)
        assert any(row["unsteered"] == pytest.approx(value) for value in tested)


def test_a_run_leaves_a_report_pictures_and_an_mlflow_run(made: tuple[Path, Summary]) -> None:
    root, summary = made
    page = Path(summary.report).read_text()
    assert "demo_options" in page and "data:image/png" in page
    assert write_report(Home(root), summary.run_id).read_text() == page
    assert list((root / "runs" / summary.run_id / "figures").glob("transfer_*.png"))
    client = Tracker(Home(root))._client
    run = client.get_run(rows(root, "FROM runs")[0]["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert "gain/demo_truth-to-demo_options/option_accuracy" in run.data.metrics


class Overflowing(Evaluator):
    """Measures a model that steering drives out of its type's range on one behaviour."""

    def __init__(self, loaded: Any, data: Any, *further: Any) -> None:
        super().__init__(loaded, data, *further)
        self._overflows = data.name == "demo_options"

    def measure(self, part: Any, spec: Any) -> Measurement:
        if spec is not None and self._overflows:
            raise OverflowedError("logits with NaN")
        return super().measure(part, spec)


def test_what_overflows_on_another_behaviour_is_left_out_and_said(
    made: tuple[Path, Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made[0] / "artifacts", tmp_path / "artifacts")
    shutil.rmtree(tmp_path / "artifacts" / "measured")
    monkeypatch.setenv("REAL_HOME", str(tmp_path))
    monkeypatch.setattr("real_tasks.tasks.stages.measured.Evaluator", Overflowing)
    summary = transfer(small())
    pairs = rows(tmp_path, "SELECT DISTINCT source, target FROM transfer")
    assert {pair["target"] for pair in pairs} == {"demo_truth"}
    page = Path(summary.report).read_text()
    said = [text for text in summary.warnings if "overflows float32 on demo_options" in text]
    assert said and said == summary.warnings
    assert all(text in page for text in said)


def test_where_every_strength_overflows_the_result_says_that_nothing_is_steered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAL_HOME", str(tmp_path))
    summary = transfer(small("model.dtype=float16", "evaluation.alphas=[1e9]"))
    assert {text.split(" in fold")[0] for text in summary.warnings} == {
        f"nothing is steered by what was found on {name}" for name in ("demo_truth", "demo_options")
    }
    gains = rows(tmp_path, "SELECT DISTINCT gain FROM transfer WHERE fold IS NULL")
    assert gains == [{"gain": 0.0}]


def test_a_single_behaviour_cannot_be_carried_over() -> None:
    with pytest.raises(UserInputError, match="behaviours"):
        load_transfer_config(None, ["behaviours=[demo_truth]"])
