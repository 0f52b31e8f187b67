"""The state of the stack (servers, worker) that runs on a home: who, where, since when.

One stack a home: its process holds a lock as long as it lives, however it ends. The state file
says what it started, so that other commands find it, and that the next one can clean up after a
dead one.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.errors import StorageError
from storage.locks import is_locked, locked
from storage.paths import Home
from storage.whole_files import whole_file

FOLDER = "stack"
_LOCK = "lock"
_STATE = "state.json"
# Whoever asks whether a stack lives holds the lock for a moment.
_PATIENCE_S = 1.0


class StackRunningError(StorageError):
    """The home has a running stack already."""


class ProcessMark(BaseModel):
    """A process, such that another one with its number is not taken for it.

    Attributes:
        name: what it is.
        pid: its number.
        birth: when it was started, as the system says it; it tells two of one number apart.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    birth: str


class StackState(BaseModel):
    """What a stack is and where its servers are.

    Attributes:
        supervisor: the process that started it and stops it; all that it started has its mark.
        started_at: when, UTC.
        prefect_url: address of Prefect's pages; its API is below ``/api``.
        mlflow_url: address of MLflow's pages.
        auth: ``user:password`` of both servers, None where they ask for none.
        ready: whether all was healthy once.
    """

    model_config = ConfigDict(frozen=True)

    supervisor: ProcessMark
    started_at: datetime
    prefect_url: str
    mlflow_url: str
    auth: str | None = None
    ready: bool = False

    @property
    def api_url(self) -> str:
        """The address of Prefect's API."""
        return f"{self.prefect_url}/api"


def stack_folder(home: Home) -> Path:
    """Return the folder of the stack's state, which only its owner can read; make it if needed."""
    folder = home.root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


@contextmanager
def only_stack(home: Home) -> Iterator[None]:
    """Hold the home's lock while the context lasts: the stack of this process is its only one.

    Raises:
        StackRunningError: another process holds it; the message says which and where its pages are.
    """
    lock, deadline = stack_folder(home) / _LOCK, time.monotonic() + _PATIENCE_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(lock, wait=False))
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StackRunningError(_running(home)) from None
            time.sleep(0.05)
        yield


def check_no_stack(home: Home) -> None:
    """Check that no stack runs on the home.

    Raises:
        StackRunningError: one does; the message says where its pages are.
    """
    if is_held(home):
        raise StackRunningError(_running(home))


def live_stack(home: Home) -> StackState | None:
    """Return the state of the stack that runs on the home, None where there is none."""
    return read_state(home) if is_held(home) else None


def is_held(home: Home) -> bool:
    """Return whether a stack runs on the home, or starts or stops there."""
    try:
        return is_locked(home.root / FOLDER / _LOCK)
    except FileNotFoundError:
        return False


def read_state(home: Home) -> StackState | None:
    """Return the state of the home's last stack, living or dead; None where none was left.

    Raises:
        StorageError: the file is damaged.
    """
    path = home.root / FOLDER / _STATE
    try:
        return StackState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise StorageError(
            f"{path} is damaged ({error.error_count()} errors); when no server and no worker of "
            "this home runs any more (see `ps`), remove the file"
        ) from error


def write_state(home: Home, state: StackState) -> None:
    """Write the state, whole or not at all; only its owner can read it."""
    folder = stack_folder(home)
    with whole_file(folder / _STATE, mode=0o600) as file:
        file.write(state.model_dump_json(indent=1).encode())


def remove_state(home: Home) -> None:
    """Forget the stack: nothing of it runs any more."""
    (home.root / FOLDER / _STATE).unlink(missing_ok=True)


def _running(home: Home) -> str:
    state = read_state(home)
    if state is None:
        return f"a `real up` on the home {home.root} is starting or stopping at this moment"
    return (
        f"a stack runs on the home {home.root} already, since {state.started_at:%Y-%m-%d %H:%M:%S} "
        f"UTC, process {state.supervisor.pid}: Prefect {state.prefect_url}, MLflow "
        f"{state.mlflow_url}. Use it; or stop it with `real down`; or give another home with --home"
    )
