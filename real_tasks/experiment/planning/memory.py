"""Peak memory of what runs the language model, from shapes alone; good to a factor of two.

What an allocator keeps besides, a CUDA context (about 0.5 GB) and padding are not counted.
"""

from real_tasks.evaluation.answers.logits import CHUNK_BYTES
from real_tasks.evaluation.measures import MEASURES
from real_tasks.experiment.planning.costs import FLOAT_BYTES, ModelSize
from real_tasks.experiment.planning.workload import DataSize, generated_tokens, validation_share
from real_tasks.reading.shared_rows import MAX_SHARED_ROW
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import ModelShape, ModuleKind

RESIDUALS = 6
"""Tensors of the residual stream's width that a layer holds at a time."""
IN_THE_MLP = 3
"""Tensors of the feed-forward block's width: gate, input, their product."""
BLOCKS_OF_LOGITS = 3
"""Logits in the model's type, in float32, and their log-probabilities."""


def forward_bytes(model: ModelSize, tokens: float, row_tokens: float) -> int:
    """Return what a forward pass over a batch of tokens holds besides the weights, at its largest.

    Answers of a question may share a row of ``row_tokens``; the mask of attention has a number for
    each pair of them.
    """
    pairs = min(row_tokens, MAX_SHARED_ROW)
    width = RESIDUALS * model.d_model + IN_THE_MLP * model.mlp_width + pairs
    return round(tokens * width * model.itemsize)


def extraction_bytes(
    model: ModelSize, shape: ModelShape, kind: ModuleKind, config: ExperimentConfig, size: DataSize
) -> int:
    """Return the peak memory of reading activations, on the model's device.

    Weights, a batch, and of every layer the activations that are kept of the batch's answers.
    """
    options = config.extraction
    tokens = min(options.batch_tokens, size.read_tokens)
    answers = min(
        tokens / (size.mean_tokens * size.read_share), options.samples_per_shard, size.n_answers
    )
    # Kept in the model's type, stacked, and cast to float32.
    kept = answers * shape.n_layers_of(kind) * shape.part_width(kind)
    row = max(size.mean_tokens, size.read_tokens / size.n_questions)
    batch = forward_bytes(model, tokens, row)
    return model.weight_bytes + batch + round(kept * (2 * model.itemsize + FLOAT_BYTES))


def shard_bytes(shape: ModelShape, kind: ModuleKind, n_samples: int) -> int:
    """Return the main memory that a shard of samples takes until it is written, in float32."""
    return n_samples * shape.n_layers_of(kind) * shape.part_width(kind) * FLOAT_BYTES


def evaluation_bytes(model: ModelSize, config: ExperimentConfig, size: DataSize) -> int:
    """Return the peak memory of measuring a steered model.

    Weights, a batch, a block of logits, and while answers are generated the keys and values of all
    their tokens. What is kept of the unsteered model is in the main memory, see `KEPT_BYTES` of
    `real_tasks.models.kept_states`.
    """
    options = config.evaluation
    share = max(validation_share(config), 1 / config.data.n_folds)
    measures = [MEASURES[name] for name in size.measures]
    cached = 0.0
    if any(measure.generates for measure in measures):
        tokens = generated_tokens(options, size, share * size.n_questions)
        tokens = min(tokens, options.batch_tokens)
        cached = tokens * 2 * model.n_layers * model.kv_width * model.itemsize
    read = share * size.n_answers * size.prompt_tokens * size.prompt_share
    neutral = options.neutral_texts / 2 * size.neutral_tokens
    tokens = min(options.batch_tokens, max(read, neutral))
    logits = min(CHUNK_BYTES, FLOAT_BYTES * tokens * model.vocabulary) * BLOCKS_OF_LOGITS
    row = size.n_answers / size.n_questions * size.prompt_tokens * size.prompt_share
    batch = forward_bytes(model, tokens, row + size.prefix_tokens)
    return round(model.weight_bytes + max(batch + logits, cached))
