"""The progress of a stage on the page of its flow run: how much is done, of how much."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

from flows.terminal.console import STAGES
from real_tasks.tasks.cache.progress import listening

SECONDS_BETWEEN = 2.0
"""Between two updates: each costs a call to the server."""

log = logging.getLogger(__name__)


class StageProgress:
    """A progress artifact; where the server takes none, the work goes on and a warning is logged.

    Attributes:
        modules_done: heads (or layers) that are scored, where the stage scores them.
    """

    def __init__(self, stage: str, modules: int, noun: str) -> None:
        """Show the stage, which scores ``modules`` heads, or what ``noun`` says; 0: none."""
        self.stage = stage
        self.modules = modules
        self.noun = noun
        self.modules_done = 0
        self._artifact: UUID | None = None
        self._updated = 0.0

    def show(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units are done; see `progress.Listener`."""
        if stage != self.stage:
            return
        now = time.monotonic()
        if 0 < done < total and now - self._updated < SECONDS_BETWEEN:
            return
        self._updated = now
        try:
            percent = 100 * done / total if total else 100.0
            self._publish(percent, self._description(done, total))
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("the progress of %s is not shown: %s", self.stage, error)

    def _publish(self, percent: float, description: str) -> None:
        if self._artifact is None:
            key = f"progress-{self.stage}".replace("_", "-")
            # The stub knows the coroutine too, which only an async caller gets.
            self._artifact = cast(UUID, create_progress_artifact(percent, key, description))
        else:
            update_progress_artifact(self._artifact, percent, description)

    def _description(self, done: int, total: int) -> str:
        counts = f"{done} of {total}"
        if self.modules:
            scored = f"{self.modules_done} of {self.modules} {self.noun}"
            counts = f"{scored}, {done} of {total} shards"
        return f"{STAGES.get(self.stage, self.stage)}: {counts}"


@contextmanager
def shown_progress(stage: str, modules: int, noun: str) -> Iterator[StageProgress]:
    """Show all progress of a stage that is reported while the context lasts."""
    page = StageProgress(stage, modules, noun)
    with listening(page.show):
        yield page
