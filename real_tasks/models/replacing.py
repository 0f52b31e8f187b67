"""What one object of a class does otherwise for a while, the others not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(thing: object, name: str, value: Any) -> Iterator[None]:
    """Give an object an attribute of its own within the context, then what it had, or nothing."""
    own = vars(thing)
    had, before = name in own, own.get(name)
    own[name] = value
    try:
        yield
    finally:
        if had:
            own[name] = before
        else:
            del own[name]
