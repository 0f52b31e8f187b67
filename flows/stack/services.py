"""The processes of a stack: what each is started with, and when it counts as healthy."""

import os
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flows.running.processes import PART_VARIABLE
from flows.stack.options import AUTH_VARIABLE, StackOptions
from flows.stack.servers import POOL, Servers
from storage.paths import HOME_VARIABLE, Home, sqlite_url
from storage.stack_state import stack_folder

WORKER = f"{POOL}-{socket.gethostname()}"
"""The worker's name in Prefect: one a machine, the same after a restart."""

_AUTH_APP = "mlflow.server.auth:authenticate_request_basic_auth"
# Settings that would lead a child to another server than the stack's own.
_FOREIGN = (
    "PREFECT_API_KEY",
    "PREFECT_API_URL",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_PROFILE",
    "MLFLOW_TRACKING_URI",
    AUTH_VARIABLE,
)


@dataclass(frozen=True)
class Service:
    """A process of the stack.

    Attributes:
        name: what it is called in logs and messages.
        command: what is run.
        environment: its whole environment.
        healthy: whether it does its work; None for one that does its work by ending.
        startup_s: seconds until it must be healthy, or have ended.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str]
    healthy: Callable[[], bool] | None = None
    startup_s: float = 600.0


@dataclass(frozen=True)
class Services:
    """All processes of one stack."""

    home: Home
    options: StackOptions

    @property
    def servers(self) -> Servers:
        """Both servers, by their addresses."""
        return Servers(self.options.prefect_url, self.options.mlflow_url, self.options.auth)

    def prefect(self) -> Service:
        """Return Prefect's server."""
        options = self.options
        origins = [f"http://{name}:{options.prefect_port}" for name in options.host_names()]
        settings = {
            "PREFECT_SERVER_API_HOST": options.host,
            # The option --port alone leaves the pages calling 4200.
            "PREFECT_SERVER_API_PORT": str(options.prefect_port),
            # Relative, so that the pages work under whatever name or tunnel they are reached by.
            "PREFECT_SERVER_UI_API_URL": "/api",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
            # By default pages of any origin may call the API, and with it run commands here.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        }
        if options.auth is not None:
            settings["PREFECT_SERVER_API_AUTH_STRING"] = options.auth
        port = str(options.prefect_port)
        command = ["-m", "prefect", "server", "start", "--host", options.host, "--port", port]
        return self._service("prefect", command, settings, self.servers.prefect_is_healthy)

    def mlflow_database(self) -> Service:
        """Return what makes MLflow's database, so that a kill cannot leave half of one."""
        return self._service("mlflow-database", ["-m", "flows.stack.setup", "database"], {})

    def mlflow(self) -> Service:
        """Return MLflow's server, lean, on the database that runs write to."""
        options, home = self.options, self.home
        hosts = options.host_names()
        command = ["-m", "mlflow", "server", "--workers", "1", "--host", options.host]
        command += ["--port", str(options.mlflow_port), "--backend-store-uri", home.mlflow_uri]
        command += ["--artifacts-destination", (home.mlflow / "artifacts").as_uri()]
        command += ["--allowed-hosts", ",".join(f"{h},{h}:{options.mlflow_port}" for h in hosts)]
        origins = ",".join(f"http://{h}:{options.mlflow_port}" for h in hosts)
        command += ["--cors-allowed-origins", origins, "--uvicorn-opts", "--no-access-log"]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        if options.auth is not None:
            command += ["--app-name", "basic-auth"]
            user, _, password = options.auth.partition(":")
            settings["MLFLOW_AUTH_CONFIG_PATH"] = str(self._mlflow_users(user))
            settings["MLFLOW_AUTH_ADMIN_PASSWORD"] = password
            settings["MLFLOW_FLASK_SERVER_SECRET_KEY"] = secrets.token_hex(32)
        return self._service("mlflow", command, settings, self.servers.mlflow_is_healthy)

    def setup(self) -> Service:
        """Return what registers the deployments, in a work pool that is made for them."""
        command = ["-m", "flows.stack.setup", "deployments"]
        return self._service("deployments", command, self._client_settings())

    def worker(self) -> Service:
        """Return the worker, which runs each flow run as a process of its own.

        It is healthy once Prefect has heard of it after this call: before, there was another one.
        """
        since = datetime.now(UTC)
        command = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        command += ["--name", WORKER, "--limit", str(self.options.workers)]
        command += ["--install-policy", "never", "--no-create-pool-if-not-found"]
        settings = {**self._client_settings(), "PREFECT_LOGGING_LEVEL": "INFO"}
        return self._service("worker", command, settings, partial(self._polls, since))

    def _polls(self, since: datetime) -> bool:
        workers = self.servers.workers()
        heard = (w["last_heartbeat_time"] for w in workers if w["name"] == WORKER)
        return any(time is not None and datetime.fromisoformat(time) > since for time in heard)

    def _client_settings(self) -> dict[str, str]:
        options = self.options
        settings = {
            "PREFECT_API_URL": f"{options.prefect_url}/api",
            "PREFECT_UI_URL": options.prefect_url,
        }
        if options.auth is not None:
            settings["PREFECT_API_AUTH_STRING"] = options.auth
        return settings

    def _service(
        self,
        name: str,
        arguments: list[str],
        settings: Mapping[str, str],
        healthy: Callable[[], bool] | None = None,
    ) -> Service:
        own = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
        base = {
            HOME_VARIABLE: str(self.home.root),
            PART_VARIABLE: name,
            "PYTHONUNBUFFERED": "1",
            "PREFECT_HOME": str(self.home.prefect),
        }
        command = [sys.executable, *arguments]
        return Service(name, command, {**own, **base, **settings}, healthy)

    def _mlflow_users(self, user: str) -> Path:
        """Write who may use MLflow; its users are made anew, so that the password may change."""
        folder = stack_folder(self.home)
        for left in folder.glob("mlflow-users.db*"):
            left.unlink()
        settings = {
            "default_permission": "READ",
            "database_uri": sqlite_url(folder / "mlflow-users.db"),
            "admin_username": user,
            "authorization_function": _AUTH_APP,
        }
        # MLflow's parser takes a percent sign for the start of a reference.
        lines = [f"{name} = {value}".replace("%", "%%") for name, value in settings.items()]
        path = folder / "mlflow-auth.ini"
        path.write_text("\n".join(["[mlflow]", *lines]) + "\n")
        return path
