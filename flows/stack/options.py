"""What a person asks of a stack: addresses, ports, authentication; what is refused, and why."""

import importlib.util
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.terminal.environment import is_loopback
from real_tasks.vocabulary.errors import UserInputError

AUTH_VARIABLE = "REAL_AUTH"
PREFECT_PORT = 4200
MLFLOW_PORT = 5000
# MLflow takes no shorter one.
_SHORTEST_PASSWORD = 12
_HIGHEST_PORT = 65_535


@dataclass(frozen=True)
class StackOptions:
    """Where the servers listen, and how much the worker runs at once.

    Attributes:
        host: address that both servers listen on.
        prefect_port: of Prefect's pages and API.
        mlflow_port: of MLflow's pages and API.
        workers: flow runs at once.
        auth: ``user:password`` that both servers ask for, None for nothing.
        names: further names by which browsers reach this machine.
    """

    host: str
    prefect_port: int
    mlflow_port: int
    workers: int = 1
    auth: str | None = None
    names: tuple[str, ...] = ()

    @property
    def prefect_url(self) -> str:
        """Where processes of this machine reach Prefect."""
        return f"http://{self._reachable}:{self.prefect_port}"

    @property
    def mlflow_url(self) -> str:
        """Where processes of this machine reach MLflow."""
        return f"http://{self._reachable}:{self.mlflow_port}"

    def host_names(self) -> list[str]:
        """Return the names, without ports, by which browsers may ask the servers."""
        own = {"localhost", "127.0.0.1", "[::1]", self._reachable, *map(in_url, self.names)}
        if not is_loopback(self.host):
            own |= {socket.gethostname(), socket.getfqdn()}
            found = (one for addresses in psutil.net_if_addrs().values() for one in addresses)
            own |= {one.address for one in found if one.family == socket.AF_INET}
        return sorted(own)

    @property
    def _reachable(self) -> str:
        wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return in_url(wildcards.get(self.host, self.host))


def stack_options(
    host: str, ports: tuple[int, int], workers: int, auth_file: Path | None, names: Sequence[str]
) -> StackOptions:
    """Check what was asked for, and choose free ports for those that were given as 0.

    ``ports`` are Prefect's and MLflow's; see `StackOptions`, and `read_auth` for the password.

    Raises:
        UserInputError: others could reach servers that ask for no password, a port is taken, the
            address is not this machine's, or the password is too short.
    """
    auth = read_auth(auth_file)
    if auth is None and not is_loopback(host):
        raise UserInputError(
            f"--host {host} lets other machines reach both servers, and whoever reaches Prefect "
            "can run commands here. It is therefore allowed only with a password: write a line "
            f"user:password to a file and give --auth-file FILE, or set {AUTH_VARIABLE}; or leave "
            "out --host, and reach 127.0.0.1 through a tunnel (ssh -L)"
        )
    if 0 != ports[0] == ports[1]:
        raise UserInputError(
            f"Prefect and MLflow cannot both listen on {ports[0]}; give another --mlflow-port"
        )
    with ExitStack() as listeners:
        options = zip(ports, ("--port", "--mlflow-port"), strict=True)
        bound = [listeners.enter_context(listener(host, *one)) for one in options]
        prefect, mlflow = (int(listener.getsockname()[1]) for listener in bound)
    return StackOptions(host, prefect, mlflow, workers, auth, tuple(names))


def read_auth(path: Path | None) -> str | None:
    """Return ``user:password`` from a file, else from the variable REAL_AUTH, else None.

    Raises:
        UserInputError: the file cannot be read, the text is of another form, or MLflow's extra is
            not installed.
    """
    try:
        text = path.read_text() if path is not None else os.environ.get(AUTH_VARIABLE)
    except OSError as error:
        raise UserInputError(
            f"--auth-file {path} cannot be read ({error.strerror}); expected a file with one line "
            "user:password"
        ) from error
    if text is None:
        return None
    user, _, password = (auth := text.strip()).partition(":")
    if not user or len(password) < _SHORTEST_PASSWORD or "\n" in auth:
        source = AUTH_VARIABLE if path is None else str(path)
        raise UserInputError(
            f"{source} must hold one line user:password with a password of at least "
            f"{_SHORTEST_PASSWORD} characters (MLflow takes no shorter one); found a user of "
            f"{len(user)} and a password of {len(password)} characters"
        )
    if importlib.util.find_spec("flask_wtf") is None:
        raise UserInputError(
            "MLflow asks for passwords only with its extra; pip install real-steering[auth]"
        )
    return auth


def listener(host: str, port: int, option: str) -> socket.socket:
    """Listen on the port as servers do, for 0 on any that is free.

    Raises:
        UserInputError: the port is taken or none, or the address is not this machine's.
    """
    if not 0 <= port <= _HIGHEST_PORT:
        raise UserInputError(f"{option} {port}: expected 0 (any that is free) to {_HIGHEST_PORT}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise UserInputError(
            f"--host {host} is no address ({error.strerror}); expected one of this machine's, as "
            "127.0.0.1"
        ) from error
    family, _, _, _, address = found[0]
    try:
        return socket.create_server(address, family=family)
    except OSError as error:
        raise UserInputError(
            f"cannot listen on port {port} of {host} ({error.strerror}); another program may "
            f"use it: choose another with {option} N, or {option} 0 for any that is free"
        ) from error


def in_url(host: str) -> str:
    """Return an address as URLs have it."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
