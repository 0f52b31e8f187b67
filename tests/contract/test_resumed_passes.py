"""Every family: a pass that starts at the first steered layer is the full pass, to the bit."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.models.places import sites
from real_tasks.reading.batches import encode, pad
from real_tasks.reading.shared_rows import SharedRow, filled
from real_tasks.steering.edits import Intervention
from real_tasks.steering.hooks import applied
from real_tasks.steering.resuming import steered_states
from real_tasks.vocabulary.types import ModuleKind, TokenScope
from tests.unit.counted_layers import counted
from tests.unit.tiny_models import TINY_FAMILIES, random_texts, tiny_family, tiny_tokenizer

Inputs = tuple[dict[str, Any], Tensor]
WIDE = {"sliding_window": 64}
"""Shared rows are for texts that no window cuts."""
KINDS: tuple[ModuleKind, ...] = ("residual_in", "head", "mlp", "layer")


def loaded_family(name: str, **changes: Any) -> LoadedModel:
    return prepare(tiny_family(name, **changes), tiny_tokenizer())


def padded_texts(loaded: LoadedModel) -> Inputs:
    """Texts longer than the windows of these models, filled up on the right."""
    batch = pad(loaded, encode(loaded, random_texts(4, 3, 20)), "right")
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.mask, "use_cache": False}
    return inputs, torch.tensor([2, 2, 2, 2])


def shared_rows(loaded: LoadedModel) -> Inputs:
    """Two beginnings with ends, one of which begins as the end before it."""
    rows = [SharedRow([1, 9, 4]), SharedRow([1, 7])]
    for row in rows:
        row.add([10, 11, 12])
        row.add([10, 13], shared=1)
        row.add([14])
    batch = filled(loaded, rows, shares=True)
    return batch.decoder_inputs(loaded.model.dtype), batch.beginnings


def pushed(loaded: LoadedModel, layer: int, kind: ModuleKind, scope: TokenScope) -> Intervention:
    width = loaded.shape.modules_per_layer(kind) * loaded.shape.width(kind)
    vector = torch.randn(width, generator=torch.Generator().manual_seed(layer))
    return Intervention.adding({layer: vector}, scope, kind)


def full_pass(loaded: LoadedModel, iv: Intervention | None, given: Inputs) -> Tensor:
    with applied(loaded, iv, given[1]):
        return loaded.hidden_states(**given[0])


def check(loaded: LoadedModel, given: Inputs, interventions: Sequence[Intervention | None]) -> None:
    """Full passes, passes that keep states, and such that start from them say the same."""
    inputs, ends = given
    n_layers = loaded.shape.n_layers
    expected = [full_pass(loaded, iv, given) for iv in interventions]
    for _ in range(2):
        for iv, full in zip(interventions, expected, strict=True):
            found = steered_states(loaded, iv, "batch", inputs, ends)
            assert torch.equal(found, full)
    for iv, full in zip(interventions, expected, strict=True):
        first = n_layers if iv is None else iv.edits[0].layers[0]
        with counted(loaded) as ran:
            assert torch.equal(steered_states(loaded, iv, "batch", inputs, ends), full)
        assert ran == list(range(first, n_layers))
    assert not any("forward" in vars(layer) for layer in sites(loaded.model, "layer"))


@pytest.mark.parametrize("name", TINY_FAMILIES)
@torch.inference_mode()
def test_a_resumed_pass_is_the_full_one_from_every_layer_of_every_part(name: str) -> None:
    loaded = loaded_family(name)
    layers = range(loaded.shape.n_layers)
    ivs = [pushed(loaded, layer, kind, "generated") for layer in reversed(layers) for kind in KINDS]
    check(loaded, padded_texts(loaded), [None, *ivs])


@pytest.mark.parametrize("name", TINY_FAMILIES)
@torch.inference_mode()
def test_shared_rows_are_resumed_as_well(name: str) -> None:
    wide = WIDE if getattr(tiny_family(name).config.get_text_config(), "sliding_window", 0) else {}
    loaded = loaded_family(name, **wide)
    ivs = [pushed(loaded, layer, "head", "all") for layer in range(loaded.shape.n_layers)]
    check(loaded, shared_rows(loaded), [*ivs, None])
