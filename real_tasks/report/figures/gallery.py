"""All pictures of an experiment, drawn from its rows; those without data are left out."""

from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.figure import Figure

from real_tasks.evaluation.labels import headline_metrics, metric_label
from real_tasks.localizers import entry_of
from real_tasks.localizers.labels import method_label, ordered_methods
from real_tasks.report.figures.agreement import score_agreement
from real_tasks.report.figures.causality import read_out_against_effect, selected_shares
from real_tasks.report.figures.codes import codebook_use
from real_tasks.report.figures.differences import difference_forest
from real_tasks.report.figures.effect_against_kl import TUNED, effect_against_kl, effect_metrics
from real_tasks.report.figures.gallery_data import GalleryData
from real_tasks.report.figures.grids import (
    ScoreMap,
    extreme_modules,
    grid_shape,
    mean_map,
    score_maps,
    selection_maps,
)
from real_tasks.report.figures.heads import score_heatmap
from real_tasks.report.figures.latents import tsne_panels
from real_tasks.report.figures.picture import Picture
from real_tasks.report.figures.selections import overlap_sentence, selection_map
from real_tasks.report.figures.style import png_bytes
from real_tasks.results.comparing.agreement import localizer_agreement
from real_tasks.results.findings import CAUSAL, causal_agreement
from real_tasks.results.scores import RunKey


def draw_gallery(data: GalleryData) -> tuple[Picture, ...]:
    """Draw every picture that there is data for, in the order of the report."""
    families = (
        _effects,
        _differences,
        _heatmaps,
        _selection,
        _agreement,
        _causality,
        _latents,
        _codes,
    )
    return tuple(picture for family in families for picture in family(data))


def _picture(name: str, title: str, caption: str, alt: str, figure: Figure) -> Picture:
    return Picture(name, title, caption, alt, png_bytes(figure))


def _effects(data: GalleryData) -> Iterator[Picture]:
    metrics = effect_metrics(data.curves)
    if not metrics:
        return
    figure = effect_against_kl(
        data.curves,
        unsteered=data.unsteered,
        max_kl=data.max_kl,
        tuned=data.tuned,
        matched_kl=data.matched_kl,
        questions=data.curve_questions,
        main=data.main,
    )
    methods = ordered_methods(row["method"] for row in data.curves)
    tested = any(row["dose"] == TUNED for row in data.curves)
    points = (
        "Points are the doses that were tested: as tuned, and at the KL of comparison. The others "
        "of a race were asked of few questions; the named query gain-against-kl has them."
        if tested
        else "Each point is one alpha at the method's K; left of the solid line a setting is "
        "within the cap on KL."
    )
    yield _picture(
        "effect_against_kl",
        "Effect at equal side effect",
        "The fair comparison: alpha is not the same dose for two methods, so read up and down at "
        "one KL. Higher at the same KL is better. Lines begin at the unsteered model; means over "
        f"folds and seeds along both axes. {points}",
        f"Curves of {', '.join(map(metric_label, metrics))} against KL on neutral text for "
        f"{', '.join(method_label(name, data.main) for name in methods)}.",
        figure,
    )


def _differences(data: GalleryData) -> Iterator[Picture]:
    mine = [row for row in data.comparisons if row["method"] == data.main]
    if headline_metrics(row["metric"] for row in mine):
        yield _picture(
            "differences",
            "Differences between methods",
            "Each difference with its bootstrap interval. A hollow marker is a tie: the interval "
            "includes 0.",
            "Forest plot of differences between methods; the same numbers are in the table of "
            "comparisons.",
            difference_forest(mine),
        )


def _maps(data: GalleryData, localizer: str) -> dict[RunKey, ScoreMap]:
    column = entry_of(localizer).meaning.column
    maps = score_maps(data.module_scores, localizer, grid_shape(data.module_scores), column)
    return {run: scores for run, scores in maps.items() if np.isfinite(scores).any()}


def _heatmaps(data: GalleryData) -> Iterator[Picture]:
    for localizer in ordered_methods(row["localizer"] for row in data.module_scores):
        if maps := _maps(data, localizer):
            yield _heatmap(data, localizer, maps)


def _heatmap(data: GalleryData, localizer: str, maps: Mapping[RunKey, ScoreMap]) -> Picture:
    meaning = entry_of(localizer).meaning
    mean = mean_map(maps)
    selected = selection_maps(data.selected, localizer, mean.shape)
    (layer, head), _ = extreme_modules(mean)
    found = f"highest {mean[layer, head]:.2f} at layer {layer}, head {head}"
    name, what = method_label(localizer), meaning.short
    return _picture(
        f"scores_{localizer}",
        f"Scores of {name}",
        f"Mean of {len(maps)} folds and seeds. Outlined modules are selected for steering, dashed "
        "ones in some folds and seeds only.",
        f"Map of {what} over layers and heads, {found}.",
        score_heatmap(
            mean,
            label=meaning.label,
            title=f"{name}: {what}, mean of {len(maps)} folds and seeds; {found}",
            selected=mean_map(selected) if selected else None,
            center=meaning.center,
        ),
    )


def _selection(data: GalleryData) -> Iterator[Picture]:
    if not data.selected:
        return
    shape = grid_shape([*data.selected, *data.module_scores])
    first, second = (selection_maps(data.selected, name, shape) for name in (data.main, data.rival))
    if first and second:
        names = (method_label(data.main), method_label(data.rival))
        yield _picture(
            "selected_modules",
            f"Selected by {names[0]} and by {names[1]}",
            "Split cells: the upper left half belongs to the first method, the lower right half to "
            "the second; full colour is selected in every fold and seed.",
            f"Map of selected modules. {overlap_sentence(first, second, names)}.",
            selection_map(first, second, names=names),
        )


def _agreement(data: GalleryData) -> Iterator[Picture]:
    first = _maps(data, data.main) if data.module_scores else {}
    if not first:
        return
    names = (method_label(data.main), method_label(data.rival))
    yield _picture(
        "score_agreement",
        "Do scores agree?",
        "Left: each point is a module, scored by two localizers. Right: rank correlation of the "
        "scores between folds and seeds; low values mean that a ranking is partly chance.",
        f"Scatter of {names[0]} against {names[1]} scores, and a matrix of rank correlations.",
        score_agreement(
            first,
            _maps(data, data.rival),
            names=names,
            labels=(entry_of(data.main).meaning.short, entry_of(data.rival).meaning.short),
        ),
    )


def _causality(data: GalleryData) -> Iterator[Picture]:
    found = localizer_agreement(data.module_scores, (data.main, CAUSAL))
    if found is None or data.main == CAUSAL:
        return
    name = method_label(data.main)
    yield _picture(
        "read_out_against_effect",
        "Does what can be read out also steer?",
        f"Each point is a module. To the right: {name} tells aligned from violating answers by it. "
        "Upwards: steered alone, it brings the aligned answers of validation questions out. "
        "Averages over folds and seeds; the interval is a bootstrap over modules.",
        causal_agreement(data.module_scores, data.main)
        or f"Scatter of {name}'s scores against the modules' own effects.",
        read_out_against_effect(found, selected_shares(data.selected, data.main), data.main),
    )


def _latents(data: GalleryData) -> Iterator[Picture]:
    if data.embeddings:
        yield _picture(
            "tsne",
            "Best and worst head",
            "t-SNE keeps neighbours together; distances and the size of clusters mean nothing. "
            "Aligned and violating answers apart in the best head, mixed in the worst, is what a "
            "good score should look like.",
            "Scatter plots of aligned and violating answers: "
            + "; ".join(embedding.title for embedding in data.embeddings),
            tsne_panels(
                data.embeddings,
                title="t-SNE of the best and the worst module",
                samples=data.embedded_samples,
            ),
        )


def _codes(data: GalleryData) -> Iterator[Picture]:
    if data.codebooks is not None:
        books = data.codebooks
        yield _picture(
            "codebook_use",
            "Use of the codebooks",
            "Perplexity is the effective number of codes in use. A collapsed codebook says little, "
            "and its module's score is not to be trusted.",
            f"Median perplexity {np.median(books.perplexity):.1f} of {books.counts.shape[1]}; "
            f"{int(books.collapsed.sum())} of {len(books.names)} codebooks collapsed.",
            codebook_use(books.counts, books.perplexity, books.collapsed, books.names),
        )
