"""Errors of the store that a user can mend."""


class StorageError(ValueError):
    """The store cannot do what was asked; the message says what was found and how to mend it."""


class DamagedArtifactError(StorageError):
    """An artifact's files do not match its manifest."""


class QueryError(StorageError):
    """A query is wrong, not allowed, or too expensive."""
