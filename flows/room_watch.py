"""Watching the room on a home's disk while a run lasts."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from flows.console import err, show_error
from flows.stack_processes import descendants, send
from storage.paths import Home
from storage.room import KEPT_BYTES, NoRoomError, check_room

_POLL_S = 0.3
_STATUS = 2


@contextmanager
def room_watched(home: Home) -> Iterator[None]:
    """End this process, with one error, once the disk of its home is about to be full.

    Prefect would try for minutes to tell a database that cannot grow how its run ended. Whatever is
    published is whole at every moment, so that a process may end at any.
    """
    done = Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            try:
                check_room(home, KEPT_BYTES)
            except NoRoomError as error:
                # Its temporary server would tell of the same, in its own words.
                for pid in descendants(os.getpid()):
                    send(pid, signal.SIGKILL)
                err.show_cursor()
                show_error(str(error))
                os._exit(_STATUS)
            except OSError:  # the home is gone, which the run itself will say
                return

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
