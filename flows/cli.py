"""The command line. Heavy imports wait until a command needs them, so that help comes at once."""

import io
import logging
import os
import sys
from typing import Any

from pydantic import ValidationError

from flows.commands import chat, export, methods, plan, rescore, results, serve, trying, up
from flows.commands import run as run_commands
from flows.running.signals import StoppedError, end_on_sigterm, say_stopped
from flows.terminal.app import app
from flows.terminal.console import show_error
from real_tasks.vocabulary.errors import UserInputError, WorkFailedError
from storage.errors import StorageError
from storage.paths import Home
from storage.room import room_error

COMMANDS = (trying, chat, serve, run_commands, rescore, plan, methods, results, export, up)
"""Importing them registers their commands, in the order of the help."""

USER_ERROR = 2


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; wrong input exits with status 2, anything else that fails with 1."""
    _escape_unshowable()
    end_on_sigterm()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app(arguments)
    except Exception as error:
        found = in_words(error)
        if found is None:
            raise
        words, status = found
        show_error(words)
        raise SystemExit(status) from None
    except StoppedError:
        say_stopped()
        raise


def in_words(error: Exception) -> tuple[str, int] | None:
    """Return what to say of an error, and the status to end with; None where it is a fault here."""
    if isinstance(error, UserInputError | StorageError):
        return str(error), USER_ERROR
    if full := room_error(Home.current(), error):
        return str(full), USER_ERROR
    if isinstance(error, WorkFailedError):
        return str(error), 1
    if isinstance(error, UnicodeEncodeError):
        return (
            f"{error.object[:200]!r} has characters that the locale of this terminal "
            f"({error.encoding}) has no bytes for; set PYTHONUTF8=1, or a locale with UTF-8 "
            "(LC_ALL=C.UTF-8)"
        ), USER_ERROR
    if isinstance(error, OSError) and error.filename:
        return (
            f"{os.fsdecode(error.filename)}: {error.strerror}; mend the file, the folder's rights "
            "or its space, or use another home (--home, REAL_HOME)"
        ), USER_ERROR
    # Prefect's, which are read by its import.
    if isinstance(error, ValidationError) and error.title.endswith("Settings"):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return (
            f"Prefect's settings are wrong: {where} {first['msg']}. Look at the variables "
            "PREFECT_... of the environment, and at its profile (`prefect config view`)"
        ), USER_ERROR
    if isinstance(error, ValidationError) and error.title.endswith("Config"):
        from real_tasks.experiment.parameters import explained

        return explained(error), USER_ERROR
    return None


def _escape_unshowable() -> None:
    """Give a terminal that is not UTF-8 escapes for what it cannot show, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
