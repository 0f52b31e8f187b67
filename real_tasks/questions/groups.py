"""Groups of questions that a pair joins: no fold parts them."""

from collections.abc import Sequence

from real_tasks.vocabulary.types import Question


def question_groups(questions: Sequence[Question]) -> list[int]:
    """Return each question's group, numbered from 0 as they first appear.

    Questions are of one group where an answer of each has the same name of a pair, or where others
    join them so; without such names each is one of its own.
    """
    groups, of_pair = list(range(len(questions))), dict[str, int]()
    for index, question in enumerate(questions):
        names = {answer.pair for way in question.presentations for answer in way.answers} - {""}
        joined = {of_pair[name] for name in names if name in of_pair}
        group = min(joined, default=index)
        groups[index] = group
        if len(joined) > 1:
            groups = [group if one in joined else one for one in groups]
            of_pair = {name: group if one in joined else one for name, one in of_pair.items()}
        of_pair |= dict.fromkeys(names, group)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return [numbers[group] for group in groups]
