"""What an evaluation can be told, and what a metric can be: a number, or words that say why there is none."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError

Value = float | str
"""A metric in its unit, or :data:`NO_GROUND_TRUTH` or :data:`NO_MATCH`. Never NaN, never -1."""
NO_GROUND_TRUTH = "no ground truth"
NO_MATCH = "no matched cell"
REGIONS = ("all", "interior")
"""``"interior"`` leaves out ground truth that touches the border and predictions there that match no interior cell."""
ALL_CLASSES = "all classes"
"""Name under which the result over all classes stands beside those of each class."""


def mean_value(values: Iterable[Value], otherwise: str = NO_GROUND_TRUTH) -> Value:
    """Mean of those values that are numbers; ``otherwise`` where none is."""
    numbers = [value for value in values if not isinstance(value, str)]
    return float(np.mean(numbers)) if numbers else otherwise


def in_words(value: Value, decimals: int = 3) -> str:
    """A metric as text."""
    return value if isinstance(value, str) else f"{value:.{decimals}f}"


SIZE_NAMES = ("small", "medium", "large")
CROWDING_NAMES = ("touching", "near", "apart")
IOU_THRESHOLDS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
"""COCO's ten, 0.50, 0.55, ..., 0.95."""
FOUND_IOU = 0.5
"""Least mask IoU of a cell that is found, where no range of thresholds is looked at."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Everything a user may set, in the configuration or as an option of ``tools/evaluate.py``.

    What is counted, outlined or binned are predictions with at least ``score_threshold``; average precision, curves and
    calibration look at all. A mask that comes within ``border_margin`` px of the image border touches it.
    """

    max_detections: int = 500  # TEST.DETECTIONS_PER_IMAGE; more are an error
    score_threshold: float = 0.5
    size_edges: tuple[float, float] = (
        40.0,
        130.0,
    )  # TEST.SIZE_EDGES, diameters of discs of the mask's area, native px
    border_margin: int = 0
    crowding_edges: tuple[float, float] = (
        3.0,
        20.0,
    )  # gaps in px up to which a cell is "touching" and "near"
    boundary_tolerance: float = 2.0  # px by which an outline may be off in boundary F1
    bootstrap_samples: int = 1000  # resamples of the images for intervals; 0 for none
    seed: int = 0  # of the resampling

    def __post_init__(self) -> None:
        for key, edges in (("TEST.SIZE_EDGES", self.size_edges), ("crowding edges", self.crowding_edges)):
            if len(edges) != 2 or not 0 <= edges[0] < edges[1]:
                raise InputError(f"{key}: expected two rising numbers of pixels, found {list(edges)}")
        if not 0 <= self.score_threshold <= 1:
            raise InputError(f"score threshold: expected a number in [0, 1], found {self.score_threshold}")
        for key, least, value in (
            ("TEST.DETECTIONS_PER_IMAGE", 1, self.max_detections),
            ("boundary tolerance", 0, self.boundary_tolerance),
            ("border margin", 0, self.border_margin),
            ("bootstrap samples", 0, self.bootstrap_samples),
        ):
            if value < least:
                raise InputError(f"{key}: expected a number from {least} on, found {value}")

    @classmethod
    def from_config(cls, cfg: Any) -> EvaluationOptions:
        """Options of a configuration; with ``SCORE_THRESH_PER_CLASS`` everything that the model outputs counts."""
        return cls(
            max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
            score_threshold=0.0 if cfg.MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS else cls.score_threshold,
            size_edges=tuple(cfg.TEST.SIZE_EDGES),
        )

    def size_areas(self) -> list[tuple[float, float]]:
        """Least and greatest area in px of small, medium and large cells."""
        edges = [0.0, *(np.pi / 4 * np.square(self.size_edges)).tolist(), 1e10]
        return list(itertools.pairwise(edges))

    def size_bins(self, areas: NDArray[np.int64]) -> list[str]:
        """Name of the size bin of each area."""
        edges = [upper for _, upper in self.size_areas()[:-1]]
        return [SIZE_NAMES[i] for i in np.searchsorted(edges, areas)]

    def crowding_bins(self, gaps: Sequence[float] | NDArray[np.float64]) -> list[str]:
        """Name of the crowding bin of each gap in px; infinite for a cell that is alone."""
        return [CROWDING_NAMES[i] for i in np.searchsorted(self.crowding_edges, gaps)]
