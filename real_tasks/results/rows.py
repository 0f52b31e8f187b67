"""From results to rows of the tables, without the run's own columns."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from real_tasks.evaluation.wording import BAG_OF_WORDS, word_aucs
from real_tasks.experiment.methods.method import Method
from real_tasks.questions.folds import fold_of_questions, split
from real_tasks.questions.groups import question_groups
from real_tasks.statistics.paired import paired_difference
from real_tasks.steering.selection import ranked
from real_tasks.vocabulary.config import DataConfig
from real_tasks.vocabulary.types import WHOLE_LAYER, BehaviourData, LocalizerResult, ModuleId

Row = dict[str, Any]
Evaluation = Mapping[str, Any]
"""What `evaluation.record.evaluation_record` makes of a method's result."""

MEASURED_ON = ("n_questions", "n_texts")
"""How many validation questions and neutral texts the metrics of a setting come from."""
BASES = {"tuned": "test", "matched_kl": "matched"}


def sample_rows(data: BehaviourData, n_folds: int) -> list[Row]:
    """Return one row per answer, with the fold in which its question is tested."""
    folds = fold_of_questions(question_groups(data.questions), n_folds)
    return [
        {
            "behaviour": data.name,
            "question_id": question.question_id,
            "answer_id": answer.answer_id,
            "category": question.category,
            "question": question.text,
            "answer": answer.text,
            "label": answer.label,
            "is_best": answer.is_best,
            "fold": fold,
        }
        for fold, asked in zip(folds, data.questions, strict=True)
        for question in asked.presentations
        for answer in question.answers
    ]


def score_rows(localizer: str, fold: int, seed: int, result: LocalizerResult) -> list[Row]:
    """Return one row per module, best first."""
    return [
        {
            "localizer": localizer,
            "protocol": result.protocol,
            "fold": fold,
            "seed": seed,
            **_module(score.module),
            **{name: value for name, value in vars(score).items() if name != "module"},
            "rank": rank,
        }
        for rank, score in enumerate(ranked(result.scores), start=1)
    ]


def text_score_rows(data: BehaviourData, config: DataConfig) -> list[Row]:
    """Return one row per fold and part of it that is held out: what a bag of words tells there."""
    groups = question_groups(data.questions)
    return [
        {
            "classifier": BAG_OF_WORDS,
            "fold": fold,
            "split": part,
            "roc_auc": auc,
            "n_answers": n_answers,
        }
        for fold in range(config.n_folds)
        for part, (auc, n_answers) in word_aucs(data, split(groups, fold, config)).items()
    ]


def selected_rows(method: str, fold: int, seed: int, evaluation: Evaluation) -> list[Row]:
    """Return one row per module that the method steers at its chosen K."""
    return [
        {
            "method": method,
            "fold": fold,
            "seed": seed,
            **_module(ModuleId(**item["module"])),
            "rank": item["rank"],
            "score": item["score"],
            "strength": item["strength"],
        }
        for item in evaluation["selected"]
    ]


def evaluation_rows(
    method: str, fold: int, seed: int, token_scope: str, evaluation: Evaluation
) -> list[Row]:
    """Return one row per metric: of every validation setting, and of the tested one.

    After a race `MEASURED_ON` are among the metrics: some settings were measured on few.
    """
    chosen = {name: evaluation[name] for name in ("top_k", "alpha")}
    known = MEASURED_ON if evaluation.get("race") else ()
    settings = [
        ("validation", one, one["metrics"] | {name: float(one[name]) for name in known})
        for one in evaluation["validation"]
    ]
    settings.append(("test", chosen, evaluation["test"]["metrics"]))
    return [
        {
            "method": method,
            "fold": fold,
            "seed": seed,
            "split": part,
            "top_k": setting["top_k"],
            "alpha": setting["alpha"],
            "token_scope": token_scope,
            "metric": metric,
            "value": value,
        }
        for part, setting, metrics in settings
        for metric, value in metrics.items()
    ]


def method_rows(
    methods: Sequence[Method], sources: Mapping[str, str], bounded: Container[str]
) -> list[Row]:
    """Return one row per method: what it is made of.

    Args:
        methods: those that were evaluated.
        sources: by name, where each comes from.
        bounded: names of those whose largest strength does not cost the KL of comparison.
    """
    return [
        {
            "method": method.name,
            "localizer": method.localizer,
            "fitter": method.fitter and method.fitter.name,
            "operator": method.operator.name if method.fitter else None,
            "gate": method.gate and method.gate.name,
            "scope": str(method.scope),
            "bounded": method.name in bounded,
            "source": sources[method.name] or None,
        }
        for method in methods
    ]


def answer_rows(
    method: str, fold: int, seed: int, data: BehaviourData, evaluation: Evaluation
) -> list[Row]:
    """Return one row per generated answer to a test question; none where nothing is generated."""
    test = evaluation["test"]
    if not test["generations"]:
        return []
    said = zip(test["questions"], test["generations"], test["verdicts"], strict=True)
    return [
        {
            "method": method,
            "fold": fold,
            "seed": seed,
            "question_id": data.questions[index].question_id,
            "question": data.questions[index].text,
            "generation": generation,
            "verdict": verdict,
        }
        for index, generation, verdict in said
    ]


def comparison_rows(
    method: str, evaluations: Mapping[str, Sequence[Evaluation]], n_resamples: int
) -> list[Row]:
    """Compare ``method`` with every other method, question by question, over all folds and seeds.

    `tuned` compares each at its chosen setting, `matched_kl` each at the alpha that costs the same
    KL; where one of the two cannot be brought to that KL there is no row.
    """
    if method not in evaluations:
        return []
    rows = []
    for baseline in evaluations:
        for basis, part in BASES.items():
            pair = (evaluations[method], evaluations[baseline])
            reached = all(result[part] is not None for side in pair for result in side)
            # The unsteered model has no dose that could be matched.
            if (
                baseline == method
                or not reached
                or (basis, baseline) == ("matched_kl", "unsteered")
            ):
                continue
            for metric in _common_metrics(pair, part):
                ours, theirs = ([_by_question(run[part], metric) for run in side] for side in pair)
                found = paired_difference(ours, theirs, n_resamples)
                names = {"method": method, "baseline": baseline, "basis": basis, "metric": metric}
                rows.append(names | vars(found))
    return rows


def _common_metrics(pair: Sequence[Sequence[Evaluation]], part: str) -> list[str]:
    """Return the metrics that every result has question by question."""
    results = [result[part]["per_question"] for side in pair for result in side]
    return [metric for metric in results[0] if all(metric in result for result in results)]


def columns(rows: Iterable[Row], **values: Any) -> list[Row]:
    """Return the rows with the same further columns in each."""
    return [values | row for row in rows]


def _by_question(measurement: Mapping[str, Any], metric: str) -> dict[int, float]:
    return dict(zip(measurement["questions"], measurement["per_question"][metric], strict=True))


def _module(module: ModuleId) -> Row:
    head = None if module.head == WHOLE_LAYER else module.head
    return {"module_kind": module.kind, "layer": module.layer, "head": head}
