"""Adapts a classifier of cell types to a user's own cells: a folder of crops per type, or a corrected ``cells.csv``."""

from __future__ import annotations

import copy
import csv
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from bccd_d2.cell_types.classifier import (
    OTHER,
    TypeCard,
    TypeClassifier,
    group_probabilities,
    load_classifier,
    save_classifier,
)
from bccd_d2.cell_types.crops import MARGIN, TypeCrops, cut_crop, middle, read_type_folders
from bccd_d2.cell_types.metrics import TypeMetrics, measure_types
from bccd_d2.cell_types.training import TypeResult, TypeTraining, train_types
from bccd_d2.cell_types.typer import typical_red_cell
from bccd_d2.errors import InputError
from bccd_d2.files import read_lines
from bccd_d2.io.cells_table import COUNTS, CellRow, read_cells
from bccd_d2.io.find_images import SUFFIXES, find_images, is_clutter, report_passed_by
from bccd_d2.io.images import open_source, page_count, page_name
from bccd_d2.modeling.weights import join_rows
from bccd_d2.structures.cell_kinds import kind_of
from bccd_d2.structures.names import match_images

_logger = logging.getLogger(__name__)
_FEWEST_IMAGES = 3  # of fewer, cells are held back and not images
_STEPS, _BATCH = 200, 16
_COLUMNS = ("image", "class", "type", "x_px", "y_px", "equivalent_diameter_px", "touches_border")


@dataclass(frozen=True)
class TypeAdaptation:
    """An adapted classifier, and how good it and the one that it started from are on the held-back cells."""

    result: TypeResult
    weights: Path
    names: Sequence[str]  # types by index in the metrics: those of both, as they are reported
    known: frozenset[str]  # types that the start has
    before: TypeMetrics
    after: TypeMetrics
    kept_start: bool  # the adapted classifier has the same types and was worse, so the folder holds the start

    def table(self) -> str:
        """The figures as a table in Markdown; a type that the start does not have counts as 0 in its macro F1."""
        number = self.after.confusion.sum(axis=1)
        first, last = self.before, self.after
        rows = [
            ("accuracy", f"{first.accuracy:.3f}", last.accuracy),
            ("macro F1", f"{first.macro_f1:.3f}", last.macro_f1),
            ("expected calibration error", f"{first.ece:.3f}", last.ece),
        ]
        for index in np.flatnonzero(number).tolist():
            name = self.names[index]
            before = f"{first.f1[index]:.3f}" if name in self.known else "no such type"
            rows.append((f"F1 of {name} ({number[index]})", before, last.f1[index]))
        head = [f"{number.sum()} held-back cells", "before", "after"]
        return tabulate(rows, head, tablefmt="pipe", floatfmt=".3f")


def adapt_types(
    own: Path,
    output: Path,
    start: Path,
    *,
    images: Path | None = None,
    diameter_px: float | None = None,
    options: Sequence[str] = (),
    device: str = "cpu",
) -> TypeAdaptation:
    """Train a classifier further on cells whose types a user has said, and compare it with what it was.

    ``own`` is a folder with one folder of crops per type, in which a red cell is ``diameter_px`` wide, or a
    ``cells.csv`` of the prediction with its column ``type`` corrected, whose ``images`` are in a folder; there
    ``diameter_px`` replaces what the table says of the magnification. ``start`` is the ``.safetensors`` file of a
    classifier. ``options`` are keys and values of ``configs/types``, such as ``epochs 60``. Raises InputError for bad
    input, before the training. Where types are the start's and the adapted classifier is worse on the held-back cells,
    ``output`` gets the start.
    """
    weights = output / start.name
    if weights.resolve() == start.resolve():
        raise InputError(f"--output {output}: holds the classifier to start from; expected another folder")
    if diameter_px is not None and not diameter_px > 0:
        raise InputError(f"--diameter: expected a number above 0, found {diameter_px}")
    classifier = load_classifier(start, device)
    card = classifier.card
    if own.is_dir():
        crops, types = _read_folders(own, card, diameter_px)
    else:
        crops, types = _read_table(own, images, card, diameter_px)
    crops, types = _without_rare(crops, types, own)
    new_card = _joined_card(card, types)
    crops = replace(crops, labels=np.array([new_card.types.index(name) for name in types])[crops.labels])
    training = _training(start, new_card, card, crops, own, options)
    result = train_types(training, crops, None, device, start=start_from(classifier, new_card))
    found = _compare(classifier, result, weights)
    save_classifier(classifier if found.kept_start else result.classifier, output, start.stem)
    return found


def _read_folders(folder: Path, card: TypeCard, diameter_px: float | None) -> tuple[TypeCrops, list[str]]:
    if diameter_px is None:
        raise InputError(
            "--diameter: expected the width of a red cell in the crops, in pixels; it is not given"
        )
    types = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_clutter(path.name))
    if len(types) < 2 or OTHER in types:
        found = ", ".join(types) or "none"
        raise InputError(
            f"{folder}: expected two or more folders, one per type, none called {OTHER}; found {found}"
        )
    if loose := sum(path.suffix.lower() in SUFFIXES for path in folder.iterdir()):
        _logger.warning("%s: %d images are in no folder of a type, and are left out", folder, loose)
    report_passed_by((path.relative_to(folder) for path in folder.glob("*/*")), SUFFIXES, str(folder))
    side = card.crop_diameters * diameter_px
    return read_type_folders(folder, {name: name for name in types}, side, card.crop_size), types


def _read_table(
    table: Path, folder: Path | None, card: TypeCard, diameter_px: float | None
) -> tuple[TypeCrops, list[str]]:
    """Crops of the cells of the card's kind, and the names of their types. Cells without a type are left out."""
    if folder is None:
        raise InputError(f"--images: expected the folder of the images of {table}; it is not given")
    rows: dict[str, list[CellRow]] = {}
    expected = "a folder of crops per type, or cells.csv of tools/predict.py --types"
    for row in read_cells(read_lines(table, expected), str(table), _COLUMNS):
        rows.setdefault(row["image"], []).append(row)
    places = _places(folder)
    names = match_images(rows, places, where=str(table), required=False)
    left_out: Counter[str] = Counter()
    if missing := [name for name in rows if name not in names]:
        few = ", ".join(missing[:5]) + ", ..." * (len(missing) > 5)
        left_out[f"of {len(missing)} images that are not in {folder} ({few})"] = sum(
            len(rows[m]) for m in missing
        )
    estimated = _estimated_diameters(table.with_name(COUNTS))
    pixels, types, files, centres = [], [], [], []
    for name, place in names.items():
        diameter = diameter_px or _diameter(rows[name], estimated.get(name))
        path, page = places[place]
        with open_source(path, page=page) as source:
            for row in rows[name]:
                x, y = row["x_px"], row["y_px"]
                if not (0 <= x <= source.width and 0 <= y <= source.height):
                    shape = f"{source.width}x{source.height}"
                    raise InputError(f"{row['where']}: a cell at {x:g}, {y:g}, but {path} has {shape} pixels")
                if reason := _reason(row, card):
                    left_out[reason] += 1
                elif diameter is None:
                    left_out[f"of {name}, whose cells are too few to know their size; give --diameter"] += 1
                else:
                    side, size = card.crop_diameters * diameter * MARGIN, round(card.crop_size * MARGIN)
                    pixels.append(cut_crop(source, x, y, side, size))
                    # The finer type where the classifier knows it: those are what it tells apart.
                    finer = card.groups.get(row.get("subtype", "")) == row["type"]
                    types.append(row["subtype"] if finer else row["type"])
                    files.append(place)
                    centres.append((x, y))
    for reason, number in left_out.items():
        _logger.warning("%s: %d cells %s are left out", table, number, reason)
    if not types:
        raise InputError(f"{table}: expected {card.kind} cells with a type in images of {folder}, found none")
    # A group and its members cannot be told apart: of a group that some cells have no finer type of, none has one.
    types = [group if (group := card.groups.get(name)) in types else name for name in types]
    if len(names) < _FEWEST_IMAGES:
        _logger.warning(
            "%d images: cells of them are held back, which flatters; correct three or more", len(names)
        )
        files = [f"{file}#{number}" for number, file in enumerate(files)]
    known = sorted(set(types))
    labels = np.array([known.index(name) for name in types], np.int64)
    return TypeCrops(np.array(pixels), labels, np.array(files), np.array(centres)), known


def _places(folder: Path) -> dict[str, tuple[Path, int]]:
    """Path and page of each image below a folder, by the name that the prediction gives it."""
    if not folder.is_dir():
        raise InputError(f"--images: {folder} is not there; expected the folder of the images")
    places = {}
    for path, name in find_images([folder]):
        pages = page_count(Path(path))
        for page in range(pages):
            places[page_name(name, page, pages)] = (Path(path), page)
    return places


def _estimated_diameters(counts: Path) -> dict[str, float]:
    """Diameter of red cells that the prediction took, by image, from the table beside ``cells.csv``."""
    if not counts.is_file():
        return {}
    rows = csv.DictReader(read_lines(counts, "a table of tools/predict.py"))
    return {row["image"]: float(row["diameter_px"]) for row in rows if row.get("diameter_px")}


def _diameter(rows: Sequence[CellRow], estimated: float | None) -> float | None:
    """Red-cell diameter of an image as :func:`bccd_d2.cell_types.typer.red_cell_diameter` has it."""
    diameters = np.array([row["equivalent_diameter_px"] for row in rows])
    microns = np.array([row.get("equivalent_diameter_um", np.nan) for row in rows])
    cut = np.array([row["touches_border"] for row in rows])
    per_pixel = float(np.median(microns) / np.median(diameters)) if np.isfinite(microns).all() else None
    names = sorted({row["class"] for row in rows})
    classes = np.array([names.index(row["class"]) for row in rows])
    return typical_red_cell(diameters, classes, cut, names, per_pixel, estimated)


def _reason(row: CellRow, card: TypeCard) -> str:
    """Why a cell is not used; empty if it is."""
    if kind_of(row["class"]) != card.kind:
        return f"that are no {card.kind} cells"
    return {"": "without a type", OTHER: f"of type {OTHER}"}.get(row["type"], "")


def _without_rare(crops: TypeCrops, types: list[str], where: Path) -> tuple[TypeCrops, list[str]]:
    """Without types of a single cell, which cannot be both trained on and held back."""
    number = np.bincount(crops.labels, minlength=len(types))
    for index in np.flatnonzero(number == 1):
        _logger.warning("%s: 1 cell of type %s is left out: a type needs two or more", where, types[index])
    kept = np.flatnonzero(number > 1)
    if len(kept) < 2:
        found = ", ".join(f"{count} {name}" for count, name in zip(number, types))
        raise InputError(f"{where}: expected two or more types of two or more cells each, found {found}")
    crops = crops[np.isin(crops.labels, kept)]
    return replace(crops, labels=np.searchsorted(kept, crops.labels)), [types[index] for index in kept]


def _joined_card(card: TypeCard, types: Sequence[str]) -> TypeCard:
    """The start's types if it has all of them, else the user's alone."""
    if set(types) <= set(card.types):
        return replace(card, about={})
    return replace(card, types=tuple(types), groups={}, about={})


def _training(
    start: Path, card: TypeCard, old: TypeCard, crops: TypeCrops, own: Path, options: Sequence[str]
) -> TypeTraining:
    epochs = int(np.clip(_STEPS * _BATCH / len(crops), 4, 60))
    training = TypeTraining(
        name=start.stem,
        kind=card.kind,
        data={
            "own": own.name,
            "start": {"name": start.stem, **old.about.get("data", {})},
            "types": {name: name for name in card.types},
        },
        crop_diameters=card.crop_diameters,
        crop_size=card.crop_size,
        groups=card.groups,
        backbone=card.backbone,
        views=card.views,
        scale_jitter=old.about.get("training", {}).get("scale_jitter", 0.1),
        epochs=epochs,
        frozen_epochs=epochs // 4,
        batch_size=_BATCH,
        learning_rate=5e-4,
    )
    kinds = {entry.name: type(getattr(training, entry.name)) for entry in fields(training)}
    known = [
        name
        for name, kind in kinds.items()
        if kind in (int, float) and name not in ("crop_size", "crop_diameters", "views")
    ]
    if len(options) % 2 or not set(options[::2]) <= set(known):
        raise InputError(f"options {' '.join(options)}: expected KEY VALUE with keys of {', '.join(known)}")
    try:
        return replace(
            training, **{key: kinds[key](value) for key, value in zip(options[::2], options[1::2])}
        )
    except ValueError as error:
        raise InputError(f"options {' '.join(options)}: {error}") from error


def start_from(start: TypeClassifier, card: TypeCard) -> TypeClassifier:
    """A classifier of the types of ``card`` with the weights of another.

    The last layer's rows of types and groups of the same name stay; other types get the mean of all rows.
    """
    classifier = copy.deepcopy(start)
    classifier.card = card
    head = start.head
    names, groups = start.card.types, start.card.groups
    rows = [[k for k, old in enumerate(names) if name in (old, groups.get(old))] for name in card.types]
    classifier.network.reset_classifier(len(card.types))  # type: ignore[operator]
    classifier.to(head.weight.device)
    with torch.no_grad():
        for new, old in ((classifier.head.weight, head.weight), (classifier.head.bias, head.bias)):
            new.copy_(join_rows(old, rows))
    return classifier


def _compare(start: TypeClassifier, result: TypeResult, weights: Path) -> TypeAdaptation:
    """Types as the adapted classifier reports them; those that it does not have keep the start's names."""
    card, old = result.classifier.card, start.card
    common = [name if name in card.types else old.groups.get(name, name) for name in old.types]
    reported = [card.groups.get(name, name) for name in common]
    names = list(dict.fromkeys([*card.reported, *reported]))
    before = np.zeros((len(result.validation), len(names)))
    probabilities = start.probabilities(middle(result.validation.pixels, old.crop_size))
    for column, name in zip(probabilities.T, reported):
        before[:, names.index(name)] += column
    after = np.zeros_like(before)
    after[:, : len(card.reported)] = group_probabilities(card, result.probabilities)
    truth = np.array([names.index(card.groups.get(name, name)) for name in card.types])[
        result.validation.labels
    ]
    first, last = (measure_types(found, truth) for found in (before, after))
    kept_start = card.types == old.types and last.macro_f1 < first.macro_f1
    return TypeAdaptation(result, weights, names, frozenset(reported), first, last, kept_start)
