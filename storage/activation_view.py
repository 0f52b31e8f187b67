"""All activations of a home as one Arrow dataset, for SQL: a row an answer, layer and kind."""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from storage.activation_columns import in_order, kind_of, value_columns
from storage.activations import DamagedActivationsError
from storage.artifacts import MANIFEST, NOT_HERE
from storage.columns import MODULE_KIND
from storage.parquet import checked_format, nullable
from storage.paths import Home
from storage.schemas import ACTIVATIONS

LAYER = pa.field("layer", pa.int32(), metadata={"description": "transformer block, from 0"})
KIND = pa.field(
    MODULE_KIND.name,
    pa.string(),
    metadata={"description": "whose activation the row holds: head, layer or mlp"},
)
ARTIFACT = pa.field(
    "artifact", pa.string(), metadata={"description": "key of the extraction that made the row"}
)

# A list of any length, since widths differ between models, of a type that SQL engines know.
_VALUES_TYPE = pa.list_(pa.float32())


def activations_dataset(home: Home) -> ds.Dataset:
    """Return the published activations of ``home`` as a dataset, which is read when scanned.

    Columns: those of ``schemas.ACTIVATIONS``, ``layer``, ``module_kind``, a list of float32 for
    every head of the widest model (NULL in models with fewer heads), ``residual`` and ``mlp`` where
    such activations exist (NULL in rows of other kinds), and ``artifact``, which tells two
    extractions of one model apart. A scan reads only the layers, kinds and columns that it needs.

    Raises:
        DamagedActivationsError: a file is no Parquet file.
    """
    fragments: list[ds.Fragment] = []
    found: set[str] = set()
    for manifest in sorted((home.artifacts / ACTIVATIONS.name).glob(f"*/{MANIFEST}")):
        fetched = not (manifest.parent / NOT_HERE).exists()
        shards = _shards(manifest.parent) if fetched else []
        columns = _value_columns(shards[0][1]) if shards else []
        if columns:
            found.update(columns)
            fragments += _fragments(shards, kind_of(columns[0]), manifest.parent.name)
    values = ((name, _VALUES_TYPE) for name in in_order(found))
    schema = pa.schema([*ACTIVATIONS.schema, LAYER, KIND, *values, ARTIFACT])
    return ds.FileSystemDataset(fragments, nullable(schema), checked_format())


def _shards(artifact: Path) -> list[tuple[int, Path]]:
    """Return the layer and the file of every shard, layers in their order."""
    paths = artifact.glob("layer=*/shard-*.parquet")
    return sorted((int(path.parent.name.removeprefix("layer=")), path) for path in paths)


def _fragments(shards: list[tuple[int, Path]], kind: str, artifact: str) -> list[ds.Fragment]:
    parquet, disk = checked_format(), pyarrow.fs.LocalFileSystem()
    made = []
    for layer, path in shards:
        place = (
            (ds.field(LAYER.name) == layer)
            & (ds.field(KIND.name) == kind)
            & (ds.field(ARTIFACT.name) == artifact)
        )
        made.append(parquet.make_fragment(str(path), disk, partition_expression=place))
    return made


def _value_columns(shard: Path) -> list[str]:
    """Name a shard's columns of activations; all shards of one artifact have the same."""
    try:
        return value_columns(pq.read_schema(shard))
    except FileNotFoundError:  # the artifact was removed since it was listed
        return []
    except (pa.ArrowException, OSError) as error:
        raise DamagedActivationsError(
            f"{shard} is damaged ({error}); remove the artifact and run again to extract anew"
        ) from error
