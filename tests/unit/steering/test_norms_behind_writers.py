"""Models with a norm between what attention and MLP put out and the residual stream."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from real_tasks.evaluation.model_handle import ModelHandle
from real_tasks.experiment.candidates import SpecTemplate
from real_tasks.experiment.methods.known import known_methods
from real_tasks.models.families import FAMILIES, write_gains
from real_tasks.models.loading import LoadedModel, prepare
from real_tasks.models.places import places
from real_tasks.steering.edits import Edit, Intervention
from real_tasks.steering.fitters import FITTERS, FitterInput
from real_tasks.steering.hooks import applied
from real_tasks.steering.operators import OPERATORS
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import ModuleId, ModuleKind, SelectedModule
from tests.unit.tiny_models import TINY_FAMILIES, tiny_family, tiny_tokenizer

NORMED = [name for name in TINY_FAMILIES if FAMILIES[name].post_norms]
IDS = torch.tensor([[1, 9, 12, 30, 41, 7], [1, 8, 55, 20, 6, 14]])


def loaded_of(family: str) -> LoadedModel:
    return prepare(tiny_family(family, seed=4), tiny_tokenizer())


def unit(seed: int, width: int = 32) -> Tensor:
    drawn = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()


def seen_at(model: PreTrainedModel, kind: ModuleKind) -> list[Tensor]:
    """What passes by at a part, layer by layer; hooks come after those of steering."""
    found: list[Tensor] = []
    hooks = [place.hook(lambda x: found.append(x.clone())) for place in places(model, kind)]
    with torch.no_grad():
        model(input_ids=IDS)
    for hook in hooks:
        hook.remove()
    return found


def ablation(loaded: LoadedModel, v: Tensor, **changes: object) -> SpecTemplate:
    method = known_methods(ExperimentConfig())["directional_ablation"].model_copy(update=changes)
    tensors = {"direction": v.repeat(loaded.shape.n_layers, 1, 1)}
    gains = write_gains(loaded.model)
    return SpecTemplate(method, "tiny", "", "", loaded.shape, tensors, {}, gains=gains)


CHOSEN = (SelectedModule(ModuleId("layer", 1), 1, 1.0, 1.0),)


@pytest.mark.parametrize("family", NORMED)
def test_directional_ablation_leaves_nothing_along_the_direction_in_the_stream(family: str) -> None:
    loaded, v = loaded_of(family), unit(5)
    spec = ablation(loaded, v).spec(CHOSEN)
    assert max(float((x @ v).abs().max()) for x in seen_at(loaded.model, "layer")) > 0.1
    with applied(loaded, spec.intervention()):
        for x in seen_at(loaded.model, "layer"):
            torch.testing.assert_close(x @ v, torch.zeros(2, 6), atol=1e-5, rtol=0)


def test_another_operator_before_such_a_norm_is_refused() -> None:
    loaded = loaded_of("olmo2")
    template = ablation(loaded, unit(5), operator=PlugIn(name="clamp"))
    tensors = {**template.tensors, "target": torch.zeros(3, 1)}
    with pytest.raises(UserInputError, match="a norm stands between.*where: selected"):
        replace(template, tensors=tensors).spec(CHOSEN)


@pytest.mark.parametrize("family", [*NORMED, "llama"])
def test_thinkedits_heads_add_nothing_along_the_direction_to_the_stream(family: str) -> None:
    loaded, layer = loaded_of(family), 1
    heads = loaded.shape.layer_modules("head", layer)
    labels = torch.arange(8) % 2
    stream = 3 * labels[:, None] * unit(6)  # the classes differ along one direction
    fitter = FITTERS.made("direct_write", {})
    data = FitterInput(
        *(heads, torch.zeros(len(heads), 8, loaded.shape.head_dim), labels, labels),
        model=ModelHandle(loaded, 512),
        beside=stream[None],
    )
    tensors = fitter.fit(data, 0)
    edit = Edit(heads, tensors, torch.ones(len(heads)), OPERATORS.made("remove_write", {}))

    def along() -> Tensor:
        before, after = (seen_at(loaded.model, k)[layer] for k in ("residual_in", "residual_mid"))
        return (after - before) @ unit(6)

    if family == "llama":  # its o_proj has a bias, which no head writes
        bias = loaded.model.get_submodule("model.layers.1.self_attn.o_proj").get_parameter("bias")
        bias.data.zero_()
    assert along().abs().max() > 0.05
    with applied(loaded, Intervention((edit,))):
        torch.testing.assert_close(along(), torch.zeros(2, 6), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", [*NORMED, "qwen2"])
@pytest.mark.parametrize(
    ("reads", "before", "after"),
    [("head", "residual_in", "residual_mid"), ("neuron", "residual_mid", "layer")],
)
def test_what_a_site_adds_to_the_stream_is_its_weight_times_the_gain_but_for_its_length(
    family: str, reads: ModuleKind, before: ModuleKind, after: ModuleKind
) -> None:
    loaded, layer = loaded_of(family), 2
    written = ModelHandle(loaded, 512).written_by(ModuleId(reads, layer))
    values = seen_at(loaded.model, reads)[layer]
    added = seen_at(loaded.model, after)[layer] - seen_at(loaded.model, before)[layer]
    cosine = torch.nn.functional.cosine_similarity(values @ written.T, added, dim=-1)
    torch.testing.assert_close(cosine, torch.ones(2, 6), atol=1e-5, rtol=0)
