"""The interactive shell of `real sql`, and its counterpart for statements that come from a pipe."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from flows.console import show_error
from flows.sql_completion import SqlCompleter
from flows.sql_session import SqlSession
from real_tasks.errors import UserInputError
from storage.errors import StorageError
from storage.statements import Splitter

WELCOME = (
    "SQL over all runs, read-only. A statement ends with ; and .help says what else there is.\n"
)
_PROMPT, _CONTINUED = "real> ", "  ... "


def run_shell(session: SqlSession, history: Path) -> None:
    """Ask for statements and answer them until the person leaves; errors do not end it.

    Args:
        session: what answers.
        history: file of what was typed, kept from one shell to the next.
    """
    history.parent.mkdir(parents=True, exist_ok=True)
    prompt: PromptSession[str] = PromptSession(
        _PROMPT,
        history=_History(str(history)),
        completer=SqlCompleter(),
        auto_suggest=AutoSuggestFromHistory(),
        multiline=True,
        prompt_continuation=_CONTINUED,
        key_bindings=_bindings(session),
    )
    while True:
        try:
            session.run(prompt.prompt())
        except KeyboardInterrupt:  # what was being typed is given up
            continue
        except EOFError:
            return
        except (StorageError, UserInputError) as error:
            show_error(str(error))


def run_lines(session: SqlSession, lines: Iterable[str]) -> None:
    """Run statements that come line by line, as from a pipe; the first error ends it.

    Raises:
        StorageError: a query is wrong, or was stopped.
        UserInputError: a command is wrong.
    """
    splitter = Splitter()
    with suppress(EOFError):
        for line in lines:
            if not splitter.waiting and line.lstrip()[:1] in (".", "@"):
                session.run(line)
                continue
            for statement in splitter.feed(line):
                session.ask(statement)
        for statement in splitter.rest():
            session.ask(statement)


class _History(FileHistory):
    """What was typed, also where it is not UTF-8."""

    def store_string(self, string: str) -> None:
        super().store_string(string.encode(errors="replace").decode())


def _bindings(session: SqlSession) -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # the completion is in the text already
        elif session.is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    return bindings
