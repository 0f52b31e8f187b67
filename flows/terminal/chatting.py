"""The loop of `real chat`: lines in, answers out word by word, and commands."""

import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flows.terminal.console import err
from real_tasks.vocabulary.errors import UserInputError

if TYPE_CHECKING:
    from real_tasks.serving.talk import Talk

HELP = """\
/strength X   steer X times as strongly as tuned: 0 not at all, below 0 the other way
/off, /on     without steering from now on, and with it again
/compare      the next answer twice: unsteered, then steered (which is kept)
/spec FOLDER  steer by another spec; several folders: by all of them
/show         what steers, and how strongly
/reset        forget what was said
/help         this
/quit         leave (or Ctrl-D); Ctrl-C stops an answer"""


def chatted(talk: "Talk", interactive: bool) -> None:
    """Talk until the input ends: a question a line, or a command.

    Args:
        talk: the conversation.
        interactive: whether somebody types; otherwise lines come from a pipe, and only answers
            go to stdout.
    """
    session = _Session(talk, interactive)
    for line in _lines(interactive):
        if not line.strip():
            continue
        try:
            if line.startswith("/"):
                session.command(line)
            else:
                session.answer(line)
        except UserInputError as error:
            if not interactive:
                raise
            _say(str(error))
        if session.ended:
            break


def _lines(interactive: bool) -> Iterator[str]:
    if not interactive:
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    with suppress(ImportError):
        import readline  # noqa: F401  # gives input() a history and editing
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()  # noqa: T201
            return
        except KeyboardInterrupt:
            _say("\nCtrl-D or /quit leaves")


class _Session:
    """A conversation in a terminal."""

    def __init__(self, talk: "Talk", interactive: bool) -> None:
        self.talk, self._interactive = talk, interactive
        self.ended = self._compares = False
        self._commands: dict[str, Callable[[str], None]] = {
            "/strength": self._strength,
            "/off": lambda _: self._steer(False),
            "/on": lambda _: self._steer(True),
            "/compare": self._compare,
            "/spec": self._spec,
            "/show": lambda _: _say(described(self.talk)),
            "/reset": self._reset,
            "/help": lambda _: _say(HELP),
            "/quit": self._quit,
        }

    def command(self, line: str) -> None:
        """Do what a line that begins with a slash says."""
        name, _, given = line.strip().partition(" ")
        if name not in self._commands:
            raise UserInputError(f"there is no {name}; there are {', '.join(self._commands)}")
        self._commands[name](given.strip())

    def answer(self, question: str) -> None:
        """Answer a question, and keep both."""
        both = self._compares and bool(self.talk.mixture)
        mixtures = [(), self.talk.mixture] if both else [self.talk.mixture]
        answers = self.talk.ask(question, mixtures)
        heads = ["unsteered: ", "steered:   "] if both else [""]
        self._compares = False
        try:
            for head, answer in zip(heads, answers, strict=True):
                self._write(head)
                for word in answer.words():
                    self._write(word)
                self._write("\n")
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            self._write("\n")
            _say("stopped")
        finally:
            self.talk.stop()
        if answers[-1].text:
            self.talk.keep(question, answers[-1].text)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _strength(self, given: str) -> None:
        try:
            strength = float(given)
        except ValueError:
            strength = math.nan
        if not math.isfinite(strength):
            raise UserInputError(f"/strength {given!r}: expected a number; 1 is as tuned")
        self._check_steered()
        self.talk.set_strength(strength)
        _say(described(self.talk))

    def _steer(self, on: bool) -> None:
        self._check_steered()
        self.talk.on = on
        _say(described(self.talk))

    def _compare(self, _given: str) -> None:
        self._check_steered()
        if not self.talk.mixture:
            raise UserInputError("steering is off; /on first")
        self._compares = True
        _say("the next answer comes twice")

    def _spec(self, given: str) -> None:
        if not given:
            raise UserInputError("/spec: expected the folder of a spec, or several")
        try:
            folders = shlex.split(given)
        except ValueError as error:
            raise UserInputError(f"/spec {given}: {error}; a name with blanks: 'in quotes'") from (
                error
            )
        self.talk.names = added(self.talk, folders)
        self.talk.on = True
        _say(described(self.talk))

    def _reset(self, _given: str) -> None:
        self.talk.said.clear()
        _say("what was said is forgotten")

    def _quit(self, _given: str) -> None:
        self.ended = True

    def _check_steered(self) -> None:
        if not self.talk.names:
            raise UserInputError("no spec is loaded; /spec FOLDER loads one")


def added(talk: "Talk", folders: Sequence[str]) -> tuple[str, ...]:
    """Load specs that are not there yet, and return their names, which are their folders."""
    for folder in folders:
        if folder not in talk.catalogue.specs:
            talk.catalogue.add(folder, Path(folder))
    return tuple(dict.fromkeys(folders))


def described(talk: "Talk") -> str:
    """Return what steers, in words."""
    if not talk.names:
        return "unsteered: no spec is loaded"
    specs = [talk.catalogue.specs[name].spec for name in talk.names]
    state = f"{talk.strength:g} times as tuned" if talk.on else "off"
    what = [spec.with_alpha(spec.alpha * talk.strength).explain() for spec in specs]
    return "\n".join([f"steering: {state}", *what])


def _say(text: str) -> None:
    """Tell the person something that is no answer."""
    err.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)
