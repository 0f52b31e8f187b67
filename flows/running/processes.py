"""What a run or a stack starts ends with it, however it ends; what is left is found by its mark.

All that an owner (a run in a terminal, a stack) starts has the owner's mark in its environment.
``python -m flows.running.processes MARK`` is the watcher beside each owner: it waits until the
owner is gone, then stops what has its mark. What a watcher that was killed too has left is found
later: its owner is dead.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

import psutil
from pydantic import ValidationError

from storage.paths import Home
from storage.stack_state import ProcessMark

OWNER_VARIABLE = "REAL_OWNER"
"""In the environment of all that an owner starts: its mark, named by its home."""
PART_VARIABLE = "REAL_PART"
"""In the environment of a stack's processes: the service that they are, or belong to."""

Wanted = Callable[[psutil.Process], bool]

_POLL_S = 0.2
_POLLS_A_LOOK = 10
_PATIENCE_S = 4.0


@contextmanager
def owning(home: Home) -> Iterator[ProcessMark]:
    """Let what is started while the context lasts end with this process, even if it is killed.

    A context within one of the same home adds nothing.
    """
    own = mark(str(home.root), os.getpid())
    assert own is not None, "this process lives"
    value = own.model_dump_json()
    if os.environ.get(OWNER_VARIABLE) == value:
        yield own
        return
    subprocess.Popen(
        [sys.executable, "-m", __name__, value],
        stdin=subprocess.DEVNULL,
        # Whoever reads the command's output would wait for the watcher's end as well.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.environ[OWNER_VARIABLE] = value
    try:
        yield own
    finally:
        del os.environ[OWNER_VARIABLE]


def mark(name: str, pid: int) -> ProcessMark | None:
    """Return the mark of a process, None where none of the number runs."""
    try:
        process = psutil.Process(pid)
        # Both move when the system's clock is set; their difference does not.
        birth = f"{process.create_time() - psutil.boot_time():.2f}"
        return ProcessMark(name=name, pid=pid, birth=birth) if _runs(process) else None
    except psutil.Error:
        return None


def lives(process: ProcessMark) -> bool:
    """Return whether the marked process, and not another one of its number, still runs."""
    return mark(process.name, process.pid) == process


def owner_of(process: psutil.Process) -> ProcessMark | None:
    """Return the mark of who started a process; None where there is none, or it has ended."""
    try:
        return ProcessMark.model_validate_json(_environment(process)[OWNER_VARIABLE])
    except (KeyError, ValidationError):
        return None


def is_owned(pid: int) -> bool:
    """Return whether a process lives and was started by a stack or a run."""
    try:
        return owner_of(psutil.Process(pid)) is not None
    except psutil.NoSuchProcess:
        return False


def owned_by(owner: ProcessMark, part: str | None = None) -> set[psutil.Process]:
    """Return what an owner started, and all below it; of one part of a stack, or of all."""

    def wanted(process: psutil.Process) -> bool:
        is_part = part is None or _environment(process).get(PART_VARIABLE) == part
        return is_part and owner_of(process) == owner

    return _with_children(wanted)


def orphans(home: Home) -> set[psutil.Process]:
    """Return what runs and stacks on a home started whose own process is dead."""
    return _with_children(partial(_is_orphan, home))


def stop_all(
    find: Callable[[], set[psutil.Process]],
    patience_s: float = _PATIENCE_S,
    in_haste: Callable[[], bool] = lambda: False,
) -> list[int]:
    """Stop all processes that ``find`` finds until there are none; return their numbers.

    Args:
        find: says which are left; there may be new ones.
        patience_s: seconds in which they may end by themselves before they are killed.
        in_haste: whether they are killed at once.
    """
    asked: set[psutil.Process] = set()
    deadline = time.monotonic() + patience_s
    while left := find() | {process for process in asked if _runs(process)}:
        late = in_haste() or time.monotonic() > deadline
        for process in left if late else left - asked:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL if late else signal.SIGTERM)
        asked |= left
        time.sleep(_POLL_S)
    return sorted(process.pid for process in asked)


def _with_children(wanted: Wanted) -> set[psutil.Process]:
    """Return the running processes that are wanted, and all below them, without this one."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if wanted(process):
                found |= {process, *process.children(recursive=True)}
    return {process for process in found if process.pid != os.getpid() and _runs(process)}


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _environment(process: psutil.Process) -> Mapping[str, str]:
    """Return what a process was started with; empty where it ended, or is another user's."""
    try:
        found: Mapping[str, str] = process.environ()
    except (psutil.Error, OSError):
        return {}
    return found


def _is_orphan(home: Home, process: psutil.Process) -> bool:
    owner = owner_of(process)
    if owner is not None:
        return Path(owner.name).resolve() == home.root.resolve() and not lives(owner)
    # A server that was started without a mark: by a run that the flow's own module started.
    variables = _environment(process)
    temporary = "PREFECT__SERVER_EPHEMERAL" in variables and OWNER_VARIABLE not in variables
    return temporary and variables.get("PREFECT_HOME") == str(home.prefect) and _is_alone(process)


def _is_alone(process: psutil.Process) -> bool:
    """Return whether whoever started a process is gone: another session's has adopted it."""
    try:
        parent = process.ppid()
        return parent in (0, 1) or os.getsid(parent) != os.getsid(process.pid)
    except (psutil.Error, OSError):
        return False


def _watch(owner: ProcessMark) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    known: set[psutil.Process] = set()
    for poll in count():
        if not lives(owner):
            break
        if poll % _POLLS_A_LOOK == 0:
            # Ray's agents hide their mark, and are found below another no more once that is killed.
            known = owned_by(owner)
        time.sleep(_POLL_S)
    stop_all(lambda: owned_by(owner) | set(filter(_runs, known)))


if __name__ == "__main__":
    _watch(ProcessMark.model_validate_json(sys.argv[1]))
