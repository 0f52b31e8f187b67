from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.artifacts.activations import (
    DamagedActivationsError,
    NonFiniteActivationsError,
    read_layer,
    write_shard,
)
from storage.tables.rows import SchemaError

LAYERS, HEADS, WIDTH = 3, 4, 6


def keys(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "model": "m",
            "model_id": "0",
            "behaviour": "b",
            "question_id": f"q{index // 2}",
            "answer_id": f"a{index}",
            "label": index % 2,
        }
        for index in range(start, start + count)
    ]


def activations(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    shape = (count, LAYERS, HEADS, WIDTH)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def stored_keys(folder: Path) -> list[dict[str, object]]:
    """Which sample each row of a layer is, in the order in which layers are read."""
    paths = sorted(folder.glob("*/layer=00/*.parquet"))
    names = list(keys(1)[0])
    return [row for path in paths for row in pq.ParquetFile(path).read(names).to_pylist()]


def test_a_layer_is_read_in_the_order_of_folders_and_shards(tmp_path: Path) -> None:
    parts = [activations(count, seed) for seed, count in enumerate((5, 3, 4))]
    write_shard(tmp_path / "one", 0, keys(5), parts[0], "float32")
    write_shard(tmp_path / "one", 1, keys(3, 5), parts[1], "float32")
    write_shard(tmp_path / "two", 0, keys(4, 8), parts[2], "float32")
    whole = np.concatenate(parts)
    for layer in range(LAYERS):
        found = read_layer([tmp_path / "one", tmp_path / "two"], layer)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, whole[:, layer])
    assert stored_keys(tmp_path) == keys(12)


def test_more_than_ten_shards_keep_their_order(tmp_path: Path) -> None:
    whole = activations(12)
    for index in reversed(range(12)):
        write_shard(tmp_path, index, keys(1, index), whole[index : index + 1], "float32")
    np.testing.assert_array_equal(read_layer([tmp_path], 1), whole[:, 1])


def test_float16_is_the_nearest_half_precision_number(tmp_path: Path) -> None:
    values = activations(7)
    write_shard(tmp_path, 0, keys(7), values)
    expected = values.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(read_layer([tmp_path], 2), expected[:, 2])


def test_a_heads_samples_lie_together_in_memory(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, keys(5), activations(5))
    assert read_layer([tmp_path], 0).transpose(1, 0, 2).flags.c_contiguous


def test_half_precision_input_is_stored_as_it_is(tmp_path: Path) -> None:
    values = activations(5).astype(np.float16)
    write_shard(tmp_path, 0, keys(5), values)
    np.testing.assert_array_equal(read_layer([tmp_path], 0), values[:, 0])


def test_files_are_one_a_layer_with_a_non_null_column_a_head(tmp_path: Path) -> None:
    paths = write_shard(tmp_path, 2, keys(5), activations(5))
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        f"layer={layer:02d}/shard-0002.parquet" for layer in range(LAYERS)
    ]
    schema = pq.read_schema(paths[0])
    assert schema.names[-HEADS:] == ["head_00", "head_01", "head_02", "head_03"]
    column = schema.field("head_00")
    assert not column.nullable
    assert not column.type.value_field.nullable
    assert column.type.value_type == pa.float16()
    assert column.type.list_size == WIDTH


def test_head_columns_have_neither_dictionary_nor_statistics(tmp_path: Path) -> None:
    path = write_shard(tmp_path, 0, keys(5), activations(5))[0]
    row_group = pq.ParquetFile(path).metadata.row_group(0)
    for index in range(row_group.num_columns):
        column = row_group.column(index)
        if column.path_in_schema.startswith("head_"):
            assert column.statistics is None
            assert not column.has_dictionary_page
            assert column.compression == "UNCOMPRESSED"


@pytest.mark.parametrize(
    ("bad", "dtype"), [(np.nan, "float32"), (np.inf, "float16"), (70_000.0, "float16")]
)
def test_an_activation_that_cannot_be_stored_is_named(
    tmp_path: Path, bad: float, dtype: Any
) -> None:
    values = activations(5)
    values[3, 2, 1, 4] = bad
    with pytest.raises(NonFiniteActivationsError) as caught:
        write_shard(tmp_path, 0, keys(5), values, dtype)
    message = str(caught.value)
    assert "layer 2, head_01, sample 3 (question 'q1', answer 'a3'), dimension 4" in message
    assert f"found {bad}" in message
    assert isinstance(caught.value, ValueError)
    assert not list(tmp_path.rglob("*.parquet"))


def test_float32_holds_what_is_too_large_for_float16(tmp_path: Path) -> None:
    values = activations(5)
    values[0, 0, 0, 0] = 70_000.0
    write_shard(tmp_path, 0, keys(5), values, "float32")
    assert read_layer([tmp_path], 0)[0, 0, 0] == 70_000.0


def test_the_largest_half_precision_number_is_stored(tmp_path: Path) -> None:
    values = activations(2)
    values[0, 0, 0, 0] = -65_504.0
    write_shard(tmp_path, 0, keys(2), values)
    assert read_layer([tmp_path], 0)[0, 0, 0] == -65_504.0


def test_shapes_and_samples_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \[5, 3, 4, 6\] for 4 samples"):
        write_shard(tmp_path, 0, keys(4), activations(5))
    with pytest.raises(ValueError, match=r"expected \[sample, layer, module, d\]"):
        write_shard(tmp_path, 0, keys(5), activations(5)[:, 0])


def test_samples_are_checked_against_the_schema(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="label"):
        write_shard(tmp_path, 0, [row | {"label": 7} for row in keys(5)], activations(5))


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    for index in range(3):
        write_shard(tmp_path, index, keys(2), activations(2))
    (tmp_path / "layer=01" / "shard-0001.parquet").unlink()
    with pytest.raises(DamagedActivationsError, match="layer 1: found shards .*without a gap"):
        read_layer([tmp_path], 1)
    with pytest.raises(DamagedActivationsError, match="layer 9: found shards none"):
        read_layer([tmp_path], 9)


@pytest.mark.parametrize("kept", [0, 40, -5])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = write_shard(tmp_path, 0, keys(5), activations(5))[0]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DamagedActivationsError, match=r"shard-0000\.parquet is damaged"):
        read_layer([tmp_path], 0)


def test_shards_of_different_models_do_not_mix(tmp_path: Path) -> None:
    write_shard(tmp_path / "one", 0, keys(5), activations(5))
    write_shard(tmp_path / "two", 0, keys(5), activations(5)[..., :3])
    with pytest.raises(DamagedActivationsError, match="found 3 dimensions, expected 6"):
        read_layer([tmp_path / "one", tmp_path / "two"], 0)
    write_shard(tmp_path / "three", 0, keys(5), activations(5)[:, :, :2])
    for folders in (["one", "three"], ["three", "one"]):
        with pytest.raises(
            DamagedActivationsError, match=r"has [24] heads, expected [42] heads as in"
        ):
            read_layer([tmp_path / folder for folder in folders], 0)


@pytest.mark.parametrize(("kind", "column"), [("layer", "residual"), ("mlp", "mlp")])
def test_a_kind_with_one_module_a_layer_has_one_column(
    tmp_path: Path, kind: str, column: str
) -> None:
    values = activations(5)[:, :, :1]
    paths = write_shard(tmp_path / "one", 0, keys(5), values, "float32", kind)
    write_shard(tmp_path / "two", 0, keys(4, 5), values[:4], "float32", kind)
    assert pq.read_schema(paths[0]).names[6:] == [column]
    whole = np.concatenate([values, values[:4]])
    found = read_layer([tmp_path / "one", tmp_path / "two"], 2)
    np.testing.assert_array_equal(found, whole[:, 2])
    assert stored_keys(tmp_path) == keys(9)


def test_an_activation_of_a_layer_that_cannot_be_stored_is_named(tmp_path: Path) -> None:
    values = activations(5)[:, :, :1]
    values[3, 2, 0, 4] = np.inf
    with pytest.raises(NonFiniteActivationsError, match="layer 2, residual, sample 3"):
        write_shard(tmp_path, 0, keys(5), values, "float32", "layer")


def test_two_modules_in_one_layer_are_heads_or_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found 4 modules of kind layer in a layer, expected 1"):
        write_shard(tmp_path, 0, keys(5), activations(5), kind="layer")
    with pytest.raises(ValueError, match="unknown kind of module 'block'; expected head, att"):
        write_shard(tmp_path, 0, keys(5), activations(5), kind="block")


def test_kinds_of_modules_do_not_mix(tmp_path: Path) -> None:
    write_shard(tmp_path / "layers", 0, keys(5), activations(5)[:, :, :1], kind="layer")
    write_shard(tmp_path / "mlps", 0, keys(5), activations(5)[:, :, :1], kind="mlp")
    write_shard(tmp_path / "heads", 0, keys(5), activations(5))
    with pytest.raises(DamagedActivationsError, match="has mlp, expected residual as in the first"):
        read_layer([tmp_path / "layers", tmp_path / "mlps"], 0)
    with pytest.raises(DamagedActivationsError, match="has residual, expected 4 heads as in"):
        read_layer([tmp_path / "heads", tmp_path / "layers"], 0)


def test_more_than_a_hundred_layers_and_heads_are_read_by_number(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((2, 126, 1, 3)).astype(np.float32)
    paths = write_shard(tmp_path / "layers", 0, keys(2), values, "float32", "layer")
    assert [path.parent.name for path in paths[98:102]] == [
        *("layer=98", "layer=99", "layer=100", "layer=101")
    ]
    for layer in (1, 10, 12, 100, 125):
        found = read_layer([tmp_path / "layers"], layer)
        np.testing.assert_array_equal(found, values[:, layer])
    heads = values.transpose(0, 2, 1, 3)
    write_shard(tmp_path / "heads", 0, keys(2), heads, "float32")
    np.testing.assert_array_equal(read_layer([tmp_path / "heads"], 0), heads[:, 0])


def test_neurons_are_one_column_and_read_back_one_by_one(tmp_path: Path) -> None:
    values = activations(5).reshape(5, LAYERS, HEADS * WIDTH, 1)
    paths = write_shard(tmp_path, 0, keys(5), values, "float32", kind="neuron")
    schema = pq.read_schema(paths[0])
    assert schema.names[-1] == "neurons"
    assert schema.field("neurons").type.list_size == HEADS * WIDTH
    np.testing.assert_array_equal(read_layer([tmp_path], 1), values[:, 1])


@pytest.mark.parametrize("kind", ["attention", "residual_in", "residual_mid", "final"])
def test_a_whole_part_is_a_column_of_its_name(tmp_path: Path, kind: str) -> None:
    values = activations(5)[:, :, :1]
    paths = write_shard(tmp_path, 0, keys(5), values, "float32", kind=kind)
    assert pq.read_schema(paths[0]).names[-1] == kind
    np.testing.assert_array_equal(read_layer([tmp_path], 2), values[:, 2])
