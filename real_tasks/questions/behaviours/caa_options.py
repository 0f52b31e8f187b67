"""Where the options of an A/B question stand, and the text that follows the last of them.

Questions of Anthropic's evaluations end with "Answer:" or with what the assistant begins to say.
Such a tail belongs to no option. A single question does not always tell where its last option ends;
then the other questions of the file do, and where they do not, the question is a problem.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from real_tasks.questions.files.parsing import BadRow, collapsed, shortened

_LETTERS, _DIGITS = "[A-Za-z]", "[1-9]"
_BULLET = r"(?:[-*•][^\S\n]+)?"
_SHAPES = (r"[(（]({})[)）]", r"\[({})\]", r"({})[)）](?!\w)", r"({})[.．、](?=\s|[^\x00-\x7f]|$)")
_ONLY_ON_LINES = (r"({})[:：](?=\s|[^\x00-\x7f]|$)",)
_SEPARATOR = re.compile(r"(?:\s*[,;|])?(?:\s+(?:or|and))?\s*$", re.IGNORECASE)
_END = ".?!。？！"
_SENTENCES = re.compile(rf"[{_END}]\s+\S")
_CUE = re.compile(
    r"(?:assistant|answer|choice|option|response|reply|selection"
    r"|(?:my|the|your|so my|so the) (?:\w+ ){0,2}(?:answer|choice|option|response|reply|selection)"
    r"|i (?:would )?(?:choose|pick|select|answer))\b[^.?!。？！]*"
    r"|(?:我的|我|正确|最佳)?(?:答案|回答|选择|选项|选)[^.?!。？！]*",
    re.IGNORECASE,
)
_ASKS = re.compile(r"[\w\"'] (?:Which|What|Who|How|Do|Would|Should|Please|Choose)\b[^.?!]*\?$")
"""A question that begins after words that end no sentence."""
_COLONS = (":", "：")
_FEW = 20
"""One last option in so many may end with a colon without being taken for a tail."""
_SEVERAL = 3
"""Different last options that tell what they have in common from what a few say alike."""
_LONGEST_TAIL = 20
"""Lines of a tail that are compared between questions."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Options:
    """Labels of options, in capitals, and where in the question the text of each stands.

    Attributes:
        spans: in the order of the question; the last one runs to the end of its line only.
        separated: whether they stand in one sentence, whose last mark belongs to none of them.
        shape: of the labels, as ``(A)``.
    """

    spans: dict[str, Span]
    separated: bool
    shape: str

    @property
    def last(self) -> str:
        """The label of the option that stands last."""
        return list(self.spans)[-1]


@dataclass(frozen=True)
class FileHabits:
    """What the questions of a file tell of how its options end.

    Attributes:
        lines: whether options that are followed by others run over several lines.
        paragraphs: whether blank lines stand within such options.
        endings: last lines of such options of several lines.
        colons: whether few last options that nothing follows end with a colon, as what an answer
            announces may; what ends every question does so in all of them.
        tails: lines that end two questions, and half of those whose last option is followed by any.
        ending: a sentence with which the line of every last option ends, and none of another.
    """

    lines: bool = False
    paragraphs: bool = False
    colons: bool = False
    endings: frozenset[str] = frozenset()
    tails: frozenset[tuple[str, ...]] = frozenset()
    ending: str = ""


def find_options(text: str, labels: Sequence[str], shape: str = "") -> Options | None:
    """Return the last options that are labelled from A (or 1) on, up or down, one after another.

    Options begin lines; only where none do they may follow each other on one line. They must have
    the labels, in capitals, among them; where none are given, there are two at least. Where labels
    of several shapes stand, the one like ``(A)`` that is given decides.

    Raises:
        BadRow: options of several shapes, and ``shape`` is none of them.
    """
    kind = _DIGITS if labels and labels[0].isdigit() else _LETTERS
    for on_lines in (True, False):
        for step in (1, -1):
            found = [
                one
                for pattern in (*_SHAPES, *(_ONLY_ON_LINES if on_lines else ()))
                if (one := _last_run(text, pattern.format(kind), on_lines, step, labels))
            ]
            if len(found) > 1:
                found = [one for one in found if one.shape == shape]
                if not found:
                    raise BadRow("options of several kinds ('(A)', 'A.'); keep one of them")
            if found:
                return found[0]
    return None


def habits_of(texts: Iterable[str]) -> FileHabits:
    """Return what all questions of a file tell together of how options end."""
    others: list[str] = []
    followed: list[list[str]] = []
    lasts: list[str] = []
    for text in dict.fromkeys(texts):
        try:
            options = find_options(text, ())
        except BadRow:
            continue
        if options is not None:
            others += _others(text, options)
            followed.append([collapsed(text[start:end]) for start, end in _lines(text, options)])
            start, end = options.spans[options.last]
            lasts.append(text[start:end])
    ends = [last.endswith(_COLONS) for last in lasts]
    followed = [lines for lines in followed if lines]
    tails = Counter(
        tuple(lines[-n:])
        for lines in followed
        for n in range(1, 1 + min(len(lines), _LONGEST_TAIL))
    )
    broken = [one for one in others if "\n" in one]
    return FileHabits(
        lines=bool(broken),
        paragraphs=any(_has_blank_line(one) for one in broken),
        colons=_FEW * sum(ends) <= len(ends),
        endings=frozenset(collapsed(one.rsplit("\n", 1)[1]) for one in broken),
        tails=frozenset(tail for tail, n in tails.items() if n > 1 and 2 * n >= len(followed)),
        ending=_common_ending(lasts, others),
    )


def end_of_last(text: str, options: Options, habits: FileHabits) -> int:
    """Return where the text of the last option ends, and the tail begins.

    Raises:
        BadRow: nothing tells whether what follows belongs to it.
    """
    start, end = options.spans[options.last]
    others = _others(text, options)
    lines = _lines(text, options)
    own = lines[: len(lines) - _tail_lines([text[a:b] for a, b in lines], habits)]
    if own:
        inside = text[end : own[-1][1]]
        blank = _has_blank_line(inside)
        known = any(_has_blank_line(one) if blank else "\n" in one for one in others)
        if not (known or (habits.paragraphs if blank else habits.lines)):
            raise BadRow(
                f"nothing tells whether {shortened(collapsed(inside))}, which follows option "
                f"({options.last}), belongs to it; write the option on one line, or end the "
                "question with it"
            )
        return own[-1][1]
    if habits.ending and text[start:end].endswith(habits.ending):
        return start + len(text[start:end].removesuffix(habits.ending).rstrip())
    colons = habits.colons or bool(lines) or all(one.endswith(_COLONS) for one in others)
    return _end_on_line(text, (start, end), others, options.separated, colons)


def ends_with_cue(text: str) -> bool:
    """Return whether the last line of a text is the beginning of an answer, as ``Answer:``."""
    line = text.rstrip().rsplit("\n", 1)[-1].strip()
    return line.endswith((*_COLONS, "(")) or _CUE.fullmatch(line) is not None


def _last_run(
    text: str, label: str, on_lines: bool, step: int, wanted: Sequence[str]
) -> Options | None:
    before = rf"^[^\S\n]*{_BULLET}" if on_lines else r"(?<!\S)"
    marks = list(re.finditer(rf"{before}{label}[^\S\n]*", text, re.MULTILINE))
    for first in reversed(range(len(marks))):
        run = [marks[first]]
        for mark in marks[first + 1 :]:
            if ord(mark[1]) != ord(run[-1][1]) + step:
                break
            run.append(mark)
        first_label = run[0] if step > 0 else run[-1]
        valid = len(run) > 1 and first_label[1] in "Aa1"
        options = _options(text, run, on_lines) if valid else None
        if options is not None and set(wanted) <= set(options.spans):
            return options
    return None


def _options(text: str, run: Sequence[re.Match[str]], on_lines: bool) -> Options | None:
    """Return the spans of a run of labels; None where one has no text of its own."""
    spans, separated = {}, not on_lines
    for mark, following in zip(run, run[1:], strict=False):
        whole = text[mark.end() : following.start()].rstrip()
        trimmed = _SEPARATOR.sub("", whole)
        separated |= trimmed != whole
        spans[mark[1].upper()] = (mark.end(), mark.end() + len(trimmed))
    last = text[run[-1].end() :].partition("\n")[0].rstrip()
    spans[run[-1][1].upper()] = (run[-1].end(), run[-1].end() + len(last))
    if not all(any(map(str.isalnum, text[start:end])) for start, end in spans.values()):
        return None
    return Options(spans, separated, re.sub(r"[^\S\n]|[-*•]", "", run[0][0]).upper())


def _others(text: str, options: Options) -> list[str]:
    return [text[a:b] for label, (a, b) in options.spans.items() if label != options.last]


def _lines(text: str, options: Options) -> list[Span]:
    """Return where the lines after the last option's first one stand, blank ones left out."""
    after = options.spans[options.last][1]
    found = re.finditer(r"[^\n]*\S", text[after:])
    return [(after + one.start(), after + one.end()) for one in found]


def _tail_lines(lines: Sequence[str], habits: FileHabits) -> int:
    """Return how many of the last lines are a tail, by their wording or by the file."""
    texts = [collapsed(line) for line in lines]
    shared = (
        n
        for n in range(min(len(texts), _LONGEST_TAIL), 0, -1)
        if tuple(texts[-n:]) in habits.tails and texts[-1] not in habits.endings
    )
    return next(shared, 1 if texts and ends_with_cue(texts[-1]) else 0)


def _end_on_line(
    text: str, span: Span, others: Sequence[str], separated: bool, colons: bool
) -> int:
    """Return where the last option ends on its first line; ``colons``: whether with a colon."""
    start, end = span
    line = text[start:end]
    for space in re.finditer(r"(?<=\S)\s+", line):
        place = space.end()
        cue = line[place:]
        # An option may hold such words too, with a colon of its own.
        inside = any(colon in cue[:-1] for colon in _COLONS)
        if line.endswith((*_COLONS, "(")) and not inside and _CUE.fullmatch(cue):
            end = start + len(line[:place].rstrip())
            break
    said = text[start:end]
    if said.endswith(_COLONS) and not colons:
        raise BadRow(
            f"the last option, {shortened(said)}, ends with a colon, so that nothing tells where "
            "it ends; put what follows it on a line of its own"
        )
    if _ASKS.search(said) and not any(_ASKS.search(one) for one in others):
        raise _unclear(said)
    if separated:
        if _SENTENCES.search(said) and not any(_SENTENCES.search(one) for one in others):
            raise _unclear(said)
        if said[-1] in _END and not any(one[-1] in _END for one in others):
            end -= 1
    return end


def _unclear(said: str) -> BadRow:
    return BadRow(
        f"nothing tells how much of {shortened(said)} belongs to the last option; put every "
        "option, and what follows the last, on a line of its own"
    )


def _common_ending(lasts: Sequence[str], others: Iterable[str]) -> str:
    """Return the longest sentence that ends all of several last options, and no other; or nothing.

    Words that options merely share ("tomorrow") are none: it begins with a capital, or in a script
    without them, and ends as questions and cues do.
    """
    if len(set(lasts)) < _SEVERAL:
        return ""
    ending = os.path.commonprefix([last[::-1] for last in lasts])[::-1]
    for start in re.finditer(r"(?<=\s)\S", ending):
        words = ending[start.start() :]
        begins = words[0].isalpha() and not words[0].islower()
        if begins and words.endswith((*_COLONS, "?", "？")):
            return words if not any(one.endswith(words) for one in others) else ""
    return ""


def _has_blank_line(text: str) -> bool:
    return re.search(r"\n[^\S\n]*\n", text) is not None
