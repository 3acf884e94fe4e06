"""Writes sets of synthetic smears in the folder layout of the Kaggle set "BCCD Dataset with mask"."""

from __future__ import annotations

import json
import math
import shutil
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bccd_d2.errors import InputError
from bccd_d2.synthetic.slide import CELL_DIAMETER, Variety, check_diameter, draw_slides
from bccd_d2.synthetic.smear import SyntheticSmear, check_size, draw_smear

DATASET_FOLDER = "BCCD Dataset with mask"
BOXES_FILE = "bbbc041_boxes.json"
EXTRAS = ("mask-classes", "instances", "boxes")
CLASS_COLOURS = {"RBC": (255, 0, 0), "WBC": (0, 255, 0), "Platelets": (0, 0, 255)}
"""Colours of the classes in the class-coloured masks, RGB; the background is black."""
TEST_FRACTION = 159 / 1328  # share of the images in ``test``, as in the Kaggle set
_STAGING = ".unfinished"
_JPEG_SHARE = 119 / 1328  # as in the Kaggle set
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class SyntheticSet:
    """What to write."""

    images: int  # number of images
    seed: int = 42  # the same seed and settings give byte-identical files
    width: int = 1600  # of every image, pixels
    height: int = 1200  # of every image, pixels
    test_fraction: float = TEST_FRACTION  # share of the images in ``test``, 0 up to but not including 1
    images_per_slide: int = 2  # how many images in a row share stain, light and habits of one slide
    # Range of the mean diameter of red cells in pixels; None takes that of the variety.
    cell_diameter: tuple[float, float] | None = None
    platelets_in_mask: bool = False  # whether binary masks and boxes hold platelets too; the real ones do not
    extras: tuple[str, ...] = ()  # any of ``EXTRAS``, written beside the binary masks
    variety: Variety = "bccd"  # of the slides, see :func:`bccd_d2.synthetic.slide.draw_slide`

    @property
    def diameters(self) -> tuple[float, float]:
        """Range of the mean diameter of red cells in pixels."""
        return self.cell_diameter or CELL_DIAMETER[self.variety]

    def check(self) -> None:
        """Raise :class:`InputError` for values that make no set."""
        unknown = sorted(set(self.extras) - set(EXTRAS))
        for good, found, expected in (
            (self.images >= 1, f"number of images: found {self.images}", "at least 1"),
            (self.seed >= 0, f"seed: found {self.seed}", "0 or more"),
            (0 <= self.test_fraction < 1, f"test fraction: found {self.test_fraction}", "0 <= fraction < 1"),
            (self.images_per_slide >= 1, f"images per slide: found {self.images_per_slide}", "at least 1"),
            (self.variety in CELL_DIAMETER, f"variety: found {self.variety!r}", " or ".join(CELL_DIAMETER)),
            (not unknown, f"extras: found {', '.join(unknown)}", f"any of {', '.join(EXTRAS)}"),
        ):
            if not good:
                raise InputError(f"{found}, expected {expected}")
        check_size(self.width, self.height)
        check_diameter(self.diameters)


def class_mask(smear: SyntheticSmear) -> NDArray[np.uint8]:
    """The class-coloured mask of a smear, platelets included: (H, W, 3) uint8 **RGB** in ``CLASS_COLOURS``."""
    palette = np.zeros((len(smear.cells) + 1, 3), np.uint8)
    for cell in smear.cells:
        palette[cell.label] = CLASS_COLOURS[cell.class_name]
    coloured: NDArray[np.uint8] = palette[smear.instances]
    return coloured


def bbbc041_entry(smear: SyntheticSmear, file_name: str) -> dict[str, Any]:
    """Boxes of the cells marked in the binary mask, as one element of BBBC041's JSON list (maxima exclusive)."""
    height, width = smear.mask.shape
    objects = []
    for cell in smear.masked_cells():
        x0, y0, x1, y1 = cell.box
        box = {"minimum": {"r": y0, "c": x0}, "maximum": {"r": y1, "c": x1}}
        objects.append({"bounding_box": box, "category": cell.category})
    shape = {"r": height, "c": width, "channels": 3}
    return {"image": {"pathname": f"/images/{file_name}", "shape": shape}, "objects": objects}


def write_synthetic_set(out: Path, plan: SyntheticSet, overwrite: bool = False) -> Counter[str]:
    """Draw and write a set; returns how many cells of each class were annotated.

    ``OUT/BCCD Dataset with mask/{train,test}/{original,mask}/UUID.ext``: images as PNG or, about one in eleven,
    JPEG; masks as 3-channel PNG with 0 and 255. Extras: ``mask_classes/`` (RGB PNG) and ``instances`` (16-bit grey
    PNG, 0 background) beside ``mask/``, and ``OUT/bbbc041_boxes.json``. Everything is written to a hidden folder in
    OUT and moved into place at the end. Raises InputError if the plan makes no set, or ``out`` is a file, or not
    empty without ``overwrite``.
    """
    plan.check()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: found a file, expected a folder")
    staging = out / _STAGING
    if out.is_dir() and not overwrite and any(entry != staging for entry in out.iterdir()):
        raise InputError(
            f"{out}: found a folder that is not empty, expected an empty one (--overwrite replaces the set)"
        )
    if staging.exists():
        shutil.rmtree(staging)  # an interrupted run's
    staging.mkdir(parents=True)
    try:
        counts = _draw_all(staging, plan)
        for name in (DATASET_FOLDER, BOXES_FILE):
            if (out / name).exists():
                (out / name).rename(staging / f"old {name}")
            if (staging / name).exists():
                (staging / name).rename(out / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return counts


def _draw_all(folder: Path, plan: SyntheticSet) -> Counter[str]:
    rng = np.random.default_rng([plan.seed, 0])
    names = [str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(plan.images)]
    in_test = set(rng.permutation(plan.images)[: round(plan.images * plan.test_fraction)].tolist())
    as_jpeg = set(rng.permutation(plan.images)[: math.floor(plan.images * _JPEG_SHARE + 0.5)].tolist())
    slides = draw_slides(
        np.random.default_rng([plan.seed, 1]),
        math.ceil(plan.images / plan.images_per_slide),
        plan.diameters,
        plan.variety,
    )
    for part in ("train", "test"):
        for kind in ("original", "mask", *plan.extras):
            if kind != "boxes":
                (folder / DATASET_FOLDER / part / kind.replace("-", "_")).mkdir(parents=True)
    counts: Counter[str] = Counter()
    boxes = []
    for index in tqdm(range(plan.images), desc="drawing smears", unit="image"):
        smear = draw_smear(
            [plan.seed, 2, index],
            plan.width,
            plan.height,
            slide=slides[index // plan.images_per_slide],
            platelets_in_mask=plan.platelets_in_mask,
        )
        counts.update(cell.class_name for cell in smear.cells)
        place = folder / DATASET_FOLDER / ("test" if index in in_test else "train")
        image_name = names[index] + (".jpg" if index in as_jpeg else ".png")
        _write(place / "original" / image_name, smear.image)
        mask_name = names[index] + ".png"
        _write(place / "mask" / mask_name, cv2.cvtColor(smear.mask, cv2.COLOR_GRAY2BGR))
        if "mask-classes" in plan.extras:
            _write(place / "mask_classes" / mask_name, cv2.cvtColor(class_mask(smear), cv2.COLOR_RGB2BGR))
        if "instances" in plan.extras:
            _write(place / "instances" / mask_name, smear.instances)
        if "boxes" in plan.extras:
            boxes.append(bbbc041_entry(smear, image_name))
    if "boxes" in plan.extras:
        (folder / BOXES_FILE).write_text(json.dumps(boxes), encoding="utf-8")
    return counts


def _write(path: Path, image: cv2.typing.MatLike) -> None:
    """Write an image by its suffix; a full disk raises OSError, which ``cv2.imwrite`` would not."""
    # Noise hardly compresses: a low level saves most of the time and loses a few per cent of space.
    settings = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY], ".png": [cv2.IMWRITE_PNG_COMPRESSION, 2]}
    _, stream = cv2.imencode(path.suffix, image, settings[path.suffix])
    path.write_bytes(stream.tobytes())
