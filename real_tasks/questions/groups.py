"""Groups of questions that a pair or several conditions join: no fold parts them."""

from collections.abc import Sequence

from real_tasks.vocabulary.types import Question


def question_groups(questions: Sequence[Question]) -> list[int]:
    """Return each question's group, numbered from 0 as they first appear.

    Questions are of one group where an answer of each has the same name of a pair, where the same
    text is asked under conditions, or where others join them so; else each is one of its own.
    """
    groups, known = list(range(len(questions))), dict[object, int]()
    for index, question in enumerate(questions):
        pairs = {answer.pair for way in question.presentations for answer in way.answers} - {""}
        names = {*pairs, *([("asked", question.text)] if question.condition else [])}
        joined = {known[name] for name in names if name in known}
        group = min(joined, default=index)
        groups[index] = group
        if len(joined) > 1:
            groups = [group if one in joined else one for one in groups]
            known = {name: group if one in joined else one for name, one in known.items()}
        known |= dict.fromkeys(names, group)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return [numbers[group] for group in groups]
