"""From results to rows of the tables, without the run's own columns."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from real_tasks.evaluation.bootstrap import Difference, paired_difference
from real_tasks.evaluation.labels import headline_metrics
from real_tasks.evaluation.wording import BAG_OF_WORDS, word_aucs
from real_tasks.questions.folds import fold_of_questions, split
from real_tasks.questions.groups import question_groups
from real_tasks.steering.selection import ranked
from real_tasks.vocabulary.config import DataConfig
from real_tasks.vocabulary.types import WHOLE_LAYER, BehaviourData, LocalizerResult, ModuleId

Row = dict[str, Any]
Evaluation = Mapping[str, Any]
"""What `evaluation.record.evaluation_record` makes of a method's result."""

MEASURED_ON = ("n_questions", "n_texts")
"""How many validation questions and neutral texts the metrics of a setting come from."""
TIMES = ("fit_seconds", "token_seconds", "bare_token_seconds")
"""What the stage of evaluation notes of a method, in seconds."""
BASES = {"tuned": "test", "matched_kl": "matched"}
UNSTEERED = "unsteered"


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
    methods: Sequence[Mapping[str, str | None]],
    sources: Mapping[str, str],
    bounded: Container[str],
    facts: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[Row]:
    """Return one row per method: what it is made of, what it takes, whether it bakes.

    Args:
        methods: of those that were evaluated, names and parts; see `Method.columns`.
        sources: by name, where each comes from.
        bounded: names of those whose largest strength does not cost the KL of comparison.
        facts: by name, of each fold and seed, what the stage of evaluation noted.
    """
    return [
        {
            **method,
            "bounded": name in bounded,
            "source": sources[name] or None,
            **{time: _mean(facts[name], time) for time in TIMES},
            "bakes": _all(facts[name], "bakes"),
        }
        for method in methods
        for name in [str(method["method"])]
    ]


def _mean(facts: Sequence[Mapping[str, Any]], name: str) -> float | None:
    known = [float(one[name]) for one in facts if one.get(name) is not None]
    return fmean(known) if known else None


def _all(facts: Sequence[Mapping[str, Any]], name: str) -> bool | None:
    known = [bool(one[name]) for one in facts if one.get(name) is not None]
    return all(known) if known else None


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
    main: str, evaluations: Mapping[str, Sequence[Evaluation]], n_resamples: int
) -> list[Row]:
    """Compare methods question by question, over all folds and seeds.

    The run's own method ``main`` is compared with every other, and each of the others, by the
    headline metrics, with the unsteered model. `tuned` compares each at its chosen setting,
    `matched_kl` each at the alpha that costs the same KL (the unsteered model, which has no dose,
    as it is); where a method cannot be brought to that KL there is no row.
    """
    pairs = [(main, other) for other in evaluations if other != main and main in evaluations]
    if UNSTEERED in evaluations:
        others = (name for name in evaluations if name not in (main, UNSTEERED))
        pairs += [(other, UNSTEERED) for other in others]
    return [
        {"method": method, "baseline": baseline, "basis": basis, "metric": metric, **vars(found)}
        for method, baseline in pairs
        for basis in BASES
        for metric, found in _differences(
            _sides(evaluations, method, baseline, basis), method == main, n_resamples
        )
    ]


def _sides(
    evaluations: Mapping[str, Sequence[Evaluation]], method: str, baseline: str, basis: str
) -> list[list[Evaluation | None]]:
    """Return both methods' measurements of every fold and seed."""
    parts = ((name, "test" if name == UNSTEERED else BASES[basis]) for name in (method, baseline))
    return [[one[part] for one in evaluations[name]] for name, part in parts]


def _differences(
    sides: Sequence[Sequence[Evaluation | None]], every: bool, n_resamples: int
) -> Iterator[tuple[str, Difference]]:
    """Yield the difference in each metric that is known question by question, or headline one."""
    ours, theirs = ([one for one in side if one is not None] for side in sides)
    if len(ours) < len(sides[0]) or len(theirs) < len(sides[1]):
        return
    known = [one["per_question"] for one in (*ours, *theirs)]
    common = [metric for metric in known[0] if all(metric in one for one in known)]
    for metric in common if every else headline_metrics(common):
        first, second = ([_by_question(one, metric) for one in side] for side in (ours, theirs))
        yield metric, paired_difference(first, second, n_resamples)


def columns(rows: Iterable[Row], **values: Any) -> list[Row]:
    """Return the rows with the same further columns in each."""
    return [values | row for row in rows]


def _by_question(measurement: Mapping[str, Any], metric: str) -> dict[int, float]:
    return dict(zip(measurement["questions"], measurement["per_question"][metric], strict=True))


def _module(module: ModuleId) -> Row:
    head = None if module.head == WHOLE_LAYER else module.head
    return {"module_kind": module.kind, "layer": module.layer, "head": head}
