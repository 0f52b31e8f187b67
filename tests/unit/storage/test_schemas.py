from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage.errors import StorageError
from storage.tables.rows import SchemaError, to_table
from storage.tables.schemas import ACTIVATIONS, TABLES
from tests.unit.storage_rows import run_row

EVALUATION: dict[str, Any] = {
    "run_id": "r1",
    "model": "m",
    "model_id": "0",
    "behaviour": "b",
    "method": "real",
    "fold": 0,
    "seed": 1,
    "split": "test",
    "top_k": 8,
    "alpha": 1.8,
    "token_scope": "all",
    "metric": "mc1",
    "value": 0.5,
}
SELECTED: dict[str, Any] = {
    "run_id": "r1",
    "method": "real",
    "fold": 0,
    "seed": 1,
    "module_kind": "head",
    "layer": 2,
    "head": 3,
    "rank": 1,
    "score": 0.8,
    "strength": 1.0,
}
RUN = run_row("r1")


def test_the_views_have_the_promised_columns_in_the_promised_order() -> None:
    expected = {
        "runs": """run_id flow started_at finished_at status model model_id behaviour seed
            config_digest git_commit mlflow_run_id""",
        "samples": "behaviour question_id answer_id category question answer label is_best fold",
        "module_scores": """run_id model model_id behaviour localizer protocol fold seed module_kind
            layer head roc_auc roc_auc_low roc_auc_high aupr f1 perplexity reconstruction_loss
            collapsed rank score""",
        "selected_modules": "run_id method fold seed module_kind layer head rank score strength",
        "evaluations": """run_id model model_id behaviour method fold seed split top_k alpha
            token_scope metric value""",
        "methods": """run_id method localizer fitter operator gate scope bounded source
            fit_seconds token_seconds bare_token_seconds bakes""",
        "text_scores": "run_id behaviour classifier fold split roc_auc n_answers",
        "answers": "run_id method fold seed question_id question generation verdict",
        "comparisons": """run_id behaviour method baseline basis metric difference low high
            n_questions""",
        "transfer": """run_id model model_id source target method fold seed metric steered
            unsteered gain low high n_questions n_excluded""",
        "stage_timings": "run_id stage shard seconds cached worker device",
        "score_drift": """run_id baseline_run_id compared_run_id model model_id behaviour localizer
            method fold seed module_kind changed what_changed exceeded data_questions new_questions
            gone_questions n_modules spearman spearman_low spearman_high top_k shared overlap
            overlap_low overlap_high entered left auc_mean auc_change auc_change_low auc_change_high
            auc_best_change auc_best_change_low auc_best_change_high auc_largest_change
            auc_largest_change_low auc_largest_change_high auc_largest_module gain gain_low
            gain_high gain_before gain_change gain_change_low gain_change_high n_questions
            n_excluded""",
    }
    assert {name: table.schema.names for name, table in TABLES.items()} == {
        name: columns.split() for name, columns in expected.items()
    }


def test_every_table_and_column_is_described() -> None:
    for table in [*TABLES.values(), ACTIVATIONS]:
        assert table.description
        for field in table.schema:
            assert field.metadata[b"description"], field.name


def test_a_column_has_one_type_in_every_table() -> None:
    types: dict[str, set[str]] = {}
    for table in TABLES.values():
        for field in table.schema:
            types.setdefault(field.name, set()).add(str(field.type))
    assert all(len(found) == 1 for found in types.values()), types


def test_rows_become_a_table_of_the_declared_schema_with_their_values() -> None:
    unsteered = EVALUATION | {"method": "unsteered", "top_k": None, "alpha": None}
    table = to_table("evaluations", [EVALUATION, unsteered])
    assert table.schema.equals(TABLES["evaluations"].schema)
    assert table.to_pylist() == [EVALUATION, unsteered]


def test_no_rows_become_an_empty_table() -> None:
    for name, declared in TABLES.items():
        table = to_table(name, [])
        assert table.num_rows == 0
        assert table.schema.equals(declared.schema)


def test_columns_may_be_given_in_any_order() -> None:
    backwards = dict(reversed(EVALUATION.items()))
    assert to_table("evaluations", [backwards]).equals(to_table("evaluations", [EVALUATION]))


def test_numpy_scalars_are_numbers_like_any_other() -> None:
    row = EVALUATION | {"fold": np.int64(1), "alpha": np.float64(0.1), "value": np.float32(0.5)}
    assert to_table("evaluations", [row]).to_pylist()[0]["value"] == 0.5


def test_times_of_any_zone_are_stored_in_utc() -> None:
    zone = timezone(timedelta(hours=9))
    row = RUN | {"started_at": datetime(2026, 1, 2, 12, tzinfo=zone)}
    stored = to_table("runs", [row]).to_pylist()[0]["started_at"]
    assert stored == datetime(2026, 1, 2, 3, tzinfo=UTC)
    assert stored.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        ("evaluations", EVALUATION | {"alhpa": 1}, "columns unknown: alhpa"),
        ("evaluations", {k: v for k, v in EVALUATION.items() if k != "alpha"}, "missing: alpha"),
        (
            "evaluations",
            EVALUATION | {"value": float("nan")},
            "evaluations.value, row 0: found nan",
        ),
        ("evaluations", EVALUATION | {"value": np.float32("nan")}, "not NaN"),
        ("evaluations", EVALUATION | {"value": None}, "never NULL"),
        ("evaluations", EVALUATION | {"value": "0.5"}, "expected a number"),
        ("evaluations", EVALUATION | {"value": True}, "expected a number"),
        ("evaluations", EVALUATION | {"fold": 1.0}, "expected a whole number"),
        ("evaluations", EVALUATION | {"fold": True}, "expected a whole number"),
        ("evaluations", EVALUATION | {"fold": -1}, "expected at least 0"),
        ("evaluations", EVALUATION | {"fold": 2**40}, "evaluations.fold"),
        ("evaluations", EVALUATION | {"method": 3}, "expected text"),
        ("evaluations", EVALUATION | {"split": "train"}, "one of 'validation', 'test'"),
        ("evaluations", EVALUATION | {"split": "train"}, "'validation', 'test'"),
        ("selected_modules", SELECTED | {"module_kind": "block"}, "'head', 'attention'"),
        ("selected_modules", SELECTED | {"head": -1}, "at least 0"),
        ("selected_modules", SELECTED | {"head": None}, "a number for a head"),
        (
            "selected_modules",
            SELECTED | {"module_kind": "neuron", "head": None},
            "kind 'neuron', expected a number",
        ),
        ("selected_modules", SELECTED | {"rank": 0}, "at least 1"),
        ("runs", RUN | {"status": "done"}, "'running', 'completed', 'failed', 'crashed'"),
        ("runs", RUN | {"started_at": datetime(2026, 1, 2)}, "with a time zone"),
        ("runs", RUN | {"started_at": "2026-01-02T00:00:00Z"}, "with a time zone"),
        ("runs", RUN | {"run_id": "\ud800"}, "runs.run_id"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(
    table: str, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        to_table(table, [row])
    assert message in str(caught.value)


def test_the_message_names_the_row() -> None:
    with pytest.raises(SchemaError, match="row 2: found 'none', expected one of 'true'"):
        good = {
            "run_id": "r",
            "method": "iti",
            "fold": 0,
            "seed": 0,
            "question_id": "q",
            "question": "?",
            "generation": "",
            "verdict": "neither",
        }
        to_table("answers", [good, good, good | {"verdict": "none"}])


def test_labels_are_0_or_1() -> None:
    sample = {
        "behaviour": "b",
        "question_id": "q",
        "answer_id": "a",
        "category": "c",
        "question": "?",
        "answer": "!",
        "label": 1,
        "is_best": np.bool_(True),
        "fold": 0,
    }
    assert to_table("samples", [sample]).to_pylist()[0]["is_best"] is True
    with pytest.raises(SchemaError, match="one of 0, 1"):
        to_table("samples", [sample | {"label": 2}])


def test_an_undeclared_table_is_refused_with_the_declared_ones() -> None:
    with pytest.raises(SchemaError, match="no table 'run' is declared; there are runs, samples"):
        to_table("run", [])


def test_a_module_that_is_no_head_has_no_head_number() -> None:
    table = to_table("selected_modules", [SELECTED | {"module_kind": "mlp", "head": None}])
    assert table["head"].to_pylist() == [None]
    assert table.schema.field("head").type == pa.int32()


def test_schema_errors_are_value_errors_of_the_store() -> None:
    assert issubclass(SchemaError, StorageError)
    assert issubclass(SchemaError, ValueError)
