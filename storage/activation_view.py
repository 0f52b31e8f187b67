"""All activations of a home as one Arrow dataset, for SQL: one row an answer and layer."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from storage.activations import SHARD_PATTERN, DamagedActivationsError
from storage.artifacts import MANIFEST
from storage.parquet import nullable
from storage.paths import Home
from storage.schemas import ACTIVATIONS

LAYER = pa.field("layer", pa.int32(), metadata={"description": "transformer block, from 0"})
ARTIFACT = pa.field(
    "artifact", pa.string(), metadata={"description": "key of the extraction that made the row"}
)
HEADS_NAME = "head_NN"
HEADS_DESCRIPTION = (
    "activation of one head, a column a head: head_00, head_01, ...; a list of d_head numbers, the "
    "first is head_00[1]; NULL where the model has fewer heads"
)

# A list of any length, since d_head differs between models, of a type that SQL engines know.
_HEAD_TYPE = pa.list_(pa.float32())


def activations_dataset(home: Home) -> ds.Dataset:
    """Return the published activations of ``home`` as a dataset, which is read when scanned.

    Columns: those of ``schemas.ACTIVATIONS``, ``layer``, a list of float32 for every head of the
    widest model (NULL in models with fewer heads), and ``artifact``, which tells two extractions of
    one model apart. A scan reads only the layers and columns that it needs.

    Raises:
        DamagedActivationsError: a file is no Parquet file.
    """
    parquet, disk = ds.ParquetFileFormat(), pyarrow.fs.LocalFileSystem()
    fragments: list[ds.Fragment] = []
    heads: set[str] = set()
    for manifest in sorted((home.artifacts / ACTIVATIONS.name).glob(f"*/{MANIFEST}")):
        shards = sorted(manifest.parent.glob(SHARD_PATTERN))
        heads.update(name for shard in shards[:1] for name in _head_columns(shard))
        for shard in shards:
            layer = int(shard.parent.name.removeprefix("layer="))
            place = (ds.field("layer") == layer) & (ds.field("artifact") == manifest.parent.name)
            fragments.append(parquet.make_fragment(str(shard), disk, partition_expression=place))
    ordered = sorted(heads, key=lambda name: int(name.removeprefix("head_")))
    columns = [*ACTIVATIONS.schema, LAYER, *((name, _HEAD_TYPE) for name in ordered), ARTIFACT]
    return ds.FileSystemDataset(fragments, nullable(pa.schema(columns)), parquet)


def _head_columns(shard: Path) -> Iterator[str]:
    """Name the head columns of a shard; all shards of one artifact have the same."""
    try:
        names = pq.read_schema(shard).names
    except FileNotFoundError:  # the artifact was removed since it was listed
        return
    except (pa.ArrowException, OSError) as error:
        raise DamagedActivationsError(
            f"{shard} is damaged ({error}); remove the artifact and run again to extract anew"
        ) from error
    yield from (name for name in names if name not in ACTIVATIONS.schema.names)
