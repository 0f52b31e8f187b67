"""One process of a stack: started, watched, started again; its output goes to a log."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path

import httpx

from flows.stack.services import Service

_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 60.0
# Whatever lived as long was no failed start.
_STEADY_S = 60.0


class Condition(Enum):
    """How a child is."""

    starting = "starting"
    healthy = "healthy"
    done = "done"
    ended = "ended"
    late = "late"


class Child:
    """A service that was started.

    Attributes:
        service: what was started last; made anew for every start.
        log: where its output goes; the log of the stack before is kept beside it as ``.1``.
        failures: starts in a row that failed.
        restarts_at: when it is to be started again, of the monotonic clock; None while it runs.
    """

    def __init__(self, make: Callable[[], Service], logs: Path) -> None:
        """Start the service with a new log in the folder of logs."""
        self._make = make
        self.service = make()
        self.log = log = logs / f"{self.service.name}.log"
        self.failures = 0
        self.restarts_at: float | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_name(f"{log.name}.1"))
        self._start()
        self._tail = log.open(errors="replace")
        self._rest = ""

    def restart(self) -> None:
        """Start the service again, after it has ended; the log goes on."""
        self.service = self._make()
        self.restarts_at = None
        self._start()

    def _start(self) -> None:
        self._started = time.monotonic()
        self._healthy = False
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.service.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.service.environment),
                # Ctrl-C in the terminal reaches only the supervisor, which stops in order.
                start_new_session=True,
            )

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    @property
    def age_s(self) -> float:
        """Seconds since it was started last."""
        return time.monotonic() - self._started

    def condition(self) -> Condition:
        """Look how the child is."""
        status = self._process.poll()
        if status is not None:
            done = status == 0 and self.service.healthy is None
            return Condition.done if done else Condition.ended
        with suppress(httpx.HTTPError):  # the server that is asked about it is not there
            self._healthy = self._healthy or bool(self.service.healthy and self.service.healthy())
        if self._healthy:
            return Condition.healthy
        return Condition.late if self.age_s > self.service.startup_s else Condition.starting

    def failure(self) -> str:
        """Say how it failed, with the end of its log."""
        status = self._process.poll()
        what = f"ended ({status})"
        if status is None:
            what = f"is not healthy after {self.service.startup_s:.0f} s"
        elif status < 0:
            what = f"was killed (signal {-status})"
        return f"{self.name} {what}. The end of {self.log}:\n{last_lines(self.log)}"

    def plan_restart(self) -> float:
        """Count a failure, and return the seconds until it is to be started again."""
        self.failures = 1 if self.age_s > _STEADY_S else self.failures + 1
        delay = float(min(_FIRST_DELAY_S * 2 ** (self.failures - 1), _LONGEST_DELAY_S))
        self.restarts_at = time.monotonic() + delay
        return delay

    def new_lines(self) -> list[str]:
        """Return the lines that its log got since the last call, each once, when it is whole."""
        *lines, self._rest = (self._rest + self._tail.read()).split("\n")
        return [line for line in lines if line.strip()]


def last_lines(path: Path, count: int = 15) -> str:
    """Return the last lines of a log that say something."""
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-count:]) or "(its log is empty)"
