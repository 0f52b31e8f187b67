"""Errors that a user can mend: each says what was found, what was expected and how to mend it."""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

_LONGEST_WORD = 300


def without_long_words(text: str) -> str:
    """Return a message in which words that nobody reads to their end are cut in the middle."""
    return re.sub(
        rf"\S{{{_LONGEST_WORD + 1},}}", lambda one: f"{one[0][:80]}...{one[0][-20:]}", text
    )


class UserInputError(ValueError):
    """Wrong input, found before expensive work; the command line exits with status 2 on it."""

    def __init__(self, message: str) -> None:
        """Keep the message; what it repeats of the input may be of any length."""
        super().__init__(without_long_words(message))


class OverflowedError(UserInputError):
    """Steering so strong that the model's numbers leave the range of their type."""


class WorkFailedError(RuntimeError):
    """Work that failed for a reason outside of the input; the message says what to do."""


class SeveralFaultsError(UserInputError):
    """Several faults of one input, told together."""

    def __init__(self, faults: Collection[str]) -> None:
        """Say how many there are, and then each."""
        self.faults = tuple(faults)
        told = "".join(f"\n- {fault}" for fault in self.faults)
        super().__init__(f"{len(self.faults)} things are wrong:{told}")


class Faults:
    """What several looks at one input find wrong, to be told in one error.

    Attributes:
        doubtful: dotted paths of fields that are wrong themselves; what only follows from them is
            no fault of its own.
    """

    def __init__(self, doubtful: Collection[str] = ()) -> None:
        self.doubtful = set(doubtful)
        self._errors: list[UserInputError] = []

    @contextmanager
    def told(self, *fields: str, spoils: str = "") -> Iterator[None]:
        """Keep an error of the block for the end; what comes behind the block goes on.

        Args:
            fields: what the block looks at; nothing is kept where one of them is doubtful.
            spoils: a field that is doubtful after an error.
        """
        try:
            yield
        except UserInputError as error:
            if self.sound(*fields):
                self._errors.append(error)
            self.doubtful |= {spoils} - {""}

    def sound(self, *fields: str) -> bool:
        """Say whether none of the fields is doubtful."""
        return not any(_overlap(field, other) for field in fields for other in self.doubtful)

    def tell(self) -> None:
        """Raise what was found, if anything was.

        Raises:
            UserInputError: the error itself where there is one, `SeveralFaultsError` for more.
        """
        said = dict.fromkeys(
            fault
            for error in self._errors
            for fault in (error.faults if isinstance(error, SeveralFaultsError) else [str(error)])
        )
        if len(said) == 1:
            raise self._errors[0]
        if said:
            raise SeveralFaultsError(said)


def first_of(names: Sequence[str], most: int, between: str = ", ") -> str:
    """Return names in a message: the first of them, and how many more there are."""
    rest = len(names) - most
    return between.join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _overlap(field: str, other: str) -> bool:
    return f"{field}.".startswith(f"{other}.") or f"{other}.".startswith(f"{field}.")
