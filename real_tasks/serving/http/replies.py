"""What clients are told: completions and chats, whole or chunk by chunk."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from real_tasks.serving.generations import Finish, Piece, Score


@dataclass
class Choice:
    """One of the texts of a reply, gathered from its pieces."""

    text: str = ""
    scores: list[Score] = field(default_factory=list)
    n_tokens: int = 0
    finish: Finish | None = None

    def take(self, piece: Piece) -> None:
        """Add what a piece brings."""
        self.text += piece.text
        self.scores += piece.scores
        self.n_tokens, self.finish = piece.n_tokens, piece.finish


class Reply:
    """How a kind of reply is written.

    Args:
        model: as it was asked for.
        n_prompt: tokens of the prompts.
        scored: whether log-probabilities were asked for.
    """

    object = "text_completion"
    chunk_object = "text_completion"
    prefix = "cmpl"

    def __init__(self, model: str, n_prompt: int, scored: bool) -> None:
        self.n_prompt = n_prompt
        self.scored = scored
        self._facts = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """Return the reply with its texts."""
        listed = [self._choice(index, choice) for index, choice in enumerate(choices)]
        return self._with(self.object, listed) | {"usage": self.usage(choices)}

    def opening(self, _index: int) -> dict[str, Any] | None:
        """Return the chunk that comes before the first piece of a text, if there is one."""
        return None

    def chunk(self, index: int, piece: Piece) -> dict[str, Any]:
        """Return the chunk for a piece of a text."""
        choice = Choice(piece.text, list(piece.scores), piece.n_tokens, piece.finish)
        return self._with(self.chunk_object, [self._choice(index, choice)])

    def closing(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """Return the chunk that tells the usage."""
        return self._with(self.chunk_object, []) | {"usage": self.usage(choices)}

    def usage(self, choices: Sequence[Choice]) -> dict[str, int]:
        """Return the counts of tokens; an end-of-sequence token is one."""
        new = sum(choice.n_tokens for choice in choices)
        counts = {"prompt_tokens": self.n_prompt, "completion_tokens": new}
        return counts | {"total_tokens": self.n_prompt + new}

    def _with(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._facts, "object": kind, "choices": choices}

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        scores = _completion_scores(choice.scores) if self.scored else None
        return {
            "index": index,
            "text": choice.text,
            "logprobs": scores,
            "finish_reason": choice.finish,
        }


class ChatReply(Reply):
    """A chat's; in chunks a message is a ``delta``."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    prefix = "chatcmpl"

    def opening(self, index: int) -> dict[str, Any]:
        """Return the chunk that says who speaks."""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._with(self.chunk_object, [choice])

    def chunk(self, index: int, piece: Piece) -> dict[str, Any]:
        """Return the chunk for a piece of an answer."""
        delta = {"content": piece.text} if piece.text else {}
        choice = {"index": index, "delta": delta, **self._end(piece.scores, piece.finish)}
        return self._with(self.chunk_object, [choice])

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        return {"index": index, "message": message, **self._end(choice.scores, choice.finish)}

    def _end(self, scores: Sequence[Score], finish: Finish | None) -> Mapping[str, Any]:
        told = {"content": [_chat_score(one) for one in scores]} if self.scored else None
        return {"logprobs": told, "finish_reason": finish}


def _completion_scores(scores: Sequence[Score]) -> dict[str, Any]:
    return {
        "tokens": [_shown(one.token) for one in scores],
        "token_logprobs": [one.log_prob for one in scores],
        "top_logprobs": [{_shown(t): value for t, value in one.likeliest} for one in scores],
        "text_offset": [one.offset for one in scores],
    }


def _chat_score(score: Score) -> dict[str, Any]:
    top = [_token(token, value) for token, value in score.likeliest]
    return {**_token(score.token, score.log_prob), "top_logprobs": top}


def _token(token: bytes, log_prob: float) -> dict[str, Any]:
    return {"token": _shown(token), "logprob": log_prob, "bytes": list(token)}


def _shown(token: bytes) -> str:
    return token.decode("utf-8", errors="replace")
