"""Commands that operate one machine: start and stop servers and worker, look how all is."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flows.stack.options import MLFLOW_PORT, PREFECT_PORT
from flows.terminal.app import HomeOption, app
from flows.terminal.environment import use_home
from real_tasks.vocabulary.errors import UserInputError


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Prefect's port; 0 for any.")] = PREFECT_PORT,
    mlflow_port: Annotated[int, typer.Option(help="MLflow's port; 0 for any.")] = MLFLOW_PORT,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that others reach only with a password.")
    ] = "127.0.0.1",
    auth_file: Annotated[
        Path | None, typer.Option(help="File with user:password of both servers; or set REAL_AUTH.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Another name by which browsers reach this machine; may be repeated."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Flow runs at once.")] = 1,
    home: HomeOption = None,
) -> None:
    """Start Prefect, MLflow and a worker, and keep them running until Ctrl-C.

    Flows are started, scheduled and watched in Prefect's pages; `real run` and `real transfer` on
    the same home show up there too. A run of a deployment that is interrupted goes on from the
    cache at the next start.

    Examples:
    - `real up`: on this machine only, without a password
    - `real up --port 0 --mlflow-port 0`: on any free ports
    - `real up --host 0.0.0.0 --auth-file password.txt`: for other machines of a trusted network
    """
    current = use_home(home)
    from flows.stack.options import stack_options
    from flows.stack.supervisor import run_stack
    from flows.stack.view import Terminal, show_ready
    from storage.artifacts.store import prepare_home
    from storage.stack_state import check_no_stack

    if not current.owns_mlflow:
        raise UserInputError(
            "REAL_MLFLOW_URI names another MLflow, but `real up` starts one on the home's own "
            "database: unset it, or start prefect server and worker by hand (deployments/README.md)"
        )
    # Before the ports, which the running stack has taken.
    check_no_stack(current)
    options = stack_options(host, (port, mlflow_port), workers, auth_file, name or [])
    prepare_home(current)
    run_stack(current, options, Terminal(), partial(show_ready, current, host))


@app.command()
def status(home: HomeOption = None) -> None:
    """Show what runs, what is scheduled next, how large the store is, what the last runs gave.

    Example:
    - `real status`: also without a running stack
    """
    current = use_home(home)
    from flows.stack.status import last_runs, stack_status
    from flows.stack.view import show_last_runs, show_status, show_store
    from storage.upkeep.usage import usage

    show_status(current, stack_status(current))
    show_store(usage(current))
    show_last_runs(last_runs(current))


@app.command()
def down(home: HomeOption = None) -> None:
    """Stop the running stack of a home, from any terminal; clean up after a killed one.

    Example:
    - `real down`: as Ctrl-C in the terminal of `real up`
    """
    current = use_home(home)
    from flows.stack.stopping import stop_stack
    from flows.stack.view import Terminal

    stop_stack(current, Terminal())
