"""The table of re-scorings."""

from storage.tables.columns import (
    BEHAVIOUR,
    COUNT,
    FLAG,
    FOLD,
    METHOD,
    MODELS,
    MODULE_KIND,
    RUN_ID,
    SEED,
    TEXT,
    Column,
    declare,
    number,
)

_UNCHANGED = "where nothing was new"
_OVERALL = "in the row over all folds and seeds"
_ALONE = "where the localizer does not rank what is steered, or nothing was measured"


def _estimate(name: str, description: str, over: str, when: str) -> tuple[Column, ...]:
    """Return the columns of a number and of its interval."""
    return (
        number(name, description).or_null(when),
        number(f"{name}_low", f"lower end of its 95 % interval, over {over}", True),
        number(f"{name}_high", f"upper end of its 95 % interval, over {over}", True),
    )


def _count(name: str, description: str, when: str = _UNCHANGED) -> Column:
    return Column(name, COUNT, description, minimum=0).or_null(when)


SCORE_DRIFT = declare(
    "score_drift",
    "one row per localizer, fold and seed of a re-scoring, and one over all folds and seeds; that "
    "one alone where nothing was new. Heads one by one: `module_scores` of both runs",
    (
        RUN_ID,
        Column("baseline_run_id", TEXT, "the experiment's run whose steering is in use"),
        Column("compared_run_id", TEXT, "the run whose scores these are compared with"),
        *MODELS,
        BEHAVIOUR,
        Column("localizer", TEXT, "registered name of the localizer"),
        METHOD,
        FOLD.or_null(_OVERALL),
        SEED.or_null(_OVERALL),
        MODULE_KIND,
        Column("changed", FLAG, "whether anything was new, so that it was scored again"),
        Column("what_changed", TEXT, "data, model, code, with commas between; empty: nothing"),
        Column("exceeded", TEXT, "thresholds passed, with commas between; only in rows over all"),
        Column("data_questions", COUNT, "questions of the data now", minimum=0),
        Column("new_questions", COUNT, "of them not in the data compared with", minimum=0),
        Column("gone_questions", COUNT, "questions only in the data compared with", minimum=0),
        _count("n_modules", "modules that both scorings have"),
        *_estimate("spearman", "rank correlation of the scores", "modules", _UNCHANGED),
        _count("top_k", "how many of the best modules are compared (K)"),
        _count("shared", "modules among the best K of both"),
        *_estimate("overlap", "share of the best K that is in both", "modules", _UNCHANGED),
        Column("entered", TEXT, "modules only now among the best K, best first, as L3H5").or_null(
            _UNCHANGED
        ),
        Column("left", TEXT, "modules no longer among the best K, best first").or_null(_UNCHANGED),
        number("auc_mean", "mean ROC-AUC of the modules now").or_null("if it has no ROC-AUC"),
        *_estimate(
            "auc_change", "its mean change over all modules", "modules", "if it has no ROC-AUC"
        ),
        *_estimate(
            "auc_best_change",
            "mean change over what were the best K",
            "modules",
            "if it has no ROC-AUC",
        ),
        *_estimate(
            "auc_largest_change",
            "the largest change of a module, up or down",
            "questions",
            "if it has no ROC-AUC",
        ),
        Column("auc_largest_module", TEXT, "that module").or_null("if it has no ROC-AUC"),
        *_estimate(
            "gain",
            "what the deployed steering gains in the metrics that K and alpha were chosen by, "
            "their mean: steered minus unsteered, on questions it never saw",
            "questions",
            _ALONE,
        ),
        number("gain_before", "the same on the baseline's test questions").or_null(_ALONE),
        *_estimate("gain_change", "gain minus gain_before", "questions", _ALONE),
        _count("n_questions", "questions in the comparison", _ALONE),
        _count(
            "n_excluded",
            "questions left out of it, since the deployed steering was found or tuned on them",
            _ALONE,
        ),
    ),
)
