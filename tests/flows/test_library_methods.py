"""Methods of the library and one of one's own, from the configuration to tables and report."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flows.experiment import Summary, experiment
from real_tasks.experiment.yaml_files import load_config
from real_tasks.steering import SteeringSpec
from storage.paths import Home
from storage.runs.run import run_folder
from storage.sql.catalog import Catalog
from tests.flows.test_experiment import SMALL

pytestmark = pytest.mark.usefixtures("prefect_server")

LIBRARY = "directional_ablation, cast, angular_steering, iti_ablation, stmp, sttp, thinkedit"
OWN = (
    "{name: erase_first, like: iti_ablation, operator: {name: project_out}, strengths: [0.5], "
    "scope: {first: 1, last: 2}, keep_norm: true}"
)
TRAINED = "{name: trained, like: bipo, fitter: {name: bipo, params: {steps: 2}}}"


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: None
) -> Iterator[tuple[Home, Summary]]:
    root = tmp_path_factory.mktemp("library") / "home"
    methods = f"methods=[unsteered, real, {LIBRARY}, {OWN}, {TRAINED}]"
    config = load_config(None, [*SMALL, "baselines=[iti]", methods])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REAL_HOME", str(root))
        yield Home(root), experiment(config)


def ask(home: Home, query: str) -> list[tuple]:
    return [tuple(row.values()) for row in Catalog(home).query(query).to_pylist()]


def test_what_each_method_is_made_of_is_a_table(run: tuple[Home, Summary]) -> None:
    home, _ = run
    rows = ask(home, "SELECT method, localizer, fitter, operator, gate, scope FROM methods")
    found = {row[0]: row[1:] for row in rows}
    assert found["unsteered"] == (None, None, None, None, "all")
    assert found["real"] == ("real", "mean_difference", "add", None, "all")
    assert found["cast"] == ("causal", "mean_difference", "add", "prompt_similarity", "all")
    assert found["angular_steering"] == ("opposite_sign", "plane", "rotate", None, "all")
    assert found["sttp"] == ("iti", "mean_difference", "clamp", "coordinate", "all")
    assert found["trained"] == ("causal", "bipo", "add", None, "all")
    assert found["thinkedit"] == ("direct_write", "direct_write", "remove_write", None, "all")
    own = ("iti", "mean_difference", "project_out", None, "first 1 and last 2 of the prompt")
    assert found["erase_first"] == own


def test_every_method_is_tuned_on_its_own_strengths_and_tested(run: tuple[Home, Summary]) -> None:
    home, _ = run
    query = "SELECT method, list_sort(list(DISTINCT alpha)) FROM evaluations GROUP BY method"
    grids = dict(ask(home, query))
    assert set(grids["directional_ablation"]) <= {0.25, 0.5, 0.75, 1.0, None}
    assert set(grids["erase_first"]) <= {0.5, None} and set(grids["real"]) <= {1.0, None}
    query = "SELECT DISTINCT method FROM evaluations WHERE split = 'test' AND metric = 'mc1'"
    assert len(ask(home, query)) == 11
    query = "SELECT DISTINCT method FROM evaluations WHERE metric = 'kl_open'"
    assert {row[0] for row in ask(home, query)} <= {"cast", "sttp"}


def test_only_the_layer_that_is_steered_is_trained(run: tuple[Home, Summary]) -> None:
    home, summary = run
    folder = run_folder(home, summary.run_id) / "specs" / "trained"
    best = "localizer = 'causal' AND module_kind = 'layer' AND rank = 1"
    wanted = ask(home, f"SELECT fold, layer FROM module_scores WHERE {best}")
    for fold, layer in wanted:
        (edit,) = SteeringSpec.load(folder / f"fold-{fold}-seed-0").edits
        assert [module.layer for module in edit.modules] == [layer]
    kept = [load_file(path) for path in home.artifacts.glob("model_fits/*/tensors.safetensors")]
    trained = [found["direction"].isfinite().all(dim=-1) for found in kept if "direction" in found]
    assert [int(modules.sum()) for modules in trained] == [1] * len(wanted)


def test_its_steering_is_kept_as_a_spec_that_says_what_it_does(run: tuple[Home, Summary]) -> None:
    home, summary = run
    folder = run_folder(home, summary.run_id) / "specs"
    spec = SteeringSpec.load(folder / "directional_ablation" / "fold-0-seed-0")
    assert [edit.kind for edit in spec.edits] == ["residual_in", "attention", "mlp"]
    first = spec.edits[0].tensors["direction"][0]
    for edit in spec.edits:
        assert torch.equal(edit.tensors["direction"], first.expand(len(edit.modules), -1))
    assert "x - s * (v . x) v" in spec.explain()
    assert spec.provenance["prompt"]["template"] == "Q: {question} A:"
    own = SteeringSpec.load(folder / "erase_first" / "fold-0-seed-0")
    assert own.edits[0].keep_norm and "first 1 and last 2 of the prompt" in own.explain()


def test_the_report_names_the_methods_as_people_read_them(run: tuple[Home, Summary]) -> None:
    text = Path(run[1].report).read_text(encoding="utf-8")
    for label in (
        "directional ablation",
        "CAST (behind a gate)",
        "angular steering",
        "erase first",
    ):
        assert label in text
