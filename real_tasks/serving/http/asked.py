"""What clients may ask: OpenAI's fields that hold here, and ``steering``; any other is an error.

Fields that change nothing (``user``) are taken; those that would change something that is not done
here (penalties, tools) are refused, as a client would believe that they hold.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Zero = Annotated[float, Field(ge=0, le=0)]
"""Something that is not done here, so that only its neutral value is taken."""
TokenId = Annotated[int, Field(ge=0)]
Strength = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SpecPart(_Asked):
    """A spec and how strongly it steers: 1 as it was tuned, 0 not at all, below 0 the other way."""

    spec: str
    strength: Strength = 1.0


class StreamOptions(_Asked):
    """Whether the last chunk tells the usage."""

    include_usage: bool | None = False
    include_obfuscation: bool | None = None


class Asked(_Asked):
    """What completions and chats have in common."""

    model: str
    steering: list[SpecPart] | None = Field(None, max_length=64)
    max_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[str, Field(min_length=1)] | list[Annotated[str, Field(min_length=1)]] | None = (
        Field(None, max_length=1000)
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end a text."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class CompletionAsked(Asked):
    """``/v1/completions``: texts or token ids to be continued."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]] = Field(max_length=10_000_000)
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: Literal[False] | None = None
    suffix: None = None
    best_of: None = None


class TextPart(_Asked):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(_Asked):
    """What somebody says in a conversation; OpenAI's client sends back what it was told."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None

    def plain(self) -> dict[str, str]:
        """Return it as chat templates take it."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class TextFormat(_Asked):
    """Plain text; other formats are not enforced here."""

    type: Literal["text"]


class ChatAsked(Asked):
    """``/v1/chat/completions``: a conversation whose next answer is wanted."""

    messages: list[Message] = Field(min_length=1)
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    chat_template_kwargs: dict[str, Any] = {}
    response_format: TextFormat | None = None
