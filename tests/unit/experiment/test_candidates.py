from dataclasses import replace

import pytest
import torch

from real_tasks.experiment.candidates import SpecTemplate, candidate_selections
from real_tasks.experiment.methods.known import known_methods
from real_tasks.experiment.methods.method import Method
from real_tasks.vocabulary.config import PlugIn
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.experiment_config import ExperimentConfig
from real_tasks.vocabulary.types import ModelShape, ModuleId, ModuleScore
from tests.unit.tiny_models import vectors_of

SHAPE = ModelShape(n_layers=3, n_heads=4, head_dim=5, d_model=7)
METHODS = known_methods(ExperimentConfig())
SCORES = [
    ModuleScore(ModuleId("head", layer, head), 0.5 + (7 * (4 * layer + head) % 12) / 40)
    for layer in range(3)
    for head in range(4)
]


def ranked(name: str, *top_k: int) -> Method:
    return METHODS[name].model_copy(update={"top_k": top_k})


def template() -> SpecTemplate:
    source = torch.Generator().manual_seed(0)
    return SpecTemplate(
        method=METHODS["real"].model_copy(update={"scope": "generated"}),
        model="m",
        model_digest="d",
        weights="w",
        shape=SHAPE,
        tensors={
            "direction": torch.randn(3, 4, 5, generator=source),
            "scale": torch.rand(3, 4, generator=source),
        },
        provenance={"fold": 1},
    )


def test_there_is_a_selection_for_every_k_and_the_smaller_begin_the_larger() -> None:
    found = candidate_selections(ranked("real", 8, 2, 8, 4), SCORES, SHAPE)
    assert list(found) == [2, 4, 8]
    assert [len(selected) for selected in found.values()] == [2, 4, 8]
    modules = [item.module for item in found[8]]
    assert [item.module for item in found[4]] == modules[:4]
    best = sorted(SCORES, key=lambda score: -score.score)[:8]
    assert modules == [score.module for score in best]


def test_strengths_follow_the_methods_weighting() -> None:
    by_score = candidate_selections(ranked("real", 4), SCORES, SHAPE)[4]
    equal = candidate_selections(ranked("real_equal_weights", 4), SCORES, SHAPE)[4]
    assert [item.module for item in by_score] == [item.module for item in equal]
    expected = [item.score / by_score[0].score for item in by_score if item.score is not None]
    assert [item.strength for item in by_score] == pytest.approx(expected)
    assert by_score[3].strength < 1.0
    assert [item.strength for item in equal] == [1.0] * 4


def test_without_scores_all_heads_are_steered_equally_whatever_k_says() -> None:
    found = candidate_selections(METHODS["all"], None, SHAPE)
    assert list(found) == [12]
    assert [(item.module.layer, item.module.head) for item in found[12]] == [
        (layer, head) for layer in range(3) for head in range(4)
    ]
    assert {item.strength for item in found[12]} == {1.0}
    assert {item.score for item in found[12]} == {None}


def test_caa_chooses_one_layer_whatever_k_says() -> None:
    layers = [ModuleScore(ModuleId("layer", layer), 0.1 * (layer == 1)) for layer in range(3)]
    found = candidate_selections(METHODS["caa"], layers, SHAPE)
    assert {k: [item.module for item in items] for k, items in found.items()} == {
        1: [ModuleId("layer", 1)]
    }


def test_a_spec_of_layers_holds_each_layers_own_direction() -> None:
    tensors = {"direction": torch.randn(3, 1, 7), "scale": torch.rand(3, 1)}
    made = replace(template(), tensors=tensors)
    layers = [ModuleScore(ModuleId("layer", layer), float(layer)) for layer in range(3)]
    spec = made.spec(candidate_selections(METHODS["caa"], layers, SHAPE)[1])
    assert torch.equal(spec.edits[0].tensors["direction"][0], made.tensors["direction"][2, 0])
    assert spec.edits[0].layers == (2,)


def test_too_large_a_k_is_an_error() -> None:
    with pytest.raises(UserInputError, match="top_k is 13"):
        candidate_selections(ranked("real", 4, 13), SCORES, SHAPE)


def test_a_spec_holds_each_selected_heads_own_direction_and_sigma() -> None:
    made = template()
    selected = candidate_selections(ranked("real", 5), SCORES, SHAPE)[5]
    spec = made.spec(selected, alpha=2.5)
    assert (spec.alpha, spec.edits[0].scope, spec.shape) == (2.5, "generated", SHAPE)
    assert (spec.weights, spec.kinds) == ("w", ("head",))
    for place, item in enumerate(selected):
        layer, head = item.module.layer, item.module.head
        assert torch.equal(
            spec.edits[0].tensors["direction"][place], made.tensors["direction"][layer, head]
        )
        assert float(spec.edits[0].tensors["scale"][place]) == float(
            made.tensors["scale"][layer, head]
        )
        assert float(spec.edits[0].weights[place]) == pytest.approx(item.strength)


def test_the_specs_displacement_is_alpha_times_strength_sigma_and_direction() -> None:
    made = template()
    selected = candidate_selections(ranked("real", 5), SCORES, SHAPE)[5]
    displacement = vectors_of(made.spec(selected, alpha=2.5).intervention(), SHAPE)
    expected = {layer: torch.zeros(4, 5) for layer in {item.module.layer for item in selected}}
    for item in selected:
        layer, head = item.module.layer, item.module.head
        length = 2.5 * item.strength * float(made.tensors["scale"][layer, head])
        expected[layer][head] = length * made.tensors["direction"][layer, head]
    assert displacement.keys() == expected.keys()
    for layer, vector in displacement.items():
        assert torch.allclose(vector, expected[layer].flatten())


def test_what_is_projected_out_of_the_residual_is_projected_out_of_all_that_write_to_it() -> None:
    method = METHODS["caa"].model_copy(
        update={"operator": PlugIn(name="project_out"), "where": "writers"}
    )
    direction = torch.nn.functional.normalize(torch.randn(3, 1, 7), dim=-1)
    made = replace(template(), method=method, tensors={"direction": direction})
    layers = [ModuleScore(ModuleId("layer", layer), float(layer)) for layer in range(3)]
    spec = made.spec(candidate_selections(method, layers, SHAPE)[1])
    places = [(edit.kind, edit.layers) for edit in spec.edits]
    assert places == [("residual_in", (0,)), ("attention", (0, 1, 2)), ("mlp", (0, 1, 2))]
    for edit in spec.edits:
        assert torch.equal(edit.tensors["direction"], direction[2].expand(len(edit.modules), 7))
