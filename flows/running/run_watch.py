"""Ending a run once what it cannot do without is gone: room on its disk, the stack it joined."""

import os
from contextlib import AbstractContextManager, suppress

import psutil

from flows.terminal.console import err, show_error
from flows.terminal.environment import joined_stack
from real_tasks.vocabulary.errors import WorkFailedError
from storage.errors import StorageError
from storage.paths import Home
from storage.repeating import repeating
from storage.room import KEPT_BYTES, check_room
from storage.stack_state import StackState, is_held

_POLL_S = 0.3
_STATUS = 2


def needs_watched(home: Home) -> AbstractContextManager[None]:
    """End this process, with one error, once its home's disk is almost full or its stack is gone.

    Prefect would try for minutes to tell of the run's end, to a database that cannot grow or to a
    server that is no more. Whatever is published is whole at every moment, so that a process may
    end at any.
    """
    stack = joined_stack()

    def look() -> None:
        try:
            with suppress(OSError):  # the home is gone, which the run itself will say
                check_needs(home, stack)
        except (StorageError, WorkFailedError) as error:
            # Its temporary server would tell of the same, in its own words.
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            err.show_cursor()
            show_error(str(error))
            os._exit(_STATUS)

    return repeating(look, _POLL_S)


def check_needs(home: Home, stack: StackState | None) -> None:
    """Require room on the home's disk, and that the stack which a run joined still runs.

    Raises:
        NoRoomError: there is less room than a run's databases need to go on.
        WorkFailedError: the stack has ended.
    """
    check_room(home, KEPT_BYTES)
    if stack is not None and not is_held(home):
        raise WorkFailedError(
            f"the stack that this run had joined ({stack.prefect_url}) has ended. What is done is "
            "kept, and the same command goes on from there, with a stack or without"
        )
