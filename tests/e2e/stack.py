"""A stack of one machine as its user starts it, and what Prefect's pages ask its server."""

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx
from prefect.client.orchestration import PrefectClient, get_client

from flows.running.processes import PART_VARIABLE, owned_by
from storage.paths import Home
from storage.stack_state import StackState, read_state
from tests.terminal import REAL, environment

READY = "Ctrl-C stops"

T = TypeVar("T")


def until(what: Callable[[], bool], seconds: float) -> bool:
    """Say whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def real(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command on a home."""
    command = [*REAL, *arguments]
    return subprocess.run(
        command, env=environment(home), text=True, capture_output=True, timeout=400, check=False
    )


def ask(question: Callable[[PrefectClient], Awaitable[T]]) -> T:
    """Ask the server of Prefect's settings, with Prefect's client."""

    async def asked() -> T:
        async with get_client() as client:
            return await question(client)

    return asyncio.run(asked())


@dataclass
class Up:
    """A started ``real up``."""

    home: Path
    process: "subprocess.Popen[bytes]"

    @property
    def output(self) -> str:
        return (self.home.parent / "up.txt").read_text()

    @property
    def state(self) -> StackState:
        state = read_state(Home(self.home))
        assert state is not None
        return state

    @property
    def pids(self) -> dict[str, int]:
        """Numbers of the services' own processes: of each part's, the oldest."""
        parts: dict[str, int] = {}
        for process in sorted(owned_by(self.state.supervisor), key=lambda p: p.create_time()):
            parts.setdefault(process.environ()[PART_VARIABLE], process.pid)
        return parts

    @cached_property
    def client(self) -> httpx.Client:
        """One for all questions: to make one takes 20 ms of computing."""
        return httpx.Client(base_url=self.state.api_url, timeout=20, trust_env=False)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send as Prefect's client does: again while the server's database is busy (503)."""
        answers: list[httpx.Response] = []

        def taken() -> bool:
            answers.append(self.client.post(path, json=body))
            return answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

        until(taken, 60)
        return answers[-1].raise_for_status().json()

    def wait_until_ready(self) -> None:
        ended = lambda: READY in self.output or self.process.poll() is not None  # noqa: E731
        assert until(ended, 300) and READY in self.output, self.output


def start(home: Path) -> Up:
    """Start ``real up``, whose worker looks for runs every two seconds."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / "up.txt").open("w") as output:
        command = [*REAL, "up", "--port", "0", "--mlflow-port", "0"]
        own = environment(home, PREFECT_WORKER_QUERY_SECONDS="2")
        process = subprocess.Popen(
            command, env=own, stdout=output, stderr=subprocess.STDOUT, cwd=home.parent
        )
    return Up(home, process)
