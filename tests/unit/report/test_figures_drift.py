from collections.abc import Mapping

import matplotlib
import numpy as np
import pytest

from real_tasks.report.figures.drift import changes, drift_picture, drift_scatter
from real_tasks.vocabulary.types import ModuleId

Scores = Mapping[ModuleId, float]


def planted(n_layers: int = 4, n_heads: int = 6) -> tuple[dict[ModuleId, float], Scores]:
    """Scores that fall with the head's place, and the same with the second and the last swapped."""
    modules = [ModuleId("head", i, j) for i in range(n_layers) for j in range(n_heads)]
    before = dict(zip(modules, np.linspace(0.9, 0.5, len(modules)).tolist(), strict=True))
    swapped = {modules[1]: before[modules[-1]], modules[-1]: before[modules[1]]}
    return before, before | swapped


def test_modules_are_told_apart_by_what_became_of_them() -> None:
    before, after = planted()
    groups = changes(before, after, 3)
    assert groups["entered"] == [ModuleId("head", 3, 5)]
    assert groups["left"] == [ModuleId("head", 0, 1)]
    assert groups["among the best before and now"] == [ModuleId("head", 0, i) for i in (0, 2)]
    assert sum(map(len, groups.values())) == len(before)


def test_every_module_is_a_point_at_its_two_scores() -> None:
    before, after = planted()
    axes = drift_scatter(before, after, "real", 3).axes[0]
    points = {tuple(xy) for series in axes.collections for xy in series.get_offsets().round(9)}
    assert points == {(round(before[m], 9), round(after[m], 9)) for m in before}
    entered = axes.collections[2].get_offsets()
    np.testing.assert_allclose(entered, np.array([[0.5, before[ModuleId("head", 0, 1)]]]))


def test_what_entered_and_left_is_named_and_the_title_counts() -> None:
    figure = drift_scatter(*planted(), "real", 3)
    assert {text.get_text() for text in figure.axes[0].texts} == {"L3H5", "L0H1"}
    assert "2 of the best 3 are the same" in figure.get_suptitle()
    labels = figure.legends[0].get_texts()
    assert [label.get_text() for label in labels][2:] == ["entered (1)", "left (1)"]


def test_names_do_not_lie_on_one_another() -> None:
    rng = np.random.default_rng(0)
    before = {ModuleId("head", i, j): 0.7 + 0.01 * rng.random() for i in range(9) for j in range(9)}
    after = {module: 0.7 + 0.01 * rng.random() for module in before}
    axes = drift_scatter(before, after, "real", 30).axes[0]
    places = np.array([text.xy for text in axes.texts])
    width, height = (np.ptp(ends) for ends in (axes.get_xlim(), axes.get_ylim()))
    apart = np.abs(places[:, None] - places[None]) / [width, height]
    near = (apart[..., 0] < 0.08) & (apart[..., 1] < 0.03)
    assert len(places) > 3
    assert near.sum() == len(places)


def test_layers_and_mlps_have_names_of_their_own() -> None:
    for kind, names in (("layer", {"L2", "L0"}), ("mlp", {"MLP2", "MLP0"})):
        before = {ModuleId(kind, i): 0.9 - 0.1 * i for i in range(3)}  # type: ignore[arg-type]
        after = {ModuleId(kind, i): 0.5 + 0.1 * i for i in range(3)}  # type: ignore[arg-type]
        texts = drift_scatter(before, after, "iti", 1).axes[0].texts
        assert {text.get_text() for text in texts} == names


def test_a_picture_says_in_words_what_it_shows() -> None:
    rc = dict(matplotlib.rcParams)
    picture = drift_picture(*planted(), "real", 3)
    assert picture.name == "drift_real" and picture.png.startswith(b"\x89PNG")
    assert "Entered the best 3: layer 3, head 5. Left: layer 0, head 1." in picture.alt
    before, _ = planted()
    assert "Entered the best 3: none. Left: none." in drift_picture(before, before, "real", 3).alt
    assert dict(matplotlib.rcParams) == rc


def test_rankings_without_a_module_in_common_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="no module in common"):
        drift_scatter({ModuleId("head", 0, 0): 0.5}, {ModuleId("layer", 0): 0.5}, "real", 1)
