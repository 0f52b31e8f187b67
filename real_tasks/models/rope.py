"""Rotary embeddings whose frequencies follow the length of a text.

transformers chooses such frequencies once for a forward pass, by the largest position in it, so
that one long row would change the numbers of all short ones beside it. Rows of one batch are
therefore of one *regime*: what each would get alone.

- *longrope* (Phi-3) has frequencies for texts of up to ``original_max_position_embeddings`` tokens,
  and others for all longer ones;
- *dynamic NTK* has frequencies of their own for every length beyond ``max_position_embeddings``.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

_DYNAMIC, _LONGROPE = "dynamic", "longrope"

Regime = tuple[int, ...]
"""Equal for lengths whose texts may stand in one batch; of each rule the length it stands for."""


@dataclass(frozen=True)
class LengthRule:
    """How frequencies follow the length of a text.

    Attributes:
        up_to: tokens up to which a text is short.
        most: tokens up to which every longer text has frequencies of its own; None where all
            longer texts have the same.
    """

    up_to: int
    most: int | None = None

    def regime(self, length: int) -> int:
        """Return the length that stands for all texts with the frequencies of ``length`` tokens."""
        return max(self.up_to, length if self.most else min(length, self.up_to + 1))


def length_rules(config: PreTrainedConfig) -> tuple[LengthRule, ...]:
    """Return the rules of a model's configuration; none where length changes no frequency."""
    text = config.get_text_config()
    given: dict[str, Any] = getattr(text, "rope_parameters", None) or {}
    # Some architectures have parameters for each type of layer.
    nested = [one for one in given.values() if isinstance(one, dict)]
    rules = []
    for one in nested or [given]:
        kind = one.get("rope_type") or "default"
        if _DYNAMIC in kind:
            short = text.max_position_embeddings
            rules.append(LengthRule(short, most=int(short * one["factor"])))
        elif kind == _LONGROPE:
            rules.append(LengthRule(one["original_max_position_embeddings"]))
    return tuple(dict.fromkeys(rules))


def followers(model: nn.Module) -> list[nn.Module]:
    """Return the rotary embeddings whose frequencies follow the length."""
    return [
        module
        for module in model.modules()
        if any(_DYNAMIC in kind or kind == _LONGROPE for kind in _kinds(module).values())
    ]


def forget_longer_texts(rotary: nn.Module, _args: Any) -> None:
    """Undo, before a forward pass, what longer texts have left in a rotary embedding.

    transformers keeps dynamic NTK's frequencies of the longest text so far for every text beyond
    ``max_position_embeddings``, so that numbers would depend on what was read before.
    """
    for prefix, kind in _kinds(rotary).items():
        if _DYNAMIC in kind:
            setattr(rotary, f"{prefix}inv_freq", getattr(rotary, f"{prefix}original_inv_freq"))
            # The type of `Module` knows tensors and modules only.
            short: Any = rotary.original_max_seq_len
            setattr(rotary, f"{prefix}max_seq_len_cached", short)


def _kinds(rotary: nn.Module) -> dict[str, str]:
    """Return the type of rotary embedding by what its buffers' names begin with."""
    kinds: Any = getattr(rotary, "rope_type", None)
    if isinstance(kinds, dict):
        return {f"{layer_type}_": kind for layer_type, kind in kinds.items()}
    return {"": kinds} if isinstance(kinds, str) else {}
