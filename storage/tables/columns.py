"""What tables are declared with: types, columns, and the columns that several tables share."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

PARTED_KINDS = ("head", "neuron")
MODULE_KINDS = (
    *("head", "attention", "mlp", "neuron", "residual_in", "residual_mid", "layer", "final"),
)
LABELS = (0, 1)

TEXT, FLAG, NUMBER = pa.string(), pa.bool_(), pa.float64()
COUNT, WHOLE = pa.int32(), pa.int64()
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Table:
    """A table: what a row is, and its columns, each with a description.

    Attributes:
        name: the name of the SQL view and of the folder under ``tables/``.
        description: what one row is.
        schema: Arrow's schema; a column's metadata holds its ``description``.
        values: the only values that a column may hold.
        minima: the least value of a column of whole numbers.
    """

    name: str
    description: str
    schema: pa.Schema
    values: dict[str, tuple[str | int, ...]]
    minima: dict[str, int]


@dataclass(frozen=True)
class Column:
    """A column: its name, type and meaning, and the values that it may hold."""

    name: str
    type: pa.DataType
    description: str
    nullable: bool = False
    values: tuple[str | int, ...] = ()
    minimum: int | None = None

    def or_null(self, when: str) -> "Column":
        """Return this column, nullable; ``when`` says in which rows it is NULL."""
        text = f"{self.description}; NULL {when}"
        return Column(self.name, self.type, text, True, self.values, self.minimum)

    @property
    def field(self) -> pa.Field:
        """Arrow's field, with the description in its metadata."""
        text = self.description
        if self.values:
            text += f" (one of {', '.join(map(str, self.values))})"
        return pa.field(self.name, self.type, self.nullable, metadata={"description": text})


def declare(name: str, description: str, columns: Sequence[Column]) -> Table:
    """Make a table from its columns."""
    return Table(
        name=name,
        description=description,
        schema=pa.schema([column.field for column in columns], {"description": description}),
        values={column.name: column.values for column in columns if column.values},
        minima={column.name: column.minimum for column in columns if column.minimum is not None},
    )


def number(name: str, description: str, nullable: bool = False) -> Column:
    """Make a column of floating-point numbers."""
    return Column(name, NUMBER, description, nullable)


RUN_ID = Column("run_id", TEXT, "the run")
MODEL = Column("model", TEXT, "name of the language model: its folder's, or the embedded one's")
MODEL_ID = Column(
    "model_id", TEXT, "which model: a hash of its content, the same wherever it lies"
).or_null("in rows written before the column was declared")
MODELS = (MODEL, MODEL_ID)
BEHAVIOUR = Column("behaviour", TEXT, "registered name of the behaviour")
QUESTION_ID = Column("question_id", TEXT, "the question, unique within its behaviour")
ANSWER_ID = Column("answer_id", TEXT, "the answer, unique within its behaviour")
QUESTION = Column("question", TEXT, "text of the question")
LABEL = Column("label", pa.int8(), "1 aligned, 0 violating", values=LABELS)
FOLD = Column("fold", COUNT, "cross-validation fold that is the test fold, from 0", minimum=0)
SEED = Column("seed", WHOLE, "seed of the localizer")
METHOD = Column(
    "method",
    TEXT,
    "way of steering: unsteered, real, real_equal_weights, iti, random, all, random_direction, ...",
)
METRIC = Column(
    "metric",
    TEXT,
    "mc0, mc1, mc2, mc3, true_share, false_share (shares of 1), cross_entropy, kl (nats per token "
    "on neutral text), ...",
)
MODULE_KIND = Column("module_kind", TEXT, "what is scored and steered", values=MODULE_KINDS)
LAYER = Column("layer", COUNT, "transformer block, from 0", minimum=0)
HEAD = Column(
    "head",
    COUNT,
    "which attention head, from 0; of kind neuron the neuron, of other kinds a single dimension",
    minimum=0,
).or_null("where the module is all of its part in the layer")
RANK = Column("rank", COUNT, "place in the order of scores, 1 is the best", minimum=1)
SCORE = number("score", "the number that the localizer ranks by, higher is better")
MODULE = (MODULE_KIND, LAYER, HEAD)
