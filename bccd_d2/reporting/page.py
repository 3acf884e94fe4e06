"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bccd_d2 import __version__
from bccd_d2.evaluation.average_precision import AveragePrecision
from bccd_d2.evaluation.bootstrap import Interval
from bccd_d2.evaluation.evaluate import HEADLINE, Evaluation
from bccd_d2.evaluation.options import ALL_CLASSES, REGIONS
from bccd_d2.evaluation.taxonomy import BORDER
from bccd_d2.reporting.bins import BIN_COLORS
from bccd_d2.reporting.document import page_environment
from bccd_d2.reporting.overlays import Shown
from bccd_d2.reporting.part import EvaluatedPart
from bccd_d2.reporting.wording import BIN_WORDS, MEASURES, figure, percent, summary_sentences


@dataclass(frozen=True)
class PagePart:
    """One part on the page.

    Attributes:
        part: with its figures.
        charts: title and data URI of each figure.
        shown: the images to click through.
    """

    part: EvaluatedPart
    charts: Sequence[tuple[str, str]]
    shown: Sequence[Shown]


def render_page(parts: Sequence[PagePart], title: str, config: str | None = None) -> str:
    """Render the page.

    Args:
        parts: at least one; the last is what the summary speaks of, the others are tables and figures beside it.
        title: what was evaluated.
        config: of the model, shown as it is.

    Returns:
        An HTML document that refers to no other file.
    """
    environment = page_environment("bccd_d2.reporting")
    environment.filters.update(figure=figure, percent=percent, markup=Markup)
    main = parts[-1].part
    return environment.get_template("report.html").render(
        title=title,
        version=__version__,
        main=main,
        summary=summary_sentences(main.evaluation),
        tiles=_tiles(main.evaluation),
        headline=HEADLINE,
        rows=[row for page_part in parts for row in _headline_rows(page_part.part)],
        parts=parts,
        findings={p.part.key: _findings(p.part.evaluation) for p in parts},
        class_rows={p.part.key: _class_rows(p.part.evaluation) for p in parts},
        precision_rows={p.part.key: _precision_rows(p.part.evaluation) for p in parts},
        bins=BIN_WORDS,
        colors=BIN_COLORS,
        measures=MEASURES,
        options=_options(main.evaluation),
        config=config,
    )


def _tiles(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Number and words, for those who read no further."""
    found = evaluation.instances["all"][ALL_CLASSES]
    inside = evaluation.instances["interior"][ALL_CLASSES]
    counts = evaluation.counts["all"][ALL_CLASSES]
    return [
        (
            percent(found.recall),
            f"of the annotated cells are found ({percent(inside.recall)} away from the border)",
        ),
        (
            percent(found.precision),
            f"of the outlines are annotated cells ({percent(inside.precision)} away from the border)",
        ),
        (figure(found.sq, 2), "mean overlap (IoU) of an outline with the cell that it matches"),
        (percent(counts.mean_relative_error), "off is the count of cells on an image, on average"),
        (figure(evaluation.intervals["all"]["AP"].value, 2), "mask AP, as COCO defines it"),
    ]


def _headline_rows(part: EvaluatedPart) -> list[tuple[str, list[Interval | None]]]:
    rows = []
    for region in REGIONS:
        found = part.evaluation.intervals[region]
        title = part.name if region == "all" else f"{part.name}, {region}"
        rows.append((title, [found.get(name) for name in HEADLINE]))
    return rows


def _findings(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The error bins that hold something, the costliest first, the border last."""
    found = [
        {"bin": name, "words": words, "found": evaluation.errors.bins[name]}
        for name, words in BIN_WORDS.items()
        if evaluation.errors.bins[name].true_cells + evaluation.errors.bins[name].predictions
    ]
    return sorted(
        found, key=lambda f: (f["bin"] == BORDER, -(f["found"].AP50_gain or 0), -f["found"].true_cells)
    )


def _class_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    names = [ALL_CLASSES, *(evaluation.class_names if len(evaluation.class_names) > 1 else [])]
    masks = evaluation.average_precision["segm"]["all"]
    return [
        {
            "name": name,
            "metrics": evaluation.instances["all"][name],
            "precision": masks.overall if name == ALL_CLASSES else masks.by_class[name],
            "counts": evaluation.counts["all"][name],
        }
        for name in names
    ]


def _precision_rows(evaluation: Evaluation) -> list[tuple[str, AveragePrecision, AveragePrecision]]:
    """What cells, their mask and their box precision."""
    masks, boxes = evaluation.average_precision["segm"], evaluation.average_precision["bbox"]
    rows = [(name, masks[name].overall, boxes[name].overall) for name in REGIONS]
    sizes = masks["all"].by_size
    return rows + [(name, sizes[name], boxes["all"].by_size[name]) for name in sizes]


def _options(evaluation: Evaluation) -> Mapping[str, str]:
    options = evaluation.options
    small, large = options.size_edges
    return {
        "Score threshold": f"{options.score_threshold:g} (counts, F1, PQ, error bins; AP and curves take all)",
        "Detections": f"at most {options.max_detections} an image",
        "Sizes": f"small below {small:g} px across, large above {large:g} px",
        "Border": f"a cell touches it within {options.border_margin} px"
        if options.border_margin
        else "a cell touches it with its outermost pixels",
        "Resamples": f"{options.bootstrap_samples} for each interval, seed {options.seed}",
    }
