"""The Prefect server of a run without a stack, started beside what else the run imports.

Prefect's own way imports all of the server into the run's process, too, which takes seconds.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import prefect
from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS

from flows.running.processes import owning
from real_tasks.vocabulary.errors import WorkFailedError
from storage.paths import Home
from storage.place import check_database

_POLL_S = 0.1
_PATIENCE_S = 5.0

_own: "OwnServer | None" = None


class OwnServer:
    """A server of this process alone."""

    def __init__(self, home: Home) -> None:
        """Start it on a free port; it outlives the flow, or that could not tell of its own end."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        self._database, self._log = home.prefect / "prefect.db", home.logs / "prefect-of-runs.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        parts = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
        # It logs a traceback for a lock of SQLite that it then waits out: nobody's to act on.
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                _command(port),
                env={**os.environ, **parts, "PREFECT__SERVER_FINAL": "1"},
                stdout=log,
                stderr=log,
                # Terminals, `timeout` and schedulers send signals to all processes of a session.
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            WorkFailedError: it ended, or does not answer in time.
        """
        patience = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        deadline = time.monotonic() + patience
        while not self._answers():
            code = self.process.poll()
            if code is not None or time.monotonic() > deadline:
                why = f"no answer in {patience} s" if code is None else f"it ended with {code}"
                raise WorkFailedError(
                    f"Prefect's server did not start ({why}): {self._log} says more; if the "
                    f"machine is busy, run again; if {self._database} is damaged, rename it, and a "
                    "new one is made"
                )
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        try:
            # Plain HTTP has no certificates, which take 20 ms to read at every poll.
            found = httpx.get(f"{self.url}/health", trust_env=False, verify=False)
            return found.status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@contextmanager
def serving(home: Home) -> Iterator[OwnServer | None]:
    """Start a server for this process's flows, if the settings name none; it ends with the context.

    It answers after `OwnServer.wait`. Contexts may be nested: the first one's server is all's.
    """
    global _own
    if _own is not None:
        yield _own
        return
    with owning(home):
        if PREFECT_API_URL.value():
            yield None
            return
        check_database(home.prefect / "prefect.db")
        _own = OwnServer(home)
        try:
            _name(_own.url)
            yield _own
        finally:
            own, _own = _own, None
            own.stop()
            _name(None)


def _name(url: str | None) -> None:
    """Have Prefect take a server for its own, in all threads."""
    if url is None:
        del os.environ["PREFECT_API_URL"]
    else:
        os.environ["PREFECT_API_URL"] = url
    refresh_global_settings_context()


def _command(port: int) -> list[str]:
    folder = str(Path(prefect.__file__).parents[1])
    app = ["--app-dir", folder, "--factory", "prefect.server.api.server:create_app"]
    listening = ["--host", "127.0.0.1", "--port", str(port)]
    return [sys.executable, "-m", "uvicorn", *app, *listening, "--log-level", "error"]
