"""What a person sees of the stack in the terminal."""

import time
from collections.abc import Iterable, Sequence
from typing import Literal

import humanize
from rich import box
from rich.table import Table
from rich.text import Text

from flows.stack.servers import POOL, Servers
from flows.stack.status import StackStatus
from flows.terminal.console import SECONDS_BETWEEN, err, out, show_paths
from flows.terminal.environment import is_loopback
from storage.paths import Home
from storage.stack_state import StackState
from storage.tracking.tracker import EXPERIMENT
from storage.upkeep.usage import Usage

_COLOURS = {"prefect": "blue", "mlflow": "cyan", "worker": "green"}
_LARGEST = 12
_SHORT = 20
"""Characters of a cell that are not folded while longer ones can be."""


class Terminal:
    """Shows what a stack says, its logs with their names, and what it waits for."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._status = err.status("")
        self._told = ("", 0.0)

    def say(self, line: str) -> None:
        """Show what happens."""
        out.print(Text(line), soft_wrap=True)

    def log(self, name: str, line: str) -> None:
        """Show a line of a log with its name."""
        text = Text(f"{name:<8} ", style=_COLOURS.get(name, "dim"))
        out.print(text.append(line, style="default"), soft_wrap=True)

    def wait(self, what: str) -> None:
        """Show what is waited for until the next call; nothing for an empty text.

        Without a terminal it is a line, when it is new and again after a while.
        """
        now = time.monotonic()
        if err.is_terminal:
            self._status.update(what)
            (self._status.start if what else self._status.stop)()
        elif what and (what != self._told[0] or now - self._told[1] >= SECONDS_BETWEEN):
            self._told = what, now
            err.print(Text(what), soft_wrap=True)


def show_ready(home: Home, host: str, state: StackState, deployments: Sequence[str]) -> None:
    """Print where the pages are, and what to do next."""
    out.print()
    show_paths(
        {
            "Prefect": f"{state.prefect_url}  start, schedule and watch flows",
            "MLflow": f"{Servers.of(state).runs_page(EXPERIMENT)}  metrics, pictures, models",
            "deployments": ", ".join(sorted(deployments)) or "none",
            "store": str(home.root),
            "logs": str(home.logs),
        }
    )
    if state.auth is not None:
        out.print(
            "Both servers ask for the given password; Prefect takes user:password in one field."
        )
    if not is_loopback(host):
        out.print(f"They listen on {host}, unencrypted: for a network that you trust.")
    out.print(
        "Next: open Prefect, Deployments, experiment, Run. In another terminal of this folder, "
        "[bold]real run[/bold] joins, [bold]real status[/bold] looks, [bold]real down[/bold] stops."
        "\nCtrl-C stops all of it. Below are the logs.\n"
    )


def show_status(home: Home, status: StackStatus) -> None:
    """Print how servers and worker are, what runs and what is due."""
    _show_services(home, status)
    for problem in status.problems:
        out.print(f"[yellow]{problem}[/yellow]")
    if status.runs:
        _show_table("Flow runs, running and due", ("run", "deployment", "state"), status.runs)
    elif status.state is not None and not status.problems:
        out.print("\nNothing runs, and nothing is scheduled.")


def show_store(usage: Sequence[Usage]) -> None:
    """Print what the store takes, the largest parts one by one."""
    rest = usage[_LARGEST:]
    shown = list(usage[:_LARGEST])
    if rest:
        items, size = sum(i.items for i in rest), sum(i.size_bytes for i in rest)
        shown.append(Usage(f"{len(rest)} smaller ones", items, size))
    lines = [(i.part, str(i.items), humanize.naturalsize(i.size_bytes)) for i in shown]
    total = humanize.naturalsize(sum(item.size_bytes for item in usage))
    _show_table(f"Store, {total}", ("part", "items", "size"), lines)


def show_last_runs(runs: Sequence[dict[str, str]]) -> None:
    """Print the last runs and what they gave."""
    if not runs:
        out.print("\nNo runs yet.")
        return
    headers = ("run", "flow", "model", "behaviour", "status", "best on test questions")
    _show_table("Last runs", headers, [tuple(run.values()) for run in runs])


def _show_services(home: Home, status: StackStatus) -> None:
    if status.state is None:
        out.print(f"No stack runs on {home.root}; [bold]real up[/bold] starts one.")
        return
    state = status.state
    begun = "" if state.ready else "; it is still starting"
    out.print(
        f"Stack of {home.root}, process {state.supervisor.pid}, since "
        f"{state.started_at:%Y-%m-%d %H:%M:%S} UTC{begun}",
        soft_wrap=True,
        highlight=False,
    )
    urls = {"prefect": state.prefect_url, "mlflow": state.mlflow_url}
    urls["worker"] = f"work pool {POOL}"
    show_paths({name: f"{how}  {urls[name]}" for name, how in status.services.items()})


def _show_table(title: str, headers: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    rows = list(lines)
    for place, header in enumerate(headers):
        justify: Literal["left", "right"] = "right" if header in ("items", "size") else "left"
        short = all(len(row[place]) <= _SHORT for row in rows)
        table.add_column(header, justify=justify, no_wrap=short, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    out.print(table)
