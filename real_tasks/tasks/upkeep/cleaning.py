"""Upkeep of a home: what nobody needs any more, listed or removed, with a list in Prefect."""

from collections.abc import Sequence
from typing import Literal

import humanize
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import ConfigDict, Field

from real_tasks.vocabulary.config import Frozen
from storage.paths import Home
from storage.runs.run import mark_crashed_runs, now
from storage.upkeep.cleaning import CleaningPolicy, Removable, removable, remove

NAMES = {
    "artifact": "artifacts that no kept run uses",
    "temporary": "left-over temporary folders and files",
    "run": "runs that did not end well",
    "log": "old logs",
}
LISTED = 30
"""Entries of the list on the page; the sums are over all."""


class CleanConfig(Frozen):
    """What is old enough to be removed, and whether it is removed or only listed."""

    model_config = ConfigDict(title="Cleaning")

    dry_run: bool = Field(
        True, title="Dry run", description="only list what could go; off: remove it"
    )
    artifact_days: int = Field(
        7,
        ge=0,
        title="Days of unused artifacts",
        description="an artifact that no kept run uses is kept for so many days: a run that failed "
        "takes it from the cache when it is started again",
    )
    run_days: int = Field(
        7, ge=0, title="Days of bad runs", description="a run is kept for so many days"
    )
    statuses: tuple[Literal["crashed", "failed"], ...] = Field(
        ("crashed",), title="Bad runs", description="how a run must have ended to be removed"
    )
    log_days: int = Field(
        30, ge=0, title="Days of logs", description="a log is kept for so many days"
    )

    @property
    def label(self) -> str:
        """What is done, for the name of a flow run."""
        return "dry-run" if self.dry_run else "removal"


class CleanSummary(Frozen):
    """What could go, or went.

    Attributes:
        removed: whether it is gone.
        counts: how many of each kind.
        size_bytes: of all of it together.
        skipped: how many were left, since a run is going on that may use them.
    """

    removed: bool
    counts: dict[str, int]
    size_bytes: int
    skipped: int

    def sentence(self) -> str:
        """Say it in a sentence."""
        parts = [f"{count} {NAMES[what]}" for what, count in self.counts.items()]
        verb = "removed" if self.removed else "could be removed"
        left = (
            f"; {self.skipped} left, since a run is going on that may use them"
            if self.skipped
            else ""
        )
        if not parts:
            return f"nothing {'was' if self.removed else 'is'} there to be removed{left}"
        return f"{', '.join(parts)}, {readable_bytes(self.size_bytes)}: {verb}{left}"


def clean_up(home: Home, config: CleanConfig) -> tuple[CleanSummary, str]:
    """List or remove what nobody needs in a home; return the sums, and the list as Markdown."""
    policy = CleaningPolicy(**config.model_dump(exclude={"dry_run"}))
    mark_crashed_runs(home)
    found = removable(home, policy, now())
    gone = found if config.dry_run else remove(home, found)
    summary = CleanSummary(
        removed=not config.dry_run,
        counts=_counts(gone),
        size_bytes=sum(one.size_bytes for one in gone),
        skipped=len(found) - len(gone),
    )
    return summary, _page(summary, gone)


@task(name="clean-home", cache_policy=NO_CACHE)
def clean_home(config: CleanConfig) -> CleanSummary:
    """Clean up the current home, show what was found on the run's page, and return the sums."""
    summary, page = clean_up(Home.current(), config)
    get_run_logger().info(summary.sentence())
    create_markdown_artifact(page, key="cleaning", description=summary.sentence())
    return summary


def readable_bytes(size: int) -> str:
    """Return a size as people read it, in powers of 1024."""
    return humanize.naturalsize(size, binary=True).replace("Byte", "byte")


def _counts(found: Sequence[Removable]) -> dict[str, int]:
    counts = {what: sum(one.what == what for one in found) for what in NAMES}
    return {what: count for what, count in counts.items() if count}


def _page(summary: CleanSummary, found: Sequence[Removable]) -> str:
    shown = sorted(found, key=lambda one: -one.size_bytes)[:LISTED]
    lines = ["| what | size | why |", "| --- | ---: | --- |"]
    lines += [f"| {one.name} | {readable_bytes(one.size_bytes)} | {one.why} |" for one in shown]
    more = len(found) - len(shown)
    if more:
        lines.append(f"| and {more} more | | |")
    return "\n".join([f"# {summary.sentence()}", "", *(lines if found else [])]) + "\n"
