"""Thinking that a template opens, or a model begins with: where it starts, and what ends it."""

import re

_TAG = re.compile(
    r"(?P<left>[<\[◁＜]\|?)(?P<name>[^\W\d_][\w:|-]{1,40}?)(?:\s[^<>]*)?(?P<right>\|?[>\]▷＞])"
)
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_THINKING = re.compile(
    "think|thinking|thoughts?|reason|reasoning|reflection|rationale|scratchpad|analysis|"
    "deliberation|monologue|cot"
)
_NOT_OPENING = re.compile("no|not|non|end|stop|off|effort|mode|level|length|budget|max")
"""Parts of a tag's name: one of the first, and none of the second, begins a thinking block."""
_FORMS = {
    "<|inner_prefix|>": "<|inner_suffix|>",
    "<|channel>thought": "<channel|>",
    "<unused94>thought": "<unused95>",
    "<|channel|>analysis<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
    "Here are my reasoning steps:": "[BEGIN FINAL RESPONSE]",
}
"""Forms of one model's own, by what begins the block, with what ends it."""
_FORM = re.compile("|".join(map(re.escape, _FORMS)))
_ANSWER_HEADING = re.compile(r"\s*<\|channel\|>final<\|message\|>")
_BEGINNING = re.compile("start|begin", re.IGNORECASE)


def without_thinking(text: str) -> str | None:
    """Return what a generated text says after the thinking that it begins with, if any.

    Returns:
        None where the thinking does not end.
    """
    begun = text.lstrip()
    opening = next((one for one in openings(begun) if one.start() == 0), None)
    if opening is None:
        heading = _ANSWER_HEADING.match(text)
        return text[heading.end() :] if heading else text
    ended = re.search(re.escape(_end_of(opening)), begun, re.IGNORECASE)
    return begun[ended.end() :] if ended else None


def openings(text: str) -> list[re.Match[str]]:
    """Return what begins a thinking block, in its order."""
    tags = [one for one in _TAG.finditer(text) if _opens(one["name"])]
    return sorted([*tags, *_FORM.finditer(text)], key=lambda one: one.start())


def _opens(name: str) -> bool:
    parts = [part.lower() for part in _PART.findall(name)]
    return any(map(_THINKING.fullmatch, parts)) and not any(map(_NOT_OPENING.fullmatch, parts))


def left_open(text: str) -> tuple[str, str]:
    """Return the beginning of a thinking block that does not end, and what ends it; or nothing."""
    found = openings(text)
    if not found:
        return "", ""
    inside, end = text[found[-1].end() :], _end_of(found[-1])
    if end.lower() in inside.lower():
        return "", ""
    # Templates that write an empty block put its end on a line of its own where its beginning is.
    return found[-1].group(), f"\n{end}\n\n" if "\n" in inside else end


def _end_of(opening: re.Match[str]) -> str:
    """Return what ends a thinking block."""
    if opening[0] in _FORMS:
        return _FORMS[opening[0]]
    name, left, right = opening["name"], opening["left"], opening["right"]
    if _BEGINNING.search(name):
        other = _BEGINNING.sub(lambda m: "END" if m[0].isupper() else "end", name)
        return f"{left}{other}{right}"
    return f"{left}/{name}{right}"
