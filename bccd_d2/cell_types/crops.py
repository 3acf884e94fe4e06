"""Crops of single cells with their types: how they are cut, read from data sets, split and augmented."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import albumentations as A  # noqa: N812  as its own documents do
import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.data.stain import ReinhardNormalizer, StainTarget
from bccd_d2.errors import InputError
from bccd_d2.io.find_images import SUFFIXES
from bccd_d2.io.images import read_image
from bccd_d2.io.points import read_points
from bccd_d2.io.sources import ArraySource, ImageSource

MARGIN = 1.5
"""Crops for training are cut this much larger, so that turned and shifted ones show no invented pixels."""
_Cell = tuple[
    ImageSource, tuple[float, float], str, str
]  # image, centre of the cell, type, name of the image


@dataclass(frozen=True)
class TypeCrops:
    """N crops of cells with their types, ``MARGIN`` times as large as the network's crops."""

    pixels: NDArray[np.uint8]  # (N, side, side, 3) uint8 BGR
    labels: NDArray[np.int64]  # (N,) indices of types
    images: NDArray[np.str_]  # (N,) file of each crop, below the folder of the data set
    centres: NDArray[np.float64]  # (N, 2) x, y of the cell in pixels of that file

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> TypeCrops:
        return TypeCrops(self.pixels[chosen], self.labels[chosen], self.images[chosen], self.centres[chosen])


def cut_crop(source: ImageSource, x: float, y: float, side: float, size: int) -> NDArray[np.uint8]:
    """A square of ``side`` native pixels around (x, y), mirrored beyond the image, as (size, size, 3) uint8 BGR."""
    length = max(1, round(side))
    left, top = round(x - length / 2), round(y - length / 2)
    x0, y0 = min(max(left, 0), source.width - 1), min(max(top, 0), source.height - 1)
    x1, y1 = max(x0 + 1, min(left + length, source.width)), max(y0 + 1, min(top + length, source.height))
    pixels = source.read(x0, y0, x1 - x0, y1 - y0)
    borders = (y0 - top, top + length - y1, x0 - left, left + length - x1)
    if any(borders):
        # Symmetric rather than 101: that repeats as often as it must, even for a part of one pixel.
        pad = ((borders[0], borders[1]), (borders[2], borders[3]), (0, 0))
        pixels = np.pad(pixels, [(max(0, low), max(0, high)) for low, high in pad], mode="symmetric")
    interpolation = cv2.INTER_AREA if size < length else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=interpolation), np.uint8)


def middle(crops: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The (N, size, size, 3) middle of crops that are larger."""
    start = (crops.shape[1] - size) // 2
    return crops[:, start : start + size, start : start + size]


def read_type_folders(folder: Path, types: Mapping[str, str | None], side: float, size: int) -> TypeCrops:
    """Read images that show one cell in the middle, in one folder per key of ``types``; ``None`` leaves a folder out.

    The network's crop is ``side`` pixels of the files wide, resized to ``size``. Raises InputError where a folder is
    missing or empty, or an image cannot be read.
    """

    def cells() -> Iterator[_Cell]:
        for key, name in types.items():
            if name is None:
                continue
            files = sorted(path for path in (folder / key).glob("*") if path.suffix.lower() in SUFFIXES)
            if not files:
                raise InputError(f"{folder / key}: expected images of {name}, found none")
            for path in files:
                source = ArraySource(read_image(path))
                yield source, (source.width / 2, source.height / 2), name, f"{key}/{path.name}"

    return _cut_crops(cells(), types, side, size)


def read_type_points(folder: Path, types: Mapping[str, str | None], side: float, size: int) -> TypeCrops:
    """Read images with points of typed cells: ``images/NAME.*`` and ``labels/NAME.txt`` with rows ``x y type``.

    ``types`` gives the name of the type by what the files call it, ``None`` leaves these cells out; sizes as for
    :func:`read_type_folders`. Raises InputError where a file is missing or a row is not of that form.
    """
    left_out: Counter[str] = Counter()
    pictures = {path.stem: path for path in (folder / "images").glob("*") if path.suffix.lower() in SUFFIXES}
    tables = sorted((folder / "labels").glob("*.txt"))
    if not tables:
        raise InputError(f"{folder / 'labels'}: expected text files with rows 'x y type', found none")

    def cells() -> Iterator[_Cell]:
        for table in tables:
            if table.stem not in pictures:
                raise InputError(f"{table}: expected an image {folder / 'images' / table.stem}.*, found none")
            source = ArraySource(read_image(pictures[table.stem]))
            for x, y, key, where in read_points(table):
                if key is None or key not in types:
                    expected = f"'x y type' with a type of {', '.join(types)}"
                    raise InputError(f"{where}: expected {expected}, found {key!r}")
                name = types[key]
                if name is None:
                    left_out[key] += 1
                else:  # in the middle of the pixel
                    yield source, (x + 0.5, y + 0.5), name, pictures[table.stem].name

    crops = _cut_crops(cells(), types, side, size)
    for key, count in left_out.items():
        logging.getLogger(__name__).info(
            "%d cells of type %s are left out, as the configuration says", count, key
        )
    return crops


def _cut_crops(cells: Iterable[_Cell], types: Mapping[str, str | None], side: float, size: int) -> TypeCrops:
    names = list(dict.fromkeys(name for name in types.values() if name is not None))
    pixels, labels, images, centres = [], [], [], []
    for source, centre, name, image in cells:
        pixels.append(cut_crop(source, *centre, side * MARGIN, round(size * MARGIN)))
        labels.append(names.index(name))
        images.append(image)
        centres.append(centre)
    return TypeCrops(np.array(pixels), np.array(labels, np.int64), np.array(images), np.array(centres))


def split_by_image(crops: TypeCrops, share: float, seed: int) -> NDArray[np.bool_]:
    """(N,) bool: which crops are for validation, about ``share`` of every type; no image is on both sides.

    Images are taken in a random order, those with the rarest types first; each goes to the side that lacks more of its
    cells (iterative stratification, Sechidis et al. 2011). Each type has a cell that is not for validation.
    """
    files, index = np.unique(crops.images, return_inverse=True)
    number = int(crops.labels.max()) + 1
    counts = np.zeros((len(files), number))
    np.add.at(counts, (index, crops.labels), 1)
    rarity = np.where(counts > 0, counts.sum(axis=0), np.inf).min(axis=1)
    order = np.random.default_rng(seed).permutation(len(files))
    order = order[np.argsort(rarity[order], kind="stable")]
    total = np.maximum(counts.sum(axis=0), 1)
    wanted = np.stack([1 - share, share])[:, None] * total
    missing, chosen = wanted.copy(), np.zeros(len(files), bool)
    for file in order:
        # Of each type, what this image would bring, relative to what the side wants.
        need = (missing / np.maximum(wanted, 1e-9) * (counts[file] / total)).sum(axis=1)
        side = int(need[1] > need[0])
        chosen[file] = bool(side)
        missing[side] -= counts[file]
    for kind in np.flatnonzero((counts[~chosen].sum(axis=0) == 0) & counts.any(axis=0)):
        chosen[counts[:, kind].argmax()] = False
    return chosen[index]


class CropAugmentation:
    """Random views of cells: turned, shifted, of another camera, stain and focus.

    One laboratory per type is a trap: a classifier that knows the camera knows the type. So colours vary further than
    laboratories do. ``scale`` is the largest relative change of size, small where size tells types apart; ``stain`` the
    largest shift of L, a and b of the cells in CIELAB units.
    """

    def __init__(
        self, size: int, *, scale: float, stain: Sequence[float] = (12, 12, 12), seed: int = 0
    ) -> None:
        self.size, self.stain = size, np.asarray(stain, np.float64)
        self.generator = np.random.default_rng(seed)
        self.normalizer = ReinhardNormalizer(StainTarget((50, 0, 0), (10, 10, 10)))
        # Of a crop MARGIN times as large: without this the affine map would leave the scale as it is.
        self.geometry = A.Compose(
            [
                A.SquareSymmetry(p=1),
                A.Affine(
                    scale=(1 - scale, 1 + scale),
                    translate_percent=(-0.03, 0.03),
                    rotate=(-45, 45),
                    keep_ratio=True,
                    border_mode=cv2.BORDER_REFLECT_101,
                    p=0.9,
                ),
                A.CenterCrop(size, size),
            ],
            seed=seed,
        )
        self.colour = A.Compose(
            [
                A.MultiplicativeNoise((0.8, 1.2), per_channel=True, elementwise=False, p=0.6),
                A.ColorJitter(0.2, 0.25, 0.35, 0.05, p=0.6),
                A.RandomGamma((75, 135), p=0.3),
                A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.3), p=0.25),
                A.GaussNoise(std_range=(0.01, 0.04), p=0.2),
                A.ImageCompression(quality_range=(45, 95), p=0.25),
            ],
            seed=seed + 1,
        )

    def __call__(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A view (size, size, 3) of a crop ``MARGIN`` times as large; uint8 BGR."""
        view = self.geometry(image=crop)["image"]
        if self.generator.random() < 0.7 and (found := self.normalizer.statistics(view)) is not None:
            mean = np.array(found.mean) + self.generator.uniform(-self.stain, self.stain)
            std = np.array(found.std) * self.generator.uniform(0.7, 1.3, 3)
            view = self.normalizer.apply(view, found, StainTarget(tuple(mean), tuple(std)))
        # Hue and saturation do not depend on the order of the channels, their weights in lightness do a little.
        return np.asarray(self.colour(image=np.ascontiguousarray(view))["image"], np.uint8)
