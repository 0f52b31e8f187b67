"""A conversation with a model, steered or not, whose answers come word by word."""

import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from real_tasks.models.chat import ChatFormat, Message, conversation
from real_tasks.reading.asking import PROMPT, Asking
from real_tasks.reading.batches import encode
from real_tasks.serving.catalogue import Catalogue, Mixture
from real_tasks.serving.engine import Engine
from real_tasks.serving.generations import Generation, Piece, Sampling
from real_tasks.vocabulary.errors import UserInputError


@dataclass
class Talk:
    """What was said so far, and how the next answer is steered.

    Attributes:
        engine: running.
        catalogue: of its model.
        sampling: of the answers; ``max_tokens`` is what an answer may have at most.
        system: what the system says, if anything.
        template: how a question is put where the model has no chat template.
        names: of the specs that steer.
        strength: of them all; 1 is as tuned.
        on: whether they steer.
        said: questions and answers in turn.
    """

    engine: Engine
    catalogue: Catalogue
    sampling: Sampling
    system: str = ""
    template: str = "{question}"
    names: tuple[str, ...] = ()
    strength: float = 1.0
    on: bool = True
    said: list[Message] = field(default_factory=list)
    _running: list[Generation] = field(default_factory=list)

    @property
    def has_template(self) -> bool:
        """Whether the model has a chat template; questions are plain text otherwise."""
        return bool(self.engine.loaded.tokenizer.chat_template)

    @property
    def mixture(self) -> Mixture:
        """The specs that steer the next answer."""
        return tuple((name, self.strength) for name in self.names) if self.on else ()

    def put_as_tuned(self) -> None:
        """Put plain questions as the first spec's were when it was tuned, if it says how."""
        facts = self.catalogue.specs[self.names[0]].spec.provenance.get(PROMPT)
        if isinstance(facts, dict) and not self.has_template:
            asking = Asking.from_facts(facts)
            self.template = asking.template
            self.sampling = replace(self.sampling, stop=asking.stop)

    def set_strength(self, strength: float) -> None:
        """Steer so strongly from now on.

        Raises:
            UserInputError: it overflows the model's type.
        """
        self.catalogue.steering(tuple((name, strength) for name in self.names))
        self.strength, self.on = strength, True

    def ask(self, question: str, mixtures: Sequence[Mixture]) -> list["Answer"]:
        """Have a question answered, once for each mixture, in one batch.

        Raises:
            UserInputError: the conversation does not fit the model.
        """
        asked = [*self.said, {"role": "user", "content": question}]
        loaded = self.engine.loaded
        prompt = encode(loaded, [self._prompt(asked)])[0]
        self.engine.check(prompt, 1)
        most = self.sampling.max_tokens
        if loaded.max_positions is not None:
            most = min(most, loaded.max_positions - len(prompt))
        sampling = replace(self.sampling, max_tokens=most)
        answers = [Answer(queue.SimpleQueue()) for _ in mixtures]
        self._running = [
            Generation(prompt, sampling, self.catalogue.steering(mixture), answer.pieces.put)
            for mixture, answer in zip(mixtures, answers, strict=True)
        ]
        self.engine.submit(self._running)
        return answers

    def stop(self) -> None:
        """Have the answers under way end."""
        for generation in self._running:
            generation.cancel()

    def keep(self, question: str, answer: str) -> None:
        """Add what was said."""
        self.said += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]

    def _prompt(self, messages: Sequence[Message]) -> str:
        if self.has_template:
            chat = ChatFormat(self.system, thinking="closed")
            system = [{"role": "system", "content": self.system}] if self.system else []
            return conversation(self.engine.loaded.tokenizer, chat, [*system, *messages])
        # Blanks at the end belong to the answer's first word.
        turns = [
            self.template.format(question=one["content"]).rstrip()
            if one["role"] == "user"
            else f" {one['content'].strip()}\n"
            for one in messages
        ]
        return "".join([f"{self.system}\n" if self.system else "", *turns])


@dataclass
class Answer:
    """An answer under way.

    Attributes:
        pieces: arrive as they are made.
        text: what has come.
        ended: whether nothing follows.
    """

    pieces: "queue.SimpleQueue[Piece]"
    text: str = ""
    ended: bool = False

    def words(self) -> Iterator[str]:
        """Yield what comes until the end, or until somebody interrupts.

        Raises:
            UserInputError: the answer cannot go on.
        """
        while not self.ended:
            try:  # a wait without an end would not be interrupted by Ctrl-C everywhere
                piece = self.pieces.get(timeout=0.5)
            except queue.Empty:
                continue
            if isinstance(piece.error, UserInputError):
                raise piece.error
            if piece.error is not None:
                raise UserInputError(f"the model failed: {piece.error}") from piece.error
            self.text += piece.text
            self.ended = piece.is_last
            yield piece.text
