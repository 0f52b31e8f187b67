"""Names of the columns that hold activations: one a head, or one for a layer's whole part."""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from storage.tables.columns import MODULE_KINDS
from storage.tables.schemas import ACTIVATIONS

HEADS = "head_NN"
DESCRIPTIONS = {
    HEADS: (
        "activation of one head, a column a head: head_00, head_01, ...; a list of d_head numbers, "
        "the first is head_00[1]; NULL where the model has fewer heads or the row is of another "
        "kind of module; there as soon as heads were extracted"
    ),
    "residual": (
        "residual stream after the block, a list of d_model numbers; NULL unless module_kind is "
        "layer; there as soon as layers were extracted"
    ),
    "mlp": (
        "output of the MLP, a list of d_model numbers; NULL unless module_kind is mlp; there as "
        "soon as MLPs were extracted"
    ),
    **{
        name: f"{what}; NULL unless module_kind is {kind}; there as soon as such were extracted"
        for kind, name, what in (
            ("attention", "attention", "output of the attention, a list of d_model numbers"),
            ("neuron", "neurons", "input of the MLP's last projection, a list of d_mlp numbers"),
            ("residual_in", "residual_in", "residual stream before the block, d_model numbers"),
            (
                "residual_mid",
                "residual_mid",
                "residual stream between attention and MLP, d_model numbers",
            ),
            ("final", "final", "residual stream after the last norm, d_model numbers; in layer 0"),
        )
    },
}
"""What the columns hold, of all heads under one name."""

# The kind `layer` is no name for a column: the folders' key has it. Neurons are too many for a
# column each.
_WHOLE = {
    "layer": "residual",
    "mlp": "mlp",
    "attention": "attention",
    "neuron": "neurons",
    "residual_in": "residual_in",
    "residual_mid": "residual_mid",
    "final": "final",
}
_KINDS = {column: kind for kind, column in _WHOLE.items()}
_HEAD_PREFIX = "head_"


def module_column(kind: str, module: int) -> str:
    """Return the name of a module's column; ``module`` is its place in its layer, from 0.

    Raises:
        ValueError: no such kind.
    """
    if kind not in MODULE_KINDS:
        raise ValueError(f"unknown kind of module {kind!r}; expected {', '.join(MODULE_KINDS)}")
    return _WHOLE.get(kind, f"{_HEAD_PREFIX}{module:02d}")


def module_columns(kind: str, count: int) -> list[str]:
    """Return the names of the columns of a layer's modules.

    Raises:
        ValueError: no such kind, or not as many modules as a layer has of it.
    """
    names = [module_column(kind, module) for module in range(count)]
    if len(set(names)) < max(count, 1):
        expected = "at least 1" if kind == "head" else "1"
        raise ValueError(f"found {count} modules of kind {kind} in a layer, expected {expected}")
    return names


def kind_of(column: str) -> str:
    """Return the kind of module that a column belongs to."""
    return _KINDS.get(column, "head")


def value_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of a shard that hold activations."""
    return [name for name in schema.names if name not in ACTIVATIONS.schema.names]


def in_words(columns: Sequence[str]) -> str:
    """Say which columns of activations these are, for messages."""
    if columns and kind_of(columns[0]) == "head":
        return f"{len(columns)} heads"
    return ", ".join(columns) or "no activations"


def in_order(columns: Iterable[str]) -> list[str]:
    """Return columns of activations with heads by number, then the others as described above."""
    return sorted(columns, key=_place)


def _place(column: str) -> tuple[int, int]:
    kind = kind_of(column)
    number = int(column.removeprefix(_HEAD_PREFIX)) if kind == "head" else 0
    return [HEADS, *_KINDS].index(HEADS if kind == "head" else column), number
