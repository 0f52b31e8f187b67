"""Zero-shot transfer: which questions may be tested, and what was measured, as rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from real_tasks.evaluation.gain import OBJECTIVE, gains
from real_tasks.vocabulary.types import BehaviourData, FoldSplit, Question

Row = dict[str, Any]


@dataclass(frozen=True)
class LeakFree:
    """Test questions of a target: those to measure, and those that the source has seen.

    Both are indices into the target's questions.
    """

    kept: tuple[int, ...]
    excluded: tuple[int, ...]


class TransferCell(NamedTuple):
    """What was found of a target, steered by a source, on one fold and with one seed.

    That is ``questions``, a `LeakFree` as JSON has it, and ``steered`` and ``unsteered``, each with
    ``questions`` and ``per_question`` as in `measuring.Measurement`.
    """

    source: str
    target: str
    fold: int
    seed: int
    found: Mapping[str, Any]


def leak_free_questions(
    source: BehaviourData, source_split: FoldSplit, target: BehaviourData, target_split: FoldSplit
) -> LeakFree:
    """Return the target's test questions that the source was neither found nor tuned on.

    Two questions are the same if their texts are, upper and lower case and blanks apart, in any of
    the ways in which they are put. Contexts and answers do not count.
    """
    used = (*source_split.train, *source_split.validation)
    seen = {text for index in used for text in _texts(source.questions[index])}
    leaked = [index for index in target_split.test if seen & _texts(target.questions[index])]
    kept = tuple(index for index in target_split.test if index not in set(leaked))
    return LeakFree(kept, tuple(leaked))


def transfer_rows(
    cells: Sequence[TransferCell],
    method: str,
    objectives: Mapping[str, Sequence[str]],
    n_resamples: int,
    metrics: Sequence[str] = (),
) -> list[Row]:
    """Return the rows of the table ``transfer``, without run and model.

    For every source, target and metric there is a row for each fold and seed, and one over all of
    them, whose fold and seed are None; there a question's values over seeds are averaged first. The
    intervals come from a bootstrap over questions. A question on which a metric is not a number is
    left out of that metric. The mean of a target's ``objectives``, the metrics that K and alpha are
    chosen by, is one more metric, `OBJECTIVE`; of the others ``metrics`` are reported, or all.
    """
    rows = []
    for source, target in dict.fromkeys((cell.source, cell.target) for cell in cells):
        mine = [cell for cell in cells if (cell.source, cell.target) == (source, target)]
        groups: list[tuple[int | None, int | None, list[TransferCell]]] = [
            *((cell.fold, cell.seed, [cell]) for cell in mine),
            (None, None, mine),
        ]
        names = {"source": source, "target": target, "method": method}
        for fold, seed, group in groups:
            measured = [cell.found for cell in group]
            excluded = {question for one in measured for question in one["questions"]["excluded"]}
            runs = [(m["steered"], m["unsteered"], m["questions"]["kept"]) for m in measured]
            found = gains(runs, objectives[target], n_resamples)
            rows += [
                {**names, "fold": fold, "seed": seed, "metric": metric, **vars(gain)}
                | {"n_excluded": len(excluded)}
                for metric, gain in found.items()
                if not metrics or metric in (*metrics, OBJECTIVE)
            ]
    return rows


def _texts(question: Question) -> set[str]:
    return {" ".join(way.text.casefold().split()) for way in question.presentations}
