import numpy as np
import pytest
import torch

from real_tasks.directions import mean_difference, projection_sigma, random_direction
from real_tasks.types import ModuleId

MODULES = tuple(ModuleId("head", layer, head) for layer in range(2) for head in range(3))
LABELS = torch.arange(600) % 2


def noise(seed: int = 0, d: int = 16) -> torch.Tensor:
    return torch.randn(len(MODULES), 600, d, generator=torch.Generator().manual_seed(seed))


def test_a_planted_direction_is_found() -> None:
    planted = torch.nn.functional.normalize(noise(1)[:, 0], dim=-1)
    values = noise() + 5.0 * LABELS[None, :, None] * planted[:, None]
    found = mean_difference(MODULES, values, LABELS, seed=0)
    assert float((found * planted).sum(dim=-1).min()) > 0.99
    assert found.norm(dim=-1).tolist() == pytest.approx([1.0] * len(MODULES))


def test_the_direction_leads_from_violating_to_aligned() -> None:
    values = noise() + LABELS[None, :, None]
    there = mean_difference(MODULES, values, LABELS, seed=0)
    back = mean_difference(MODULES, values, 1 - LABELS, seed=0)
    assert torch.allclose(there, -back)
    assert bool((there.sum(dim=-1) > 0).all())


def test_the_direction_equals_a_plain_computation_in_numpy() -> None:
    values, labels = noise(3).double().numpy(), LABELS.numpy()
    found = mean_difference(MODULES, torch.from_numpy(values), LABELS, seed=0).numpy()
    for module in range(len(MODULES)):
        aligned = np.mean([x for x, y in zip(values[module], labels, strict=True) if y], axis=0)
        other = np.mean([x for x, y in zip(values[module], labels, strict=True) if not y], axis=0)
        expected = (aligned - other) / np.linalg.norm(aligned - other)
        assert found[module] == pytest.approx(expected, abs=1e-12)


def test_sigma_is_numpys_standard_deviation_of_the_projections() -> None:
    values, directions = noise(4) * 3 + 7, random_direction(MODULES, noise(), LABELS, seed=5)
    sigma = projection_sigma(values, directions)
    for module in range(len(MODULES)):
        projections = values[module].numpy() @ directions[module].numpy()
        assert float(sigma[module]) == pytest.approx(float(np.std(projections)), rel=1e-5)


def test_sigma_along_an_axis_is_the_scale_of_that_axis() -> None:
    values = noise(6)
    values[:, :, 2] *= 9.0
    directions = torch.zeros(len(MODULES), 16)
    directions[:, 2] = 1.0
    expected = pytest.approx([9.0] * len(MODULES), rel=0.1)
    assert projection_sigma(values, directions).tolist() == expected


def test_random_directions_are_unit_vectors_that_differ_between_modules() -> None:
    found = random_direction(MODULES, noise(), LABELS, seed=0)
    assert found.norm(dim=-1).tolist() == pytest.approx([1.0] * len(MODULES))
    assert len({tuple(row) for row in found.tolist()}) == len(MODULES)


def test_random_directions_follow_seed_and_module_and_nothing_else() -> None:
    found = random_direction(MODULES, noise(), LABELS, seed=0)
    torch.manual_seed(99)
    assert torch.equal(found, random_direction(MODULES, 3 * noise(7), 1 - LABELS, seed=0))
    assert torch.equal(
        found[[4, 1]], random_direction([MODULES[4], MODULES[1]], noise(), LABELS, 0)
    )
    assert not torch.allclose(found, random_direction(MODULES, noise(), LABELS, seed=1))


def test_random_directions_have_no_preferred_side() -> None:
    modules = [ModuleId("head", layer, 0) for layer in range(2000)]
    found = random_direction(modules, torch.zeros(2000, 1, 4), LABELS[:1], seed=0)
    assert float(found.mean(dim=0).abs().max()) < 0.06
    second_moment = found.T @ found / 2000
    assert torch.allclose(second_moment, torch.eye(4) / 4, atol=0.03)
