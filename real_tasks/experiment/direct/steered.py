"""A steering that was learned, with what it gains and costs, in words and tables."""

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from real_tasks.evaluation.gain import OBJECTIVE, Gain
from real_tasks.evaluation.labels import headline_metrics, metric_label
from real_tasks.evaluation.measuring import Measurement
from real_tasks.evaluation.tuning import Choice
from real_tasks.experiment.direct.steering import Comparison, Steering, html_table
from real_tasks.reading.prompts import prompt_text
from real_tasks.vocabulary.types import BehaviourData

HEAD = ("", "before", "after", "gain [95 %]")


@dataclass(kw_only=True, repr=False)
class Steered(Steering):
    """A steering that was learned, and what it does to questions that nothing was chosen by.

    Attributes:
        found: what tuning and the test found.
        unsteered: the same test without steering.
        gains: by metric, and that of their mean, against the unsteered model.
        described: how it was learned, in a line.
        data: the questions, in the order in which they were parted.
    """

    found: Choice
    unsteered: Measurement
    gains: Mapping[str, Gain]
    described: str
    data: BehaviourData

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return what is measured, before, after, and the gain with its 95 % interval."""
        shown = ((name, self.gains[name]) for name in headline_metrics(self.gains))
        rows = [
            (metric_label(name), f"{g.unsteered:.3f}", f"{g.steered:.3f}", _interval(g))
            for name, g in shown
        ]
        kl, before, after = self.found.test.kl, self.unsteered, self.found.test
        old, new = (f"{math.exp(one.cross_entropy):.2f}" for one in (before, after))
        return [*rows, ("perplexity", old, new, ""), ("KL [nats/token]", "0", f"{kl:.3f}", "")]

    def __str__(self) -> str:
        """Return what is steered, what it gains and what it costs, in a few lines."""
        rows = [HEAD, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        table = [
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in places
            ).rstrip()
            for places in (list(enumerate(zip(row, widths, strict=True))) for row in rows)
        ]
        return "\n".join([self.described, *table, self.verdict()])

    def verdict(self) -> str:
        """Say in a sentence whether it helps."""
        goal = self.gains[OBJECTIVE]
        if round(goal.low, 3) > 0:  # as it is shown
            return f"It helps: {_interval(goal)} on what it was tuned for."
        return (
            f"No gain is shown: {_interval(goal)} on what it was tuned for, {goal.n_questions} "
            "questions. More questions narrow the interval; another method or a higher max_kl may "
            "do more."
        )

    def examples(self, n: int = 3, seed: int = 0, max_new_tokens: int = 50) -> Comparison:
        """Return answers to test questions, drawn by a seed, before and after."""
        asked = self.found.test.questions
        drawn = np.random.default_rng(seed).permutation(len(asked))[:n]
        chosen = [self.data.questions[asked[place]] for place in drawn]
        return self._compared(
            tuple(question.text for question in chosen),
            lambda loaded: [prompt_text(loaded, self.data, question) for question in chosen],
            max_new_tokens,
        )

    def _repr_html_(self) -> str:
        said = [f"<p>{html.escape(text)}</p>" for text in (self.described, self.verdict())]
        return f"{said[0]}{html_table(HEAD, self.rows())}{said[1]}"


def _interval(gain: Gain) -> str:
    return f"{gain.gain:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
