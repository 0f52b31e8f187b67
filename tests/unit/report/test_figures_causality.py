import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import pytest
from scipy.stats import spearmanr

from real_tasks.report.figures.causality import read_out_against_effect, selected_shares
from real_tasks.report.figures.gallery import draw_gallery
from real_tasks.report.figures.gallery_data import GalleryData
from real_tasks.report.figures.style import png_bytes
from real_tasks.results.comparing.agreement import LocalizerAgreement, localizer_agreement
from real_tasks.vocabulary.types import ModuleId
from tests.unit.synthetic_results import score_rows, selected_rows

SCORES = score_rows(4, 6)
SELECTED = selected_rows(SCORES, 5)


def effect_rows(seed: int = 0, kind: str = "head") -> list[dict[str, Any]]:
    """A causal effect for each head and fold, unlike REAL's scores."""
    rng = np.random.default_rng(seed)
    return [
        row | {"localizer": "causal", "module_kind": kind, "score": rng.normal(), "roc_auc": None}
        for row in SCORES
        if row["localizer"] == "real" and row["seed"] == 0
    ]


def agreement() -> LocalizerAgreement:
    found = localizer_agreement([*SCORES, *effect_rows()], ("real", "causal"))
    assert found is not None
    return found


def test_every_module_is_one_point_at_its_score_and_its_effect() -> None:
    found = agreement()
    figure = read_out_against_effect(found, selected_shares(SELECTED, "real"))
    points = np.concatenate([series.get_offsets() for series in figure.axes[0].collections])
    expected = [(found.first[module], found.second[module]) for module in found.first]
    assert points.shape == (24, 2)
    assert np.allclose(sorted(points.tolist()), sorted(expected))


def test_selected_modules_are_told_apart_by_shape_and_colour() -> None:
    found = agreement()
    shares = {ModuleId("head", 3, 5): 1.0, ModuleId("head", 0, 0): 0.5}
    axes = read_out_against_effect(found, shares).axes[0]
    series = {item.get_label(): item for item in axes.collections}
    for label, module in (("every fold", (3, 5)), ("in some", (0, 0))):
        (drawn,) = [item for name, item in series.items() if label in name]
        place = ModuleId("head", *module)
        assert drawn.get_offsets().tolist() == [[found.first[place], found.second[place]]]
    assert len(series["never selected"].get_offsets()) == 22
    assert len({tuple(item.get_facecolor()[0]) for item in series.values()}) == 3


def test_the_title_has_the_rank_correlation_and_its_interval() -> None:
    found = agreement()
    axes = [list(scores.values()) for scores in (found.first, found.second)]
    rho = spearmanr(*axes).statistic
    title = read_out_against_effect(found, {}).get_suptitle().replace("\n", " ")
    interval = f"[{found.mean.low:.2f}, {found.mean.high:.2f}]".replace("-", "−")
    assert f"Spearman {rho:.2f}".replace("-", "−") + f" {interval}" in title
    assert "REAL against causal effects, 24 heads" in title
    flat = replace(found, mean=replace(found.mean, spearman=math.nan, low=math.nan))
    assert "no rank correlation" in read_out_against_effect(flat, {}).get_suptitle()


def test_axes_say_what_they_are_and_in_which_unit() -> None:
    axes = read_out_against_effect(agreement(), {}).axes[0]
    assert "ROC-AUC" in axes.get_xlabel() and "nats" in axes.get_ylabel()


def test_modules_without_both_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="no module has both"):
        read_out_against_effect(replace(agreement(), second={}), {})


def test_the_picture_changes_no_global_setting_and_is_alike_in_every_thread() -> None:
    found, shares = agreement(), selected_shares(SELECTED, "real")
    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(3) as pool:
        drawn = [pool.submit(read_out_against_effect, found, shares) for _ in range(3)]
        assert len({png_bytes(future.result()) for future in drawn}) == 1
    assert dict(matplotlib.rcParams) == before


def test_shares_count_folds_and_seeds() -> None:
    shares = selected_shares(SELECTED, "real")
    counted: dict[ModuleId, int] = {}
    for row in SELECTED:
        if row["method"] == "real":
            module = ModuleId("head", row["layer"], row["head"])
            counted[module] = counted.get(module, 0) + 1
    assert shares == {module: count / 4 for module, count in counted.items()}
    assert selected_shares(SELECTED, "nobody") == {}


def test_the_gallery_draws_it_where_the_modules_have_effects() -> None:
    data = GalleryData(module_scores=[*SCORES, *effect_rows()], selected=SELECTED)
    pictures = {picture.name: picture for picture in draw_gallery(data)}
    assert "Spearman" in pictures["read_out_against_effect"].alt
    assert "scores_causal" in pictures
    without = GalleryData(module_scores=SCORES, selected=SELECTED)
    assert "read_out_against_effect" not in {p.name for p in draw_gallery(without)}
