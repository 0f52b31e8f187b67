"""Errors that a user can mend: each says what was found, what was expected and how to mend it."""


class UserInputError(ValueError):
    """Wrong input, found before expensive work; the command line exits with status 2 on it."""


class OverflowedError(UserInputError):
    """Steering so strong that the model's numbers leave the range of their type."""


class WorkFailedError(RuntimeError):
    """Work that failed for a reason outside of the input; the message says what to do."""
