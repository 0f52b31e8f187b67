"""Activations as Parquet: a folder a layer, a file a shard of samples, a column a module.

``layer=LL/shard-NNNN.parquet`` holds the columns of ``schemas.ACTIVATIONS`` and then ``head_00``,
``head_01``, ..., or one column of another part, ``residual`` or ``mlp`` say: one folder is of one
kind of module. A head is read without the others; the sample order is that of the shards.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from storage.artifacts import activation_columns as naming
from storage.errors import StorageError
from storage.tables.parquet import publish
from storage.tables.rows import Row, conform
from storage.tables.schemas import ACTIVATIONS

StoredType = Literal["float16", "float32"]
FloatArray = npt.NDArray[np.floating]

_KEYS = ACTIVATIONS.schema.names
_ARROW_TYPES = {"float16": pa.float16(), "float32": pa.float32()}


class NonFiniteActivationsError(StorageError):
    """An activation is NaN or infinite, or too large for the stored type."""


class DamagedActivationsError(StorageError):
    """Activation files are missing, unreadable, or do not fit together."""


def write_shard(
    folder: Path,
    shard_index: int,
    rows: Sequence[Row],
    values: FloatArray,
    dtype: StoredType = "float16",
    kind: str = "head",
) -> list[Path]:
    """Write one shard of samples, a file for each layer.

    Args:
        folder: the folder that gets ``layer=LL/shard-NNNN.parquet``.
        shard_index: place of the shard in the order of samples, from 0.
        rows: for each sample its model, behaviour, question_id, answer_id and label.
        values: activations ``[sample, layer, module, d]``, layers and modules from 0 on; a layer
            has one module of a kind, unless they are heads, or neurons with a ``d`` of 1.
        dtype: the stored type of the activations.
        kind: of the modules, one of ``MODULE_KINDS``.

    Returns:
        The files, in the order of layers.

    Raises:
        NonFiniteActivationsError: a value is NaN or infinite, or too large for ``dtype``.
        SchemaError: the rows do not fit the schema.
        ValueError: the shapes do not fit.
    """
    if values.ndim != 4 or len(rows) != len(values):
        raise ValueError(
            f"activations have shape {list(values.shape)} for {len(rows)} samples; "
            "expected [sample, layer, module, d]"
        )
    if kind == "neuron":
        values = values.swapaxes(2, 3)  # one column of them all
    names = naming.module_columns(kind, values.shape[2])
    keys = conform(ACTIVATIONS, rows)
    # Every layer is converted before the first is written: a bad value leaves no part of a shard.
    layers = [
        _stored(values[:, layer], dtype, layer, names, rows) for layer in range(values.shape[1])
    ]
    return [
        _write_layer(
            folder / f"layer={layer:02d}" / f"shard-{shard_index:04d}.parquet", keys, names, array
        )
        for layer, array in enumerate(layers)
    ]


def _stored(
    values: FloatArray, dtype: StoredType, layer: int, names: Sequence[str], rows: Sequence[Row]
) -> FloatArray:
    """Return one layer as contiguous ``[module, sample, d]`` of the stored type, all finite."""
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(values.astype(dtype).transpose(1, 0, 2))
    finite = np.isfinite(stored)
    if not finite.all():
        module, sample, dimension = (int(index) for index in np.argwhere(~finite)[0])
        row = rows[sample]
        raise NonFiniteActivationsError(
            f"layer {layer}, {names[module]}, sample {sample} (question {row['question_id']!r}, "
            f"answer {row['answer_id']!r}), dimension {dimension}: found "
            f"{float(values[sample, module, dimension])}, expected a finite number of at most "
            f"{float(np.finfo(dtype).max):g} in size; {_remedy(dtype)}"
        )
    return stored


def _remedy(dtype: StoredType) -> str:
    if dtype == "float16":
        return (
            "if it is finite, store float32 (extraction.dtype); if not, check the model's weights"
        )
    return "check the model's weights, or load it with another dtype"


def _write_layer(path: Path, keys: pa.Table, names: Sequence[str], values: FloatArray) -> Path:
    # A non-null list of non-null elements spares readers the validity levels.
    element = pa.field("element", _ARROW_TYPES[values.dtype.name], nullable=False)
    columns = list(keys.columns)
    fields = list(keys.schema)
    for name, module in zip(names, values, strict=True):
        fields.append(pa.field(name, pa.list_(element, values.shape[2]), nullable=False))
        flat = pa.array(module.reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(flat, type=fields[-1].type))
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(
        pa.Table.from_arrays(columns, schema=pa.schema(fields)),
        path,
        durable=False,  # the artifact's checksums tell when a file did not reach the disk
        # Activations neither repeat nor compress, and ranges of them prune nothing.
        use_dictionary=["model", "model_id", "behaviour", "question_id"],
        write_statistics=_KEYS,
        compression="none",
    )
    return path


def read_layer(folders: Sequence[Path], layer: int) -> npt.NDArray[np.float32]:
    """Read the activations of one layer, of whatever kind of module they are.

    The folders are those of ``write_shard``, in the order of samples.

    Returns:
        ``[sample, module, d]``, float32; a module's samples lie together in memory.

    Raises:
        DamagedActivationsError: a file is missing or unreadable, or the shards' modules differ in
            kind, number or width.
    """
    files = [_open(path) for folder in folders for path in _shards(folder, layer)]
    _check_alike(files)
    columns = _columns(files[0])
    width = int(files[0][1].schema_arrow.field(columns[0]).type.list_size)
    samples = sum(file.metadata.num_rows for _, file in files)
    out = np.empty((len(columns), samples, width), np.float32)
    start = 0
    for path, file in files:
        stop = start + file.metadata.num_rows
        _read_modules(path, file, columns, out[:, start:stop])
        start = stop
    neurons = naming.kind_of(columns[0]) == "neuron"
    return out.transpose(1, 2, 0) if neurons else out.transpose(1, 0, 2)


_OpenFile = tuple[Path, pq.ParquetFile]


def _shards(folder: Path, layer: int) -> list[Path]:
    paths = sorted((folder / f"layer={layer:02d}").glob("shard-*.parquet"))
    expected = [f"shard-{index:04d}.parquet" for index in range(len(paths))]
    if not paths or [path.name for path in paths] != expected:
        found = ", ".join(path.name for path in paths) or "none"
        raise DamagedActivationsError(
            f"{folder}, layer {layer}: found shards {found}; expected shard-0000.parquet and on, "
            "without a gap; remove the artifact and run again to extract anew"
        )
    return paths


def _open(path: Path) -> _OpenFile:
    try:
        return path, pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _check_alike(files: list[_OpenFile]) -> None:
    expected = _columns(files[0])
    for file in files:
        found = _columns(file)
        if not found or found != expected:
            raise DamagedActivationsError(
                f"{file[0]} has {naming.in_words(found)}, expected {naming.in_words(expected)} as "
                "in the first shard; remove the artifact and run again to extract anew"
            )


def _read_modules(path: Path, file: pq.ParquetFile, columns: list[str], out: FloatArray) -> None:
    try:
        table = file.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    for index, column in enumerate(columns):
        start = 0
        for chunk in table[column].chunks:
            values = chunk.flatten().to_numpy(zero_copy_only=True)
            if values.size != len(chunk) * out.shape[2]:
                raise DamagedActivationsError(
                    f"{path}, {column}: found {chunk.type.list_size} dimensions, expected "
                    f"{out.shape[2]} as in the first shard; remove the artifact and run again"
                )
            out[index, start : start + len(chunk)] = values.reshape(len(chunk), -1)
            start += len(chunk)


def _columns(file: _OpenFile) -> list[str]:
    return naming.value_columns(file[1].schema_arrow)


def _damaged(path: Path, error: Exception) -> DamagedActivationsError:
    return DamagedActivationsError(
        f"{path} is damaged ({error}); remove the artifact and run again to extract anew"
    )
