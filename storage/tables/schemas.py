"""The tables: one declared schema each, the same name and meaning of a column in every table."""

from storage.tables.columns import (
    ANSWER_ID,
    BEHAVIOUR,
    COUNT,
    FLAG,
    FOLD,
    LABEL,
    METHOD,
    METRIC,
    MODELS,
    MODULE,
    QUESTION,
    QUESTION_ID,
    RANK,
    RUN_ID,
    SCORE,
    SEED,
    TEXT,
    TIME,
    WHOLE,
    Column,
    Table,
    declare,
    number,
)
from storage.tables.drift_schema import SCORE_DRIFT

FLOWS = ("experiment", "transfer", "rescore")
STATUSES = ("running", "completed", "failed", "crashed")
SPLITS = ("validation", "test")
VERDICTS = ("true", "false", "neither")
BASES = ("tuned", "matched_kl")

RUNS = declare(
    "runs",
    "one row per run of a flow",
    (
        RUN_ID,
        Column("flow", TEXT, "what was run", values=FLOWS),
        Column("started_at", TIME, "start, UTC"),
        Column("finished_at", TIME, "end, UTC").or_null("while it runs"),
        Column("status", TEXT, "state of the run", values=STATUSES),
        *MODELS,
        BEHAVIOUR,
        Column("seed", WHOLE, "seed of the split into train and validation questions"),
        Column("config_digest", TEXT, "SHA-256 of the effective configuration"),
        Column("git_commit", TEXT, "commit of the code").or_null("outside a git checkout"),
        Column("mlflow_run_id", TEXT, "MLflow's parent run").or_null("until it is recorded"),
    ),
)
SAMPLES = declare(
    "samples",
    "one row per answer of a behaviour's question",
    (
        BEHAVIOUR,
        QUESTION_ID,
        ANSWER_ID,
        Column("category", TEXT, "category of the question"),
        QUESTION,
        Column("answer", TEXT, "text of the answer"),
        LABEL,
        Column("is_best", FLAG, "whether it is the question's best answer"),
        Column("fold", COUNT, "fold in which the question is a test question", minimum=0),
    ),
)
MODULE_SCORES = declare(
    "module_scores",
    "one row per module that a localizer scored, on training and validation questions of a fold",
    (
        RUN_ID,
        *MODELS,
        BEHAVIOUR,
        Column("localizer", TEXT, "registered name of the localizer"),
        Column("protocol", TEXT, "how scores were made, as cross_fit or release"),
        FOLD,
        SEED,
        *MODULE,
        number("roc_auc", "ROC-AUC of aligned against violating answers, 0 to 1", True),
        number("roc_auc_low", "lower end of its 95 % bootstrap interval", True),
        number("roc_auc_high", "upper end of its 95 % bootstrap interval", True),
        number("aupr", "area under the precision-recall curve, 0 to 1", True),
        number("f1", "best F1 over thresholds, 0 to 1", True),
        number("perplexity", "effective number of codes in use", True),
        number("reconstruction_loss", "mean squared error of standardised inputs", True),
        Column("collapsed", FLAG, "whether the codebook collapsed", nullable=True),
        RANK,
        SCORE,
    ),
)
TEXT_SCORES = declare(
    "text_scores",
    "one row per classifier that sees texts alone, beside module_scores: fitted to the training "
    "questions of a fold, judged on others",
    (
        RUN_ID,
        BEHAVIOUR,
        Column("classifier", TEXT, "what judges the texts: bag_of_words"),
        FOLD,
        Column("split", TEXT, "questions that were measured", values=SPLITS),
        number("roc_auc", "ROC-AUC of aligned against violating answers, 0 to 1"),
        Column("n_answers", COUNT, "answers that were judged", minimum=1),
    ),
)
SELECTED_MODULES = declare(
    "selected_modules",
    "one row per module that a method steers",
    (
        RUN_ID,
        METHOD,
        FOLD,
        SEED,
        *MODULE,
        RANK,
        SCORE.or_null("where all modules are steered, unranked"),
        number("strength", "weight of the module's displacement (w), 1 for equal weights"),
    ),
)
EVALUATIONS = declare(
    "evaluations",
    "one row per metric of a method at one setting on one split",
    (
        RUN_ID,
        *MODELS,
        BEHAVIOUR,
        METHOD,
        FOLD,
        SEED,
        Column("split", TEXT, "questions that were measured", values=SPLITS),
        Column("top_k", COUNT, "steered modules (K)", minimum=0).or_null("unsteered"),
        number("alpha", "strength in standard deviations; NULL unsteered", True),
        Column("token_scope", TEXT, "positions that are steered: all, generated, last, ..."),
        METRIC,
        number("value", "the metric, in its unit"),
    ),
)
METHODS = declare(
    "methods",
    "one row per method that a run evaluated: what it is made of",
    (
        RUN_ID,
        METHOD,
        Column("localizer", TEXT, "what ranks the modules").or_null("where all are steered"),
        Column("fitter", TEXT, "what finds the operator's tensors").or_null("unsteered"),
        Column("operator", TEXT, "what is done to the activations").or_null("unsteered"),
        Column("gate", TEXT, "when it is done").or_null("always"),
        Column("scope", TEXT, "positions that are steered: all, generated, last, ..."),
        Column(
            "bounded",
            FLAG,
            "whether every strength of it costs less than the KL of comparison in some fold, so "
            "that it cannot be compared at equal KL",
        ),
        Column("source", TEXT, "where the method comes from").or_null("if its file does not say"),
        number(
            "fit_seconds",
            "time of ranking modules and fitting tensors, mean over folds and seeds; without "
            "reading activations, which methods share",
        ).or_null("if not recorded"),
        number("token_seconds", "time of a generated token of one text, steered as tuned").or_null(
            "where nothing is steered"
        ),
        number("bare_token_seconds", "the same beside it, unsteered").or_null(
            "where nothing is steered"
        ),
        Column("bakes", FLAG, "whether weights of a checkpoint can do it, exactly").or_null(
            "where nothing is steered"
        ),
    ),
)
ANSWERS = declare(
    "answers",
    "one row per generated answer to a test question",
    (
        RUN_ID,
        METHOD,
        FOLD,
        SEED,
        QUESTION_ID,
        QUESTION,
        Column("generation", TEXT, "the generated answer, cut at the first stop"),
        Column("verdict", TEXT, "what the judge called it", values=VERDICTS),
    ),
)
COMPARISONS = declare(
    "comparisons",
    "one row per paired comparison of two methods over test questions",
    (
        RUN_ID,
        BEHAVIOUR,
        METHOD,
        Column("baseline", TEXT, "the method it is compared with"),
        Column("basis", TEXT, "settings compared: each tuned, or equal KL", values=BASES),
        METRIC,
        number("difference", "mean of method minus baseline, in the metric's unit"),
        number("low", "lower end of the 95 % bootstrap interval over questions", True),
        number("high", "upper end of the 95 % bootstrap interval over questions", True),
        Column("n_questions", COUNT, "questions in the comparison", minimum=1),
    ),
)
TRANSFER = declare(
    "transfer",
    "one row per metric of a target behaviour, steered by what was found on a source behaviour",
    (
        RUN_ID,
        *MODELS,
        Column("source", TEXT, "behaviour whose modules, directions, K and alpha are used"),
        Column("target", TEXT, "behaviour whose test questions are measured"),
        METHOD,
        FOLD.or_null("in the row over all folds and seeds"),
        SEED.or_null("in the row over all folds and seeds"),
        METRIC,
        number("steered", "the metric steered, mean over the questions, in its unit"),
        number("unsteered", "the metric unsteered, mean over the same questions"),
        number("gain", "mean of steered minus unsteered, in the metric's unit"),
        number("low", "lower end of the 95 % bootstrap interval over questions", True),
        number("high", "upper end of the 95 % bootstrap interval over questions", True),
        Column("n_questions", COUNT, "questions in the comparison", minimum=1),
        Column(
            "n_excluded",
            COUNT,
            "test questions of the target left out, since the source was found or tuned on them",
            minimum=0,
        ),
    ),
)

STAGE_TIMINGS = declare(
    "stage_timings",
    "one row per shard of a stage that a run went through",
    (
        RUN_ID,
        Column(
            "stage", TEXT, "kind of the stage: checkpoint, activations, scores, evaluation, ..."
        ),
        Column("shard", TEXT, "name of the shard, as its task run is called"),
        number("seconds", "time of the shard's work: in this run, or in the one that it is from"),
        Column(
            "cached", FLAG, "whether it was taken from the cache: its seconds are not this run's"
        ),
        Column("worker", TEXT, "machine and process that did the work").or_null("if not recorded"),
        Column("device", TEXT, "device that it ran on").or_null("if it uses no model"),
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        RUNS,
        SAMPLES,
        MODULE_SCORES,
        TEXT_SCORES,
        SELECTED_MODULES,
        EVALUATIONS,
        METHODS,
        ANSWERS,
        COMPARISONS,
        TRANSFER,
        SCORE_DRIFT,
        STAGE_TIMINGS,
    )
}

ACTIVATIONS = declare(
    "activations",
    "one row per answer, layer and kind of module: activations at the answer's last token, of "
    "heads (the input of o_proj), the layer (the residual stream after it) or its MLP (its output)",
    (*MODELS, BEHAVIOUR, QUESTION_ID, ANSWER_ID, LABEL),
)
"""What every activation shard has before its modules' columns (`artifacts.activation_columns`)."""
