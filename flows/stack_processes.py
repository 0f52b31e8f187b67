"""Processes of a stack: telling them from innocent ones, finding and stopping them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil

from storage.stack_state import ProcessMark

STACK_VARIABLE = "REAL_STACK"
"""In the environment of all processes of a stack: its id, a dot, the name of its part."""

_PROC = Path("/proc")
_POLL_S = 0.05


def mark(name: str, pid: int) -> ProcessMark | None:
    """Return the mark of a process, None where there is no such process."""
    birth = _birth(pid)
    return None if birth is None else ProcessMark(name=name, pid=pid, birth=birth)


def lives(process: ProcessMark) -> bool:
    """Return whether the marked process, and not another one of its number, still runs."""
    return _birth(process.pid) == process.birth


def part_of(stack_id: str, name: str) -> str:
    """Return the value of the variable for a part of a stack, as ``3f9a.worker``."""
    return f"{stack_id}.{name}"


def processes_of(stack: str) -> list[int]:
    """Return the processes of this user that belong to a stack, whoever their parents are.

    Args:
        stack: a stack's id, or one part of it (``part_of``).
    """
    return [
        pid
        for pid in psutil.pids()
        if f"{environment(pid).get(STACK_VARIABLE)}.".startswith(f"{stack}.")
    ]


def belongs_to_a_stack(pid: int) -> bool:
    """Return whether a process lives and was started by a stack."""
    return STACK_VARIABLE in environment(pid)


def stop_left(stack: str, marks: Iterable[ProcessMark], patience_s: float = 8.0) -> list[int]:
    """Stop what a dead stack left, and nothing else; return the numbers of what had to be stopped.

    Args:
        stack: the dead stack, or a part of one.
        marks: the processes that its state names.
        patience_s: seconds in which they may end by themselves before they are killed.
    """
    known = tuple(marks)

    def left() -> list[int]:
        marked = {process.pid for process in known if lives(process)}
        return sorted((marked | set(processes_of(stack))) - {os.getpid()})

    return stop_all(left, patience_s)


def stop_all(find: Callable[[], list[int]], patience_s: float) -> list[int]:
    """Stop all processes that ``find`` finds until there are none; return those of the first time.

    Args:
        find: says which are left; their children may be new ones.
        patience_s: seconds in which they may end by themselves before they are killed.
    """
    found = find()
    for pid in found:
        send(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while left := find():
        if time.monotonic() > deadline:
            for pid in left:
                send(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    return found


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def descendants(pid: int) -> list[int]:
    """Return all processes below a process."""
    return [process.pid for process in psutil.Process(pid).children(recursive=True)]


def environment(pid: int) -> Mapping[str, str]:
    """Return what a process was started with; empty where it ended, or is another user's."""
    try:
        found: Mapping[str, str] = psutil.Process(pid).environ()
    except psutil.Error:
        return {}
    return found


def _stat(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/<pid>/stat`` from the state on, the third of proc(5)."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _birth(pid: int) -> str | None:
    if not _PROC.is_dir():
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return found or None
    stat = _stat(pid)
    if stat is None or stat[0] == "Z":  # a zombie runs no more
        return None
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{stat[19]}"
