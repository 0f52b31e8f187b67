"""The environment that Prefect and MLflow read: quiet, offline, and all state under the home.

Imported before Prefect, which reads its settings when it is imported.
"""

import ipaddress
import os
import warnings
from contextlib import suppress
from pathlib import Path

from storage.errors import StorageError
from storage.paths import HOME_VARIABLE, Home, check_folder, sqlite_url
from storage.stack_state import StackState, live_stack

_API_URL = "PREFECT_API_URL"
_API_AUTH = "PREFECT_API_AUTH_STRING"

_joined: StackState | None = None


def use_home(home: Path | None) -> Home:
    """Make ``home`` the home of this process and its children, and set what depends on it.

    Where a stack runs on the home, and the environment names no other Prefect server, flows are
    recorded by the stack's.
    """
    _check(home.absolute() if home is not None else Home.current().root)
    if home is not None:
        os.environ[HOME_VARIABLE] = str(home.absolute())
    current = Home.current()
    for name, value in {
        "PREFECT_HOME": str(current.prefect),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # OpenMP's threads spin without bound while they wait for one another: on cores that others
        # use too, training took several times as long. A bounded spin costs nothing on free ones.
        "GOMP_SPINCOUNT": "20000",
    }.items():
        os.environ.setdefault(name, value)
    # A command that only reads makes no home; Prefect would have one.
    warnings.filterwarnings("ignore", message="Failed to create the Prefect home directory")
    url = sqlite_url(current.prefect / "prefect.db", "aiosqlite")
    if "?" in url and not any("_DATABASE_" in name for name in os.environ if name[:7] == "PREFECT"):
        os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = url
    stack = live_stack(current)
    if stack is not None and _API_URL not in os.environ:
        os.environ[_API_URL] = stack.api_url
        if stack.auth is not None:
            os.environ[_API_AUTH] = stack.auth
    global _joined
    _joined = stack if stack is not None and os.environ[_API_URL] == stack.api_url else None
    return current


def _check(root: Path) -> None:
    """Check that a folder is, or may come to be, where the home is to be.

    Raises:
        StorageError: something else is there, or nothing may be.
    """
    try:
        check_folder(root)
    except (OSError, ValueError) as error:  # ValueError: a NUL, or bytes that are no UTF-8
        why = error.strerror if isinstance(error, OSError) else error
        raise StorageError(
            f"{str(root)[:200]!r} cannot be the home ({why}); expected a folder, which is made "
            "where there is none: name another with --home or REAL_HOME"
        ) from error


def joined_stack() -> StackState | None:
    """Return the stack whose server records this process's flows, as it ran when `use_home` looked.

    None where another server does.
    """
    return _joined


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches servers on the address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
