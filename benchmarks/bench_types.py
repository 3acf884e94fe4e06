"""What colour, blur and masks do to a classifier of cell types, and its time per cell on one core.

The validation crops of its training are changed as another camera, stain or focus would; the classifier stays as it
is. Masks are those of the shipped model, which finds the cells; they are of the prediction alone, since the training
was without. Blur, noise and half resolution are at the resolution of the crops, of 53 pixels per red cell as shipped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

# isort: split
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.cell_types.classifier import TypeClassifier, group_probabilities, load_classifier
from bccd_d2.cell_types.crops import TypeCrops, cut_crop, middle, split_by_image
from bccd_d2.cell_types.metrics import measure_types
from bccd_d2.cell_types.training import TypeTraining
from bccd_d2.commands import run_command
from bccd_d2.inference.model_files import WEIGHTS_FOLDER, find_model
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.io.images import read_image
from bccd_d2.io.sources import ArraySource

Crop = NDArray[np.uint8]  # (side, side, 3) BGR, or N of them


def clipped(levels: NDArray[np.floating]) -> Crop:
    """Rounded."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def hue(crop: Crop, degrees: int) -> Crop:
    """All hues turned."""
    hsv = cv2.cvtColor(crop, cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + degrees // 2) % 180  # OpenCV's hues are half degrees
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)


def jpeg(crop: Crop) -> Crop:
    """Compressed with quality 30."""
    return np.asarray(
        cv2.imdecode(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], 1), np.uint8
    )


def half_resolution(crop: Crop) -> Crop:
    """Half as many pixels a side, enlarged again."""
    small = cv2.resize(crop, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, crop.shape[:2]), np.uint8)


CHANGES: dict[str, Callable[[Crop], Crop]] = {
    "none": lambda crop: crop,
    "white balance: red x 1.15, blue x 0.85": lambda crop: clipped(crop * [0.85, 1, 1.15]),
    "white balance: red x 0.85, blue x 1.15": lambda crop: clipped(crop * [1.15, 1, 0.85]),
    "darker: x 0.7": lambda crop: clipped(crop * 0.7),
    "hue + 20 degrees": lambda crop: hue(crop, 20),
    "hue - 20 degrees": lambda crop: hue(crop, -20),
    "hue + 60 degrees": lambda crop: hue(crop, 60),
    "blur, sigma 1": lambda crop: np.asarray(cv2.GaussianBlur(crop, (0, 0), 1), np.uint8),
    "blur, sigma 2": lambda crop: np.asarray(cv2.GaussianBlur(crop, (0, 0), 2), np.uint8),
    "half resolution": half_resolution,
    "JPEG, quality 30": jpeg,
    "noise, 10 grey levels": lambda crop: clipped(crop + np.random.default_rng(0).normal(0, 10, crop.shape)),
}


def masked_crops(crops: TypeCrops, training: TypeTraining, folder: Path) -> tuple[NDArray[np.int64], Crop]:
    """Indices of the crops whose cell the shipped model finds, and these on the median colour of the background."""
    model, diameter = find_model(), float(training.data["diameter_px"])
    finder = BCCDPredictor(model.config, model.weights, PredictionOptions(diameter=diameter), device="cpu")
    found, parts = [], []
    for name in tqdm(np.unique(crops.images), desc="masks", unit="image"):
        image = read_image(folder / name)
        cells = finder.predict_source(ArraySource(image))
        masks = list(cells.full_masks())
        background = np.median(image[~np.any([np.zeros(image.shape[:2], bool), *masks], axis=0)], axis=0)
        for index in np.flatnonzero(crops.images == name):
            x, y = crops.centres[index]
            mask = next((mask for mask in masks if mask[int(y), int(x)]), None)
            if mask is not None:
                alone = ArraySource(np.where(mask[..., None], image, background).astype(np.uint8))
                parts.append(cut_crop(alone, x, y, training.crop_diameters * diameter, training.crop_size))
                found.append(index)
    return np.array(found, np.int64), np.array(parts)


def measure(classifier: TypeClassifier, crops: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[float]:
    """Macro F1 of all types and of the reported ones, calibration error of these, share of ``other``."""
    card = classifier.card
    probabilities = classifier.probabilities(crops)
    grouped = group_probabilities(card, probabilities)
    groups = np.array([card.reported.index(card.groups.get(name, name)) for name in card.types])
    reported = measure_types(grouped, groups[labels])
    other = float((grouped.max(axis=1) < card.threshold).mean())
    return [measure_types(probabilities, labels).macro_f1, reported.macro_f1, reported.ece, other]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config-file", type=Path, required=True, metavar="FILE", help="one of configs/types"
    )
    parser.add_argument(
        "--data-root", type=Path, required=True, metavar="DIR", help="parent of the data sets"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="classifier (default: the shipped one)")
    parser.add_argument("--views", type=int, choices=(1, 8), help="in place of the card's; 1 is faster")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    training = TypeTraining.read(given.config_file)
    classifier = load_classifier(given.weights or WEIGHTS_FOLDER / f"{training.name}.safetensors")
    classifier.card = replace(classifier.card, views=given.views or classifier.card.views)
    crops = training.read_crops(given.data_root)
    crops = crops[split_by_image(crops, training.validation_share, training.seed)]
    plain = middle(crops.pixels, training.crop_size)
    rows = []
    for name, change in tqdm(CHANGES.items(), desc="changes", unit="change"):
        changed = np.stack([change(crop) for crop in plain])
        started = time.process_time()
        rows.append([name, *measure(classifier, changed, crops.labels)])
        seconds = time.process_time() - started
    points = training.data.get("points")
    folder = given.data_root / (f"{points}/images" if points else training.data["folders"])
    found, masked = masked_crops(crops, training, folder)
    labels = crops.labels[found]
    rows.append(
        [f"none, the {len(found)} cells that the model finds", *measure(classifier, plain[found], labels)]
    )
    rows.append(["these with their masks alone", *measure(classifier, masked, labels)])
    headers = ["change", "macro F1, all types", "macro F1, reported", "calibration error", "share of other"]
    print(
        f"{training.name}: {len(crops)} validation crops, {1e3 * seconds / len(crops):.1f} ms of one core per cell"
    )
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=".3f"))


if __name__ == "__main__":
    run_command(main)
