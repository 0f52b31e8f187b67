"""Embedded models, made on the user's own machine: a world, its corpus, a model trained on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol

from real_tasks.models.text_model import TextModel
from real_tasks.vocabulary.config import Frozen
from real_tasks.vocabulary.registry import Registry
from real_tasks.vocabulary.types import ModelShape


class EmbeddedModel(Protocol):
    """A model that can be made offline, registered by ``@EMBEDDED_MODELS.register("name")``."""

    Params: ClassVar[type[Frozen]]

    def __init__(self, params: Any) -> None:
        """Keep the validated parameters, an instance of ``Params``."""

    def shape(self) -> ModelShape:
        """Return the shape that the checkpoint will have."""
        ...

    def texts(self) -> TextModel:
        """Return how the checkpoint will read texts."""
        ...

    def build(self, folder: Path, on_progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Write an ordinary Hugging Face checkpoint into ``folder``.

        Calls ``on_progress(steps done, steps in all)`` all the while, and returns facts to record
        (losses, tokens, seconds).
        """
        ...


EMBEDDED_MODELS: Registry[EmbeddedModel] = Registry(
    "embedded model", "real_tasks.models.embedded", EmbeddedModel
)
