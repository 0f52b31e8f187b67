"""All activations of a home as one Arrow dataset, for SQL: a row an answer, layer and kind."""

import logging
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from storage.artifacts.activation_columns import in_order, kind_of, value_columns
from storage.artifacts.local import read_manifest
from storage.artifacts.store import MANIFEST, NOT_HERE
from storage.errors import DamagedArtifactError
from storage.paths import Home
from storage.tables.columns import MODULE_KIND, MODULE_KINDS
from storage.tables.parquet import SUFFIX, checked_format, has_footer, nullable
from storage.tables.schemas import ACTIVATIONS
from storage.tables.seals import damaged

log = logging.getLogger(__name__)

LAYER = pa.field("layer", pa.int32(), metadata={"description": "transformer block, from 0"})
KIND = pa.field(
    MODULE_KIND.name,
    pa.string(),
    metadata={"description": "whose activation the row holds: " + ", ".join(MODULE_KINDS)},
)
ARTIFACT = pa.field(
    "artifact", pa.string(), metadata={"description": "key of the extraction that made the row"}
)

# A list of any length, since widths differ between models, of a type that SQL engines know.
_VALUES_TYPE = pa.list_(pa.float32())


def activations_dataset(
    home: Home, left_out: Collection[Path] = ()
) -> tuple[ds.Dataset, list[Path]]:
    """Return the published activations of ``home`` as a dataset, which is read when scanned.

    Files of which the footer is damaged are left out, with a warning, and those of ``left_out``.

    Columns: those of ``schemas.ACTIVATIONS``, ``layer``, ``module_kind``, a list of float32 for
    every head of the widest model (NULL in models with fewer heads), ``residual``, ``mlp`` and
    so on where such activations exist (NULL in rows of other kinds), and ``artifact``, which tells
    two extractions of one model apart. A scan reads only the layers, kinds and columns it needs.

    Returns:
        The dataset, and its files.
    """
    fragments: list[ds.Fragment] = []
    found: set[str] = set()
    files: list[Path] = []
    for manifest in sorted((home.artifacts / ACTIVATIONS.name).glob(f"*/{MANIFEST}")):
        fetched = not (manifest.parent / NOT_HERE).exists()
        every = _shards(manifest) if fetched else []
        shards = [one for one in every if one[1] not in left_out and has_footer(one[1])]
        columns = _value_columns(shards)
        if columns:
            found.update(columns)
            fragments += _fragments(shards, kind_of(columns[0]), manifest.parent.name)
            files += [path for _, path in shards]
    values = ((name, _VALUES_TYPE) for name in in_order(found))
    schema = pa.schema([*ACTIVATIONS.schema, LAYER, KIND, *values, ARTIFACT])
    return ds.FileSystemDataset(fragments, nullable(schema), checked_format()), files


def _shards(manifest: Path) -> list[tuple[int, Path]]:
    """Return the layer and the file of every shard, layers in their order."""
    artifact = manifest.parent
    paths = {*artifact.glob("layer=*/shard-*.parquet")}
    try:
        expected = {artifact / name for name in read_manifest(artifact)["files"]}
    except DamagedArtifactError:  # what it has no checksums of has seals of its own
        expected = set()
    for path in sorted(path for path in expected - paths if path.suffix == SUFFIX):
        log.warning("left out: %s", damaged(path, "it is missing"))
    return sorted((int(path.parent.name.removeprefix("layer=")), path) for path in paths)


def _value_columns(shards: list[tuple[int, Path]]) -> list[str]:
    """Name the columns of activations, which all shards of one artifact have."""
    try:
        return value_columns(pq.read_schema(shards[0][1])) if shards else []
    except FileNotFoundError:  # the artifact was removed since it was listed
        return []


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
