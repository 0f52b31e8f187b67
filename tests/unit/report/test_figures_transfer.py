import math
from typing import Any

import matplotlib
import numpy as np
import pytest

from real_tasks.report.figures.style import png_bytes
from real_tasks.report.figures.transfer import transfer_matrix, transfer_picture

NAMES = ("truth", "open_mind", "refusal")
GAINS = np.array([[0.30, 0.02, -0.20], [0.10, 0.25, 0.01], [-0.02, 0.00, 0.40]])


def rows(metric: str = "mc1", half: float | None = 0.05) -> list[dict[str, Any]]:
    return [
        {
            "source": NAMES[i],
            "target": NAMES[j],
            "metric": metric,
            "gain": float(gain),
            "low": None if half is None else float(gain) - half,
            "high": None if half is None else float(gain) + half,
        }
        for (i, j), gain in np.ndenumerate(GAINS)
    ]


def test_a_cell_is_the_gain_from_its_row_s_to_its_column_s_behaviour() -> None:
    axes = transfer_matrix(rows(), "mc1").axes[0]
    assert axes.images[0].get_array().data == pytest.approx(GAINS)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["truth", "open mind", "refusal"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["truth", "open mind", "refusal"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("found on", "used on")
    written = [text.get_text() for text in axes.texts]
    assert written[:2] == ["+0.300", "[+0.250, +0.350]"] and "−0.200" in written
    assert written.count("0.000") == 1


def test_the_order_of_rows_does_not_matter_but_for_the_behaviours_order() -> None:
    shuffled = [rows()[i] for i in (0, 3, 6, 8, 4, 1, 2, 5, 7)]
    assert transfer_matrix(shuffled, "mc1").axes[0].images[0].get_array().data == pytest.approx(
        GAINS
    )


def test_no_gain_is_white_and_colours_are_symmetric_around_it() -> None:
    image = transfer_matrix(rows(), "mc1").axes[0].images[0]
    assert image.get_clim() == pytest.approx((-0.4, 0.4))
    assert image.to_rgba(np.array([0.0]))[0][:3] == pytest.approx((0.97, 0.97, 0.97), abs=0.05)


def test_better_is_blue_also_where_less_is_better() -> None:
    for metric, sign in (("mc1", 1.0), ("false_share", -1.0)):
        image = transfer_matrix(rows(metric), metric).axes[0].images[0]
        red, _, blue, _ = image.to_rgba(np.array([0.3 * sign]))[0]
        assert blue > red, metric


def test_only_gains_beyond_their_interval_are_bold_and_counted() -> None:
    figure = transfer_matrix(rows(), "mc1")
    bold = [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    assert bold == ["+0.300", "−0.200", "+0.100", "+0.250", "+0.400"]
    title = figure.get_suptitle().replace("\n", " ")
    assert "transfers that help 1, harm 1, tie 4" in title
    lower = transfer_matrix(rows("false_share"), "false_share").get_suptitle().replace("\n", " ")
    assert "transfers that help 1, harm 1, tie 4" in lower


def test_its_own_behaviour_is_framed_in_every_row() -> None:
    axes = transfer_matrix(rows(), "mc1").axes[0]
    assert [patch.get_xy() for patch in axes.patches] == [(i - 0.5, i - 0.5) for i in range(3)]


def test_without_intervals_nothing_is_called_a_tie() -> None:
    figure = transfer_matrix(rows(half=None), "mc1")
    assert len(figure.axes[0].texts) == 9
    assert "tie" not in figure.get_suptitle()


def test_pairs_that_were_not_measured_are_grey() -> None:
    fewer = [row for row in rows() if (row["source"], row["target"]) != ("truth", "refusal")]
    fewer[0]["gain"] = math.nan
    mask = transfer_matrix(fewer, "mc1").axes[0].images[0].get_array().mask
    assert np.argwhere(mask).tolist() == [[0, 0], [0, 2]]


def test_a_matrix_need_not_be_square() -> None:
    tall = [row for row in rows() if row["target"] != "truth"]
    axes = transfer_matrix(tall, "mc1").axes[0]
    assert axes.images[0].get_array().shape == (3, 2)
    assert [patch.get_xy() for patch in axes.patches] == [(-0.5, 0.5), (0.5, 1.5)]


def test_a_metric_that_is_not_there_or_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="no row about mc2"):
        transfer_matrix(rows(), "mc2")
    with pytest.raises(ValueError, match="mc1 from truth to truth is there twice"):
        transfer_matrix([*rows(), rows()[0]], "mc1")


def test_the_picture_has_words_and_fits_a_page_with_many_behaviours() -> None:
    before = dict(matplotlib.rcParams)
    picture = transfer_picture(rows(), "mc1")
    assert picture.name == "transfer_mc1" and "MC1" in picture.title
    assert "From truth to refusal: −0.200." in picture.alt
    many = [
        {**rows()[0], "source": f"behaviour_{i}", "target": f"behaviour_{j}"}
        for i in range(10)
        for j in range(10)
    ]
    assert transfer_picture(many, "mc1").shown_width < 1200
    assert dict(matplotlib.rcParams) == before


def test_the_label_of_the_scale_is_wrapped_to_the_height_of_a_low_picture() -> None:
    low = [row for row in rows("generation_perplexity") if row["source"] == "truth"]
    figure = transfer_matrix(low, "generation_perplexity")
    png_bytes(figure)  # Lays it out.
    label = figure.axes[1].yaxis.label
    assert "perplexity of answers" in label.get_text()
    extent = label.get_window_extent()
    assert extent.y0 >= 0 and extent.y1 <= figure.bbox.height
