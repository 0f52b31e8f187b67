"""Turns between machines: of several that want to do one piece of work, one does it.

A lease is an object ``<name>/<number>`` that its holder writes anew all the time. Who finds that it
has not changed for a while, by their own clock, creates the next number: of several one succeeds.
No clock is compared with another's. A turn saves work and guards nothing: a holder that was slept
through (a suspended machine) may find another at the same work, which must be harmless.
"""

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TypeVar

from storage.repeating import repeating
from storage.shared.objects import Objects, StoreUnavailableError

Found = TypeVar("Found")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseTiming:
    """Seconds.

    Attributes:
        beat: between two signs of life of a holder.
        expiry: without a sign of life after which a holder counts as dead; several beats.
        poll: between two looks of those who wait.
    """

    beat: float = 15.0
    expiry: float = 60.0
    poll: float = 2.0


@contextmanager
def turn(
    objects: Objects,
    name: str,
    owner: str,
    timing: LeaseTiming,
    done: Callable[[], Found | None],
) -> Iterator[Found | None]:
    """Wait for the result of somebody else's work, or for the turn to do it oneself.

    Args:
        objects: where leases are.
        name: folder of this lease's objects.
        owner: who asks. Of one owner only one may ask for one name at a time: a lease of its own
            that it finds was left by a process that died, and is taken over at once.
        timing: how long what takes.
        done: looks for the result; it is asked again once the turn has come.

    Yields:
        What ``done`` found, without a turn; or None, and it is our turn while the context lasts.
    """
    lease = _Lease(objects, name, owner, timing)
    found = lease.wait(done)
    if found is not None:
        yield found
        return
    with lease.kept_alive():
        yield done()


class _Lease:
    def __init__(self, objects: Objects, name: str, owner: str, timing: LeaseTiming) -> None:
        self._objects, self._name, self._timing = objects, name, timing
        self._owner, self._token = owner, secrets.token_hex(8)
        self._number = 0

    def wait(self, done: Callable[[], Found | None]) -> Found | None:
        """Return what ``done`` finds, or None once the lease is ours."""
        seen, since = None, time.monotonic()
        while (found := done()) is None:
            held = self._held()
            if held != seen:
                seen, since = held, time.monotonic()
            if held is not None and not self._dead(held, time.monotonic() - since):
                time.sleep(self._timing.poll)
                continue
            self._number = 0 if held is None else held[0] + 1
            if self._objects.create(self._object(self._number), self._sign(0)):
                return None
        return found

    def _dead(self, held: tuple[int, bytes], silent: float) -> bool:
        owner = _owner_of(held[1])
        if owner != self._owner and silent < self._timing.expiry:
            return False
        log.warning("%s gives no sign of life; its work is done again: %s", owner, self._name)
        return True

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Give signs of life while the context lasts, and the lease back at its end."""
        try:
            with repeating(partial(self._beat, count(1)), self._timing.beat):
                yield
        finally:
            self._give_back()

    def _held(self) -> tuple[int, bytes] | None:
        """Return the lease in force: the highest number, and its content."""
        numbers = self._numbers()
        if not numbers:
            return None
        content = self._objects.read(self._object(numbers[-1]))
        return None if content is None else (numbers[-1], content)

    def _beat(self, counts: Iterator[int]) -> None:
        try:
            self._objects.write(self._object(self._number), self._sign(next(counts)))
        except StoreUnavailableError as error:
            log.warning("no sign of life could be given, others may begin the same: %s", error)

    def _give_back(self) -> None:
        try:
            for number in self._numbers():
                if number <= self._number:
                    self._objects.remove(self._object(number))
        except StoreUnavailableError as error:
            # The work's own error, if there is one, says more; the lease expires.
            log.warning("a lease could not be given back: %s", error)

    def _numbers(self) -> list[int]:
        names = self._objects.names(self._name)
        return sorted(int(name.rpartition("/")[2]) for name in names)

    def _object(self, number: int) -> str:
        return f"{self._name}/{number:06d}"

    def _sign(self, count: int) -> bytes:
        sign = {"owner": self._owner, "token": self._token, "beat": count}
        return json.dumps(sign).encode()


def _owner_of(content: bytes) -> str:
    try:
        return str(json.loads(content)["owner"])
    except (ValueError, KeyError, TypeError):
        return "the holder of an unreadable lease"
