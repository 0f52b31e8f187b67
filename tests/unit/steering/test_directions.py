from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from real_tasks.steering.fitters import FITTERS, FitterInput, projection_sigma
from real_tasks.vocabulary.errors import UserInputError
from real_tasks.vocabulary.types import ModuleId

MODULES = tuple(ModuleId("head", layer, head) for layer in range(2) for head in range(3))
LABELS = torch.arange(600) % 2
Found = Callable[..., torch.Tensor]


def fitted(name: str) -> Found:
    def direction(
        modules: Sequence[ModuleId], values: torch.Tensor, labels: torch.Tensor, seed: int
    ) -> torch.Tensor:
        data = FitterInput(tuple(modules), values, labels, torch.zeros_like(labels))
        return FITTERS.made(name, {}).fit(data, seed)["direction"]

    return direction


mean_difference, random_direction = fitted("mean_difference"), fitted("random")
principal_component, probe_weights = fitted("pca"), fitted("probe")


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
        found[[4, 1]], random_direction([MODULES[4], MODULES[1]], noise()[:2], LABELS, 0)
    )
    assert not torch.allclose(found, random_direction(MODULES, noise(), LABELS, seed=1))


def test_random_directions_have_no_preferred_side() -> None:
    modules = [ModuleId("head", layer, 0) for layer in range(2000)]
    found = random_direction(modules, torch.zeros(2000, 1, 4), LABELS[:1], seed=0)
    assert float(found.mean(dim=0).abs().max()) < 0.06
    second_moment = found.T @ found / 2000
    assert torch.allclose(second_moment, torch.eye(4) / 4, atol=0.03)


def spread_out(seed: int) -> torch.Tensor:
    """Activations of unequal, correlated scales, with the labels a part of them."""
    mixing = torch.randn(16, 16, generator=torch.Generator().manual_seed(seed + 100))
    scale = torch.logspace(-1, 1, 16)
    return 5 + (noise(seed) + 0.8 * LABELS[None, :, None]) @ mixing * scale


def test_the_principal_component_is_sklearns_turned_to_the_aligned() -> None:
    values = spread_out(8)
    found = principal_component(MODULES, values, LABELS, seed=0)
    for module in range(len(MODULES)):
        x = values[module].double().numpy()
        theirs = PCA(n_components=1, svd_solver="full").fit(x).components_[0]
        means = [(x[LABELS.numpy() == label] @ theirs).mean() for label in (0, 1)]
        expected = theirs * np.sign(means[1] - means[0])
        assert found[module].numpy() == pytest.approx(expected, abs=1e-5)


def test_the_principal_component_does_not_ask_which_way_the_labels_are() -> None:
    values = spread_out(9)
    found = principal_component(MODULES, values, LABELS, seed=0)
    assert torch.equal(found, -principal_component(MODULES, values, 1 - LABELS, seed=0))
    louder = values.clone()
    louder[:, :, 0] += 1000 * noise(10)[:, :, 0]
    along = principal_component(MODULES, louder, LABELS, seed=0)[:, 0].abs()
    assert along.tolist() == pytest.approx([1.0] * len(MODULES), abs=1e-3)


def test_pairs_of_samples_differ_most_along_the_principal_component() -> None:
    values = spread_out(11)[:1, :120]
    pairs = (values[:, :, None] - values[:, None, :]).flatten(1, 2)
    theirs = np.linalg.svd(pairs[0].double().numpy(), full_matrices=False)[2][0]
    found = principal_component(MODULES[:1], values, LABELS[:120], seed=0)[0].numpy()
    assert abs(float(found @ theirs)) == pytest.approx(1.0, abs=1e-6)


def test_probe_weights_are_those_of_sklearns_pipeline() -> None:
    values = spread_out(12)
    found = probe_weights(MODULES, values, LABELS, seed=0)
    for module in range(len(MODULES)):
        x = values[module].double().numpy()
        probe = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, max_iter=100_000))
        probe.fit(x, LABELS)
        weights = probe[-1].coef_[0] / probe[0].scale_
        expected = weights / np.linalg.norm(weights)
        assert found[module].numpy() == pytest.approx(expected, abs=1e-4)


def test_probe_weights_leave_out_a_loud_direction_that_says_nothing() -> None:
    values = noise(13)
    values[:, :, 0] += 3 * LABELS
    values[:, :, 1] = 50 * values[:, :, 1] + 25 * values[:, :, 0]
    found = probe_weights(MODULES, values, LABELS, seed=0)
    assert float((found @ torch.eye(16)[0]).min()) > 0.9
    assert float(principal_component(MODULES, values, LABELS, seed=0)[:, 1].abs().min()) > 0.8


def test_an_activation_that_never_changes_has_no_part_in_a_direction() -> None:
    values = noise(14) + LABELS[None, :, None]
    values[:, :, 5] = 2.5
    for direction in (mean_difference, principal_component, probe_weights):
        found = direction(MODULES, values, LABELS, 0)
        assert found[:, 5].abs().max() < 1e-6
        assert bool(found.isfinite().all())


def test_target_and_threshold_are_the_aligned_mean_and_the_middle_along_the_direction() -> None:
    values = noise(15) + 2.0 * LABELS[None, :, None]
    for name in ("mean_difference", "random", "pca", "probe"):
        data = FitterInput(MODULES, values, LABELS, torch.zeros_like(LABELS))
        found = FITTERS.made(name, {}).fit(data, 0)
        for module in range(len(MODULES)):
            along = values[module].numpy() @ found["direction"][module].numpy()
            aligned, other = along[LABELS == 1].mean(), along[LABELS == 0].mean()
            assert float(found["target"][module]) == pytest.approx(aligned, rel=1e-4, abs=1e-4)
            middle = pytest.approx((aligned + other) / 2, rel=1e-4, abs=1e-4)
            assert float(found["threshold"][module]) == middle
            assert float(found["scale"][module]) == pytest.approx(along.std(), rel=1e-4)


def test_the_plane_of_all_modules_equals_a_plain_computation_in_numpy() -> None:
    values = spread_out(16)
    data = FitterInput(MODULES, values, LABELS, torch.zeros_like(LABELS))
    plane = FITTERS.made("plane", {}).fit(data, 0)["plane"].numpy()
    differences = mean_difference(MODULES, values, LABELS, 0).double().numpy()
    alike = [np.mean([one @ other for other in differences]) for one in differences]
    first = differences[int(np.argmax(alike))]
    axis = PCA(n_components=1).fit(differences).components_[0]
    second = axis - (axis @ first) * first
    second /= np.linalg.norm(second) * np.sign(second[np.argmax(np.abs(second))])
    for found in plane:
        assert found == pytest.approx(np.stack([first, second]), abs=1e-4)
    assert plane[0] @ plane[0].T == pytest.approx(np.eye(2), abs=1e-5)


def test_a_module_alone_has_no_plane() -> None:
    data = FitterInput(MODULES[:1], noise()[:1], LABELS, LABELS)
    with pytest.raises(UserInputError, match="layer 0, head 0 is alone"):
        FITTERS.made("plane", {}).fit(data, 0)


PAIRS = tuple(place + 1 - 2 * (place % 2) if place < 500 else -1 for place in range(600))
"""The samples before the 500th: each with its neighbour."""


def of_pairs(values: torch.Tensor, pairs: tuple[int, ...] = PAIRS, **params: str) -> np.ndarray:
    data = FitterInput(MODULES, values, LABELS, LABELS, pairs=pairs)
    return FITTERS.made("paired_difference", params).fit(data, 0)["direction"].numpy()


def test_the_paired_difference_equals_plain_loops_by_mean_and_by_principal_component() -> None:
    values = noise(20) + 2.0 * LABELS[None, :, None]
    found, widest = of_pairs(values), of_pairs(values, by="pca")
    for module in range(len(MODULES)):
        x = values[module].double().numpy()
        differences = np.array([x[place + 1] - x[place] for place in range(0, 500, 2)])
        mean = differences.mean(axis=0)
        assert found[module] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
        axis = np.linalg.svd(differences, full_matrices=False)[2][0]
        assert widest[module] == pytest.approx(axis * np.sign(axis @ mean), abs=1e-4)


@pytest.mark.parametrize("by", ["mean", "pca"])
def test_what_the_two_of_a_pair_share_does_not_turn_their_difference(by: str) -> None:
    """Each pair has a large vector of its own; samples without a pair lead elsewhere."""
    planted = torch.nn.functional.normalize(noise(21)[:, 0], dim=-1)
    values = 0.1 * noise(22) + LABELS[None, :, None] * planted[:, None]
    values += 30 * noise(23)[:, torch.arange(600) // 2]
    values[:, 500:] += 100 * LABELS[None, 500:, None] * noise(24)[:, :1]
    assert (of_pairs(values, by=by) * planted.numpy()).sum(axis=1).min() > 0.98
    unpaired = mean_difference(MODULES, values, LABELS, 0)
    assert float((unpaired * planted).sum(dim=-1).max()) < 0.7


def test_without_a_pair_in_training_the_paired_difference_says_what_to_add() -> None:
    with pytest.raises(UserInputError, match="add a field pair"):
        of_pairs(noise(25), (-1,) * 600)


def test_one_class_against_the_rest_equals_plain_loops_and_leaves_out_those_of_none() -> None:
    classes = tuple(place % 4 - 1 for place in range(600))
    values = noise(26)
    values[:, torch.tensor(classes) == 1] += noise(27)[:, :1] * 4
    data = FitterInput(MODULES, values, LABELS, LABELS, classes=classes, class_names=tuple("abc"))
    found = FITTERS.made("one_vs_rest", {"class_name": "b"}).fit(data, 0)["direction"].numpy()
    for module in range(len(MODULES)):
        x = values[module].double().numpy()
        own = np.mean([row for row, of in zip(x, classes, strict=True) if of == 1], axis=0)
        rest = np.mean([row for row, of in zip(x, classes, strict=True) if of in (0, 2)], axis=0)
        expected = (own - rest) / np.linalg.norm(own - rest)
        assert found[module] == pytest.approx(expected, abs=1e-5)
        planted = noise(27)[module, 0].numpy()
        assert found[module] @ planted / np.linalg.norm(planted) > 0.95


def test_two_classes_of_three_that_differ_by_nothing_point_half_away_from_each_other() -> None:
    """What such directions have without any opposition: a cosine of -1/2, not 0."""
    classes = tuple(place % 3 for place in range(600))
    data = FitterInput(MODULES, noise(28, 4000), LABELS, LABELS, (), classes, tuple("abc"))
    one, other = (
        FITTERS.made("one_vs_rest", {"class_name": name}).fit(data, 0)["direction"] for name in "ab"
    )
    cosines = (one * other).sum(dim=-1).tolist()
    assert cosines == pytest.approx([-0.5] * len(MODULES), abs=0.05)


@pytest.mark.parametrize("name", ["", "d"])
def test_a_class_that_the_training_questions_lack_is_an_error_that_lists_them(name: str) -> None:
    classes = LABELS.tolist()
    data = FitterInput(MODULES, noise(), LABELS, LABELS, (), tuple(classes), ("a", "b"))
    with pytest.raises(UserInputError, match=f"is '{name}'; .*: a, b"):
        FITTERS.made("one_vs_rest", {"class_name": name}).fit(data, 0)
