"""The types of the cells of an image: white cells and shapes of red ones, each by a classifier of their crops."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bccd_d2.cell_types.classifier import OTHER, TypeClassifier, finest, group_probabilities, load_classifier
from bccd_d2.cell_types.crops import cut_crop
from bccd_d2.errors import InputError
from bccd_d2.io.sources import ImageSource
from bccd_d2.structures.cell_kinds import classes_of, kind_of, red_cell_classes
from bccd_d2.structures.cell_size import RED_CELL_UM, typical_diameter
from bccd_d2.structures.cells import BORDER_MARGIN, Cells

FILES = ("types_white", "types_red")
"""Names of the classifiers in a folder."""
_BATCH = 256


@dataclass(frozen=True)
class CellTypes:
    """Types of the N cells of an image.

    ``names`` are :data:`~bccd_d2.cell_types.classifier.OTHER` where the classifier is not sure and empty where none is
    for the cell's class; ``probabilities`` (N,) float64 are those of the most probable type, calibrated, NaN where the
    name is empty; ``subtypes`` are finer types, as of immature granulocytes, empty where there is none.
    """

    names: Sequence[str]
    probabilities: NDArray[np.float64]
    subtypes: Sequence[str]

    def __getitem__(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> CellTypes:
        """Those of the chosen cells, in the order of the indices."""
        chosen = np.arange(len(self.names))[index]
        names, subtypes = ([texts[k] for k in chosen] for texts in (self.names, self.subtypes))
        return CellTypes(names, self.probabilities[chosen], subtypes)


def find_classifiers(folder: str | Path, class_names: Sequence[str]) -> list[Path]:
    """Classifiers in a folder; an InputError if there is none, or no class of the detector is white or red cells."""
    if not {"red", "white"}.intersection(map(kind_of, class_names)):
        raise InputError(
            f"--types: the model finds {', '.join(class_names) or 'cells without a name'}; expected one with a class "
            "of white cells (such as WBC) or red cells (such as RBC): choose it with --model, --run or --config-file"
        )
    found = [path for name in FILES if (path := Path(folder) / f"{name}.safetensors").is_file()]
    if not found:
        raise InputError(
            f"--types: expected {' or '.join(f'{name}.safetensors' for name in FILES)} in {folder}, found neither; "
            "tools/train_types.py makes them"
        )
    return found


class CellTyper:
    """Gives the cells of an image their types, with one classifier per kind of cell."""

    def __init__(self, classifiers: Sequence[TypeClassifier]) -> None:
        self.classifiers: dict[str | None, TypeClassifier] = {
            classifier.card.kind: classifier for classifier in classifiers
        }
        if len(self.classifiers) < len(classifiers):
            kinds = [classifier.card.kind for classifier in classifiers]
            raise InputError(f"--types: expected one classifier per kind of cell, found {', '.join(kinds)}")

    @classmethod
    def load(cls, paths: Sequence[str | Path], device: str = "cpu") -> CellTyper:
        """Read classifiers; an InputError if a file is not what it should be."""
        return cls([load_classifier(Path(path), device) for path in paths])

    def choices(self, class_name: str) -> dict[str, tuple[str, str]]:
        """Types that a cell of a class can have, see :attr:`TypeCard.choices`; empty where no classifier is for it."""
        classifier = self.classifiers.get(kind_of(class_name))
        return classifier.card.choices if classifier else {}

    def __call__(
        self,
        source: ImageSource,
        cells: Cells,
        class_names: Sequence[str],
        *,
        microns_per_pixel: float | None = None,
        diameter_px: float | None = None,
    ) -> CellTypes:
        """Classify the cells of an image by crops whose size goes by :func:`red_cell_diameter`."""
        names, subtypes = [""] * len(cells), [""] * len(cells)
        types = CellTypes(names, np.full(len(cells), np.nan), subtypes)
        if not len(cells):
            return types
        diameter = red_cell_diameter(cells, class_names, microns_per_pixel, diameter_px)
        if diameter is None:
            logging.getLogger(__name__).warning(
                "%s: too few cells to know their size, so they have no types; give --mpp or --diameter",
                source.name,
            )
            return types
        kinds = [kind_of(name) for name in class_names]
        for kind, classifier in self.classifiers.items():
            chosen = np.flatnonzero([kinds[index] == kind for index in cells.classes])
            for start in range(0, len(chosen), _BATCH):
                batch = chosen[start : start + _BATCH]
                found = _classify(classifier, source, cells[batch], diameter)
                types.probabilities[batch] = found.probabilities
                for index, name, subtype in zip(batch.tolist(), found.names, found.subtypes):
                    names[index], subtypes[index] = name, subtype
        return types


def _classify(classifier: TypeClassifier, source: ImageSource, cells: Cells, diameter_px: float) -> CellTypes:
    card = classifier.card
    side = card.crop_diameters * diameter_px
    middles = (cells.windows[:, :2] + cells.windows[:, 2:]) / 2
    crops = [cut_crop(source, x, y, side, card.crop_size) for x, y in middles.tolist()]
    probabilities = classifier.probabilities(
        np.array(crops, np.uint8).reshape(-1, card.crop_size, card.crop_size, 3)
    )
    grouped = group_probabilities(card, probabilities)
    best = grouped.argmax(axis=1)
    confidence = grouped.max(axis=1)
    sure = confidence >= card.threshold
    subtypes = finest(card, probabilities, best.tolist())
    return CellTypes(
        [card.reported[index] if kept else OTHER for index, kept in zip(best.tolist(), sure)],
        confidence,
        [subtype if kept else "" for subtype, kept in zip(subtypes, sure)],
    )


def red_cell_diameter(
    cells: Cells,
    class_names: Sequence[str],
    microns_per_pixel: float | None = None,
    diameter_px: float | None = None,
) -> float | None:
    """Diameter of a red cell of an image in native pixels, the unit of the size of a crop; ``None`` if not known.

    From the microns per pixel; else ``diameter_px``; else the median over red cells that the border does not cut; else,
    on an image with a white cell and next to no red ones, by the size of white cells.
    """
    return typical_red_cell(
        cells.diameters,
        cells.classes,
        cells.touches_border(BORDER_MARGIN),
        class_names,
        microns_per_pixel,
        diameter_px,
    )


def typical_red_cell(
    diameters: NDArray[np.float64],
    classes: NDArray[np.int64],
    cut: NDArray[np.bool_],
    class_names: Sequence[str],
    microns_per_pixel: float | None,
    diameter_px: float | None,
) -> float | None:
    """:func:`red_cell_diameter` of N cells, as :func:`~bccd_d2.structures.cell_size.typical_diameter` takes them."""
    if microns_per_pixel is not None:
        return RED_CELL_UM / microns_per_pixel
    if diameter_px is not None:
        return diameter_px
    # White cells that a model without red ones finds are no red cells here.
    white = classes_of("white", class_names)
    red = set(red_cell_classes(class_names)).difference(white)
    return typical_diameter(diameters, classes, cut, red, white)
