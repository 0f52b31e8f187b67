"""What a run in a terminal starts ends with it, however it ends: Prefect's temporary server, Ray.

``python -m flows.run_processes PARENT MARK`` is the watcher: it waits until its parent is gone,
then stops what was started under the mark. What a watcher that was killed too has left is found by
its mark later.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
from pydantic import ValidationError

from flows.stack_processes import environment, lives, mark, stop_all
from storage.paths import Home
from storage.stack_state import ProcessMark

RUN_VARIABLE = "REAL_RUN"
"""In the environment of all that a run starts: the mark of its process, named by its home."""

_POLL_S = 0.2
_PATIENCE_S = 4.0


@contextmanager
def ending_with_this_process(home: Home) -> Iterator[None]:
    """Let what is started while the context lasts end with this process, even if it is killed."""
    own = mark(str(home.root), os.getpid())
    assert own is not None, "this process lives"
    value = own.model_dump_json()
    subprocess.Popen(
        [sys.executable, "-m", __name__, str(own.pid), value],
        stdin=subprocess.DEVNULL,
        # Whoever reads the command's output would wait for the watcher's end as well.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.environ[RUN_VARIABLE] = value
    try:
        yield
    finally:
        del os.environ[RUN_VARIABLE]


def orphans(home: Home) -> list[int]:
    """Return the processes that runs on a home started, and whose run's process is dead."""
    return [pid for pid in psutil.pids() if _is_orphan(pid, home)]


def stop_orphans(home: Home) -> list[int]:
    """Stop what killed runs on a home left, and nothing else; return what had to be stopped."""
    return stop_all(partial(orphans, home), _PATIENCE_S)


def _is_orphan(pid: int, home: Home) -> bool:
    variables = environment(pid)
    if RUN_VARIABLE in variables:
        owner = _owner(variables[RUN_VARIABLE])
        if owner is None or Path(owner.name).resolve() != home.root.resolve():
            return False
        return not lives(owner)
    # A server that was started without a mark: by a run that the flow's own module started.
    temporary = "PREFECT__SERVER_EPHEMERAL" in variables
    return temporary and variables.get("PREFECT_HOME") == str(home.prefect) and _is_alone(pid)


def _is_alone(pid: int) -> bool:
    """Return whether whoever started a process is gone: another session's has adopted it."""
    try:
        parent = psutil.Process(pid).ppid()
        return parent in (0, 1) or os.getsid(parent) != os.getsid(pid)
    except (psutil.Error, OSError):
        return False


def _owner(text: str) -> ProcessMark | None:
    try:
        return ProcessMark.model_validate_json(text)
    except ValidationError:
        return None


def _watch(parent: int, value: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    stop_all(partial(_marked, value), _PATIENCE_S)


def _marked(value: str) -> list[int]:
    return [pid for pid in psutil.pids() if environment(pid).get(RUN_VARIABLE) == value]


if __name__ == "__main__":
    _watch(int(sys.argv[1]), sys.argv[2])
