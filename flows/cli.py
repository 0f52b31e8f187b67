"""The command line. Heavy imports wait until a command needs them, so that help comes at once."""

import io
import logging
import os
import sys
from typing import Any

from pydantic import ValidationError

from flows import (
    export_commands,
    plan_commands,
    rescore_commands,
    result_commands,
    run_commands,
    up_commands,
)
from flows.app import app
from flows.console import show_error
from real_tasks.errors import UserInputError, WorkFailedError
from storage.errors import StorageError
from storage.paths import Home
from storage.room import room_error

COMMANDS = (
    run_commands,
    rescore_commands,
    plan_commands,
    result_commands,
    export_commands,
    up_commands,
)
"""Importing them registers their commands, in the order of the help."""

USER_ERROR = 2


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; wrong input exits with status 2, anything else that fails with 1."""
    _escape_unshowable()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app(arguments)
    except (UserInputError, StorageError) as error:
        show_error(str(error))
        raise SystemExit(USER_ERROR) from None
    except OSError as error:
        if not error.filename:
            raise
        show_error(
            f"{os.fsdecode(error.filename)}: {error.strerror}; mend the file, the folder's rights "
            "or its space, or use another home (--home, REAL_HOME)"
        )
        raise SystemExit(USER_ERROR) from None
    except WorkFailedError as error:
        full = room_error(Home.current(), error)
        show_error(str(full or error))
        raise SystemExit(USER_ERROR if full else 1) from None
    except ValidationError as error:
        if not error.title.endswith("Settings"):  # Prefect's, which are read by its import
            raise
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        show_error(
            f"Prefect's settings are wrong: {where} {first['msg']}. Look at the variables "
            "PREFECT_... of the environment, and at its profile (`prefect config view`)"
        )
        raise SystemExit(USER_ERROR) from None
    except Exception as error:
        full = room_error(Home.current(), error)
        if full is None:
            raise
        show_error(str(full))
        raise SystemExit(USER_ERROR) from None
    except KeyboardInterrupt:
        show_error("stopped; what is done is kept, and the same command goes on from there")
        raise SystemExit(130) from None


def _escape_unshowable() -> None:
    """Give a terminal that is not UTF-8 escapes for what it cannot show, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
