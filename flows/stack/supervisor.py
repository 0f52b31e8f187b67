"""The stack of one machine: servers, worker, deployments; started, watched and stopped as one."""

import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import FrameType

import httpx

from flows.running.processes import owned_by, owning, stop_all
from flows.stack import recovery
from flows.stack.child import Child, Condition
from flows.stack.options import StackOptions
from flows.stack.services import Service, Services
from flows.stack.stopping import clean_dead
from flows.stack.view import Terminal
from real_tasks.vocabulary.errors import WorkFailedError
from storage.paths import Home
from storage.stack_state import ProcessMark, StackState, only_stack, remove_state, write_state

Ready = Callable[[StackState, list[str]], None]

SERVERS = ("prefect", "mlflow")
MOST_RESTARTS = 3
"""Starts of a server in a row that may fail before the stack ends."""

_TICK_S = 0.3
# The worker notices by itself, and says so, what its runs lost while the server was away.
_RECOVERY_S = 30.0
_WORKER_GRACE_S = 15.0


class _StopAskedError(Exception):
    """Somebody wants the stack to stop."""


def run_stack(home: Home, options: StackOptions, terminal: Terminal, ready: Ready) -> None:
    """Start the stack of a home, watch it until it is told to stop, and stop it.

    Args:
        home: whose stack it is; it has one at a time.
        options: addresses, ports, authentication.
        terminal: where it says what happens.
        ready: called once when all is healthy, with the state and the names of the deployments.

    Raises:
        StackRunningError: the home has a running stack.
        WorkFailedError: something did not start, or a server cannot be restarted.
    """
    with only_stack(home):
        clean_dead(home, terminal)
        with owning(home) as own:
            Stack(home, own, options, terminal).run(ready)


class Stack:
    """The processes of a stack, and what is done when one of them ends."""

    def __init__(
        self, home: Home, own: ProcessMark, options: StackOptions, terminal: Terminal
    ) -> None:
        """Start nothing yet."""
        self._home = home
        self._terminal = terminal
        self._state = StackState(
            supervisor=own,
            started_at=datetime.now(UTC),
            prefect_url=options.prefect_url,
            mlflow_url=options.mlflow_url,
            auth=options.auth,
        )
        self._services = Services(home, options)
        self._children: dict[str, Child] = {}
        self._recover_at: float | None = None
        self._asked_to_stop = 0

    def run(self, ready: Ready) -> None:
        """Start everything, call ``ready``, watch until a signal asks to stop, stop everything."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask_to_stop)
        try:
            write_state(self._home, self._state)
            self._start()
            self._state = self._state.model_copy(update={"ready": True})
            write_state(self._home, self._state)
            ready(self._state, list(self._services.servers.deployment_names().values()))
            self._watch()
        except _StopAskedError:
            pass
        finally:
            self._terminal.wait("")
            self._stop()

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._asked_to_stop += 1

    def _start(self) -> None:
        services = self._services
        prefect = self._launch(services.prefect)
        if not (self._home.mlflow / "mlflow.db").exists():
            self._await(self._launch(services.mlflow_database))
        mlflow = self._launch(services.mlflow)
        self._await(prefect)
        self._await(mlflow, self._launch(services.setup))
        self._recover(worker_lives=False, crashed_since=self._state.started_at)
        self._await(self._launch(services.worker))

    def _launch(self, make: Callable[[], Service]) -> Child:
        child = Child(make, self._home.logs)
        self._children[child.name] = child
        return child

    def _await(self, *children: Child) -> None:
        """Wait until the children are healthy, or have done what they do.

        Raises:
            WorkFailedError: one ended, or takes too long.
        """
        waiting = list(children)
        while waiting:
            self._pause(f"waiting for {', '.join(c.name for c in waiting)}")
            for child in list(waiting):
                condition = child.condition()
                if condition in (Condition.ended, Condition.late):
                    raise WorkFailedError(child.failure())
                if condition is not Condition.starting:
                    self._terminal.say(f"{child.name}: {condition.value} after {child.age_s:.0f} s")
                    waiting.remove(child)

    def _watch(self) -> None:
        for child in self._children.values():
            child.new_lines()  # of the start, of no use after it
        while True:
            self._pause("")
            for child in self._children.values():
                for line in child.new_lines():
                    self._terminal.log(child.name, line)
                self._look_after(child)
            if self._recover_at is not None and time.monotonic() > self._recover_at:
                self._recover_at = None
                self._recover(worker_lives=True)

    def _look_after(self, child: Child) -> None:
        if child.restarts_at is None:
            if child.condition() in (Condition.ended, Condition.late):
                self._plan_restart(child)
        elif time.monotonic() > child.restarts_at:
            if child.name == "worker":
                self._recover(worker_lives=False)
            child.restart()

    def _plan_restart(self, child: Child) -> None:
        failure = child.failure()
        delay = child.plan_restart()
        self._end(child.name)
        if child.name in SERVERS and child.failures > MOST_RESTARTS:
            raise WorkFailedError(
                f"{failure}\nIt was restarted {MOST_RESTARTS} times in vain; the stack ends"
            )
        self._terminal.say(f"{failure}\n{child.name}: starting again in {delay:.0f} s")
        if child.name == "prefect":
            self._recover_at = time.monotonic() + _RECOVERY_S

    def _recover(self, worker_lives: bool, crashed_since: datetime | None = None) -> None:
        servers = self._services.servers
        try:
            lines = recovery.resume_lost(servers, worker_lives, crashed_since)
        except httpx.HTTPError as error:  # the server is away: asked again when it is back
            self._recover_at = time.monotonic() + _RECOVERY_S
            lines = [f"prefect cannot be asked for interrupted runs yet ({error})"]
        for line in lines:
            self._terminal.say(line)

    def _pause(self, waiting_for: str) -> None:
        if self._asked_to_stop:
            raise _StopAskedError
        self._terminal.wait(waiting_for)
        time.sleep(_TICK_S)

    def _end(self, name: str | None = None, grace_s: float = 8.0) -> None:
        """Stop a child and all below it, or all children; at once, if asked to stop again."""
        find = partial(owned_by, self._state.supervisor, name)
        stop_all(find, grace_s, in_haste=lambda: self._asked_to_stop > 1)

    def _stop(self) -> None:
        """Stop the worker, note what it was running, then stop the servers."""
        self._terminal.say("stopping")
        if "worker" in self._children:
            self._stop_worker()
        self._end()
        remove_state(self._home)

    def _stop_worker(self) -> None:
        servers = self._services.servers
        try:
            runs = servers.unfinished_runs()
            self._end("worker", _WORKER_GRACE_S)
            lines = recovery.resume_stopped(servers, runs)
        except httpx.HTTPError as error:
            lines = [f"prefect cannot be told of interrupted runs ({error}); the next start will"]
        for line in lines:
            self._terminal.say(line)
