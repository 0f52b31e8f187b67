"""Parameters of the REAL localizer, each with its limits and its published value."""

from typing import Annotated, Literal

from pydantic import Field

from real_tasks.vocabulary.config import Frozen, Resamples

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Params(Frozen):
    """Parameters of `real`; `PUBLISHED` holds the paper's.

    The defaults suit small heads. Weight and temperature of the contrastive loss make the codes
    read about as well as a logistic probe does; with the published ones they read worse, and on
    one data set they do with these (deployments/docs/real-ablation.md). At .07 each answer is held
    against the few most like it, which noise chooses in some hundred answers; at 1 against all of
    its batch.
    """

    protocol: Literal["cross_fit", "release"] = Field(
        "cross_fit",
        description="cross_fit: every answer is scored by a fit that never saw its question; "
        "release: the published code's protocol, leak and unshifted prior included",
    )
    cross_folds: Annotated[int, Field(ge=2)] = Field(
        3, description="folds of the cross-fitting, by question"
    )
    bootstrap_samples: Resamples = Field(
        1000, description="resamples of questions behind the confidence interval of the ROC-AUC"
    )
    standardise: bool = Field(
        True, description="standardise inputs with the training part's statistics; published: false"
    )
    units: Count = Field(
        8, description="groups the latent is cut into = codes of a module; published: 8"
    )
    codebook_size: Annotated[int, Field(ge=2, le=4096)] = Field(
        16, description="codes in a module's codebook; published: 32"
    )
    codebook_init: Literal["data", "normal"] = Field(
        "data", description="first codes: encoded training vectors, or N(0, 1); published: normal"
    )
    codebook_decay: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.99, description="decay of the codebook's moving averages; published: 0.99"
    )
    restart_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05,
        description="after an epoch, codes used less than this share of an even use restart from "
        "data; published: 0 (never)",
    )
    collapse_threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        0.2, description="perplexity per code under which a codebook counts as collapsing"
    )
    collapse_patience: Count = Field(
        5, description="last epochs in a row under the threshold that make a codebook collapsed"
    )
    epochs: Count = Field(20, description="epochs of the VQ-AE; published: 20")
    batch_size: Annotated[int, Field(ge=2)] = Field(
        32, description="answers in a batch, VQ-AE and priors; published: 32"
    )
    learning_rate: Positive = Field(
        3e-3, description="Adam's learning rate for the VQ-AE; published: 1e-3"
    )
    commitment_weight: NonNegative = Field(
        0.25, description="weight of the commitment loss; published: 0.25"
    )
    contrastive_weight: NonNegative = Field(
        10.0, description="weight (c) of the supervised contrastive loss; published: 1e-3"
    )
    temperature: Positive = Field(
        1.0, description="temperature of the contrastive loss; published: 0.07"
    )
    prior_embedding: Count = Field(32, description="width of the priors' embedding; published: 64")
    prior_hidden: Count = Field(32, description="width of the priors' GRU; published: 64")
    prior_epochs: Count = Field(10, description="epochs of the priors; published: 10")
    prior_learning_rate: Positive = Field(
        3e-3, description="AdamW's learning rate for the priors; published: 1e-3"
    )
    prior_weight_decay: NonNegative = Field(
        0.01, description="AdamW's weight decay for the priors; published: 0.01"
    )
    prior_clip: Positive = Field(
        1.0, description="largest norm of a prior's gradient; published: 1.0"
    )


PUBLISHED = Params(
    protocol="release",
    standardise=False,
    codebook_size=32,
    codebook_init="normal",
    restart_share=0.0,
    epochs=20,
    learning_rate=1e-3,
    contrastive_weight=1e-3,
    temperature=0.07,
    prior_embedding=64,
    prior_hidden=64,
    prior_epochs=10,
    prior_learning_rate=1e-3,
)
"""The published hyperparameters under the published protocol (arXiv 2506.08359, release README)."""
