"""Reading mask files of every kind: what the values of their pixels mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from bccd_d2.errors import InputError
from bccd_d2.io.file_kinds import image_errors, read_head, upright
from bccd_d2.io.images import exif_orientation, read_image_size
from bccd_d2.io.levels import warn_once
from bccd_d2.io.mask_colours import colour_codes, nearest_class
from bccd_d2.io.tiff_layout import check_directories
from bccd_d2.structures.rle import require_size

MaskKind = Literal["binary", "classes", "instances", "none"]
MASK_KINDS: tuple[MaskKind, ...] = ("binary", "classes", "instances", "none")
CHANNELS = {"red": 0, "green": 1, "blue": 2, "alpha": 3}
ALL_COLOURS = "rgb"
BACKGROUND = "background"
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class MaskRule:
    """What the pixels of a mask mean."""

    # ``binary``: cell or not. ``classes``: each value or colour is a class. ``instances``: each value is a cell, 0
    # is background. ``none``: there are no masks, only images
    kind: MaskKind = "binary"
    # Binary only: values above it are cells; ``None`` wants masks of exactly two values.
    threshold: float | None = None
    invert: bool = False  # binary only: the dark value is the cells
    # ``red``, ``green``, ``blue`` or ``alpha``; ``None`` takes the one channel there is, or equal ones; ``rgb``
    # (instances only) makes each colour one cell, black being background
    channel: str | None = None
    values: tuple[tuple[int, str], ...] = ()  # (grey value or palette index, class name)
    colours: tuple[tuple[Colour, str], ...] = ()  # ((red, green, blue), class name)
    # How far a pixel may be from the values or colours listed, per channel in units of the mask. Pixels further
    # away are anti-aliased edges or noise of a JPEG and get the nearest class.
    tolerance: float = 0
    # Largest share of such pixels; a mask with more has other values than the rule says.
    max_unlisted: float = 0

    def __post_init__(self) -> None:
        if self.kind not in MASK_KINDS:
            raise InputError(f"mask kind {self.kind!r}, expected one of {', '.join(MASK_KINDS)}")
        channels = [*CHANNELS, *([ALL_COLOURS] if self.kind == "instances" else [])]
        if self.channel is not None and self.channel not in channels:
            raise InputError(f"mask channel {self.channel!r}, expected one of {', '.join(channels)}")
        if (self.kind == "classes") != bool(self.values or self.colours) or (self.values and self.colours):
            raise InputError(
                f"mask kind {self.kind!r} with {len(self.values)} values and {len(self.colours)} colours; "
                "expected either of them for 'classes' and none for other kinds"
            )
        listed = [item for item, _ in (*self.values, *self.colours)]
        if len(set(listed)) != len(listed):
            raise InputError(f"a value or colour is listed twice among {listed}")
        names = {name for _, name in (*self.values, *self.colours)}
        if self.kind == "classes" and (BACKGROUND not in names or len(names) < 2):
            raise InputError(f"classes {sorted(names)}, expected {BACKGROUND!r} and at least one class")

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order they are listed, each once, background left out."""
        names = [name for _, name in (*self.values, *self.colours)]
        return [name for name in dict.fromkeys(names) if name != BACKGROUND]


def read_mask(path: Path, rule: MaskRule = MaskRule()) -> NDArray[np.integer]:
    """Read a mask file (PNG, JPEG, BMP, TIFF or ``.npy``) as the rule says: (height, width).

    By kind: ``binary`` uint8 with 1 for cells; ``classes`` uint8 with 0 for background and k for the k-th of the
    rule's ``class_names``; ``instances`` integers, one per cell; ``none`` uint8 0. Raises InputError for a file that
    is empty, truncated, no image, or has other values than the rule expects.
    """
    if rule.kind == "none":
        return np.zeros(read_image_size(path), np.uint8)
    if rule.colours:
        return _classes(path, _load(path, colour=True), rule)
    if rule.channel == ALL_COLOURS:
        return colour_codes(_load(path, colour=True))
    stored = _load(path, colour=rule.kind == "binary" or rule.channel is not None)
    values = _one_channel(path, stored, rule.channel)
    if rule.kind == "instances":
        return _instances(path, values)
    if rule.kind == "classes":
        return _classes(path, values, rule)
    mask = _binary(path, values, rule)
    if rule.threshold is None and not rule.invert and _is_reversed(path) and _surrounds(mask.view(bool)):
        # Which of the two is meant by a file that shows its levels reversed depends on the program that wrote it.
        warn_once(path, "a mask that is stored with reversed levels; the part around the cells is background")
        mask = (mask == 0).view(np.uint8)
    return mask


def _load(path: Path, *, colour: bool) -> NDArray:
    """Pixels as stored, (height, width) or (height, width, channels) in RGBA order, turned as EXIF says."""
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty file, expected a mask")
    if path.suffix.lower() == ".npy":
        return _load_npy(path)
    with image_errors(path):
        array = _load_tiff(path, colour=colour) if path.suffix.lower() in (".tif", ".tiff") else None
        if array is None:
            with Image.open(path) as image:
                if image.mode == "1" and image.format == "BMP" and read_head(path)[28:30] == b"\x08\0":
                    # Eight bits with a palette of black and white, which Pillow takes for one.
                    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
                palette = image.mode == "P" and colour and _palette_step(image) != -1
                as_colours = image.mode in ("CMYK", "YCbCr", "LAB", "HSV") or palette
                array = upright(
                    np.asarray(image.convert("RGB") if as_colours else image), exif_orientation(image)
                )
    if array.ndim == 3 and array.shape[2] == 2:  # grey with alpha
        array = array[..., [0, 0, 0, 1]]
    return array.view(np.uint8) if array.dtype == bool else array


def _load_tiff(path: Path, *, colour: bool) -> NDArray | None:
    """A TIFF that Pillow knows only in part: of grey levels or RGB, turned, or of several pages; ``None`` leaves the
    file to Pillow.
    """
    with tifffile.TiffFile(path) as file:
        check_directories(file, str(path))
        series = file.series[0]
        page: Any = series.keyframe
        inverting = page.photometric.name == "MINISWHITE"
        plain = page.photometric.name in ("MINISBLACK", "RGB") and page.bitspersample >= 8
        orientation = page.tags.valueof(274, default=1)
        palette = page.colormap if colour and page.photometric.name == "PALETTE" else None
        single = series.ndim <= 3 and len(file.pages) == 1
        if single and orientation == 1 and not (inverting or plain):
            return None
        require_size(math.prod(series.shape), 1)
        try:
            array = np.squeeze(series.asarray())
        except ValueError:  # a compression that only Pillow's libtiff knows here
            return None
    if palette is not None:
        array = (np.asarray(palette) >> 8).astype(np.uint8).T[array]
    if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in (3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (2, 3, 4)):
        raise InputError(f"{path}: a stack of shape {array.shape}, expected one image")
    return upright(array, orientation)


def _palette_step(image: Image.Image) -> int:
    """1 for a palette of greys that rise by one from black, -1 for the reverse, 0 for any other."""
    colours = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    if len(colours) < 256 or not (colours == colours[:, :1]).all():
        return 0
    steps = set(np.diff(colours[:, 0].astype(int)).tolist())
    return int(steps.pop()) if steps in ({1}, {-1}) else 0


def _is_reversed(path: Path) -> bool:
    """Whether a file says that its largest level is shown darkest: WhiteIsZero, or a palette that falls."""
    if path.suffix.lower() in (".tif", ".tiff"):
        with image_errors(path), tifffile.TiffFile(path) as file:
            first: Any = file.pages.first
            if first.photometric.name != "PALETTE":
                return bool(first.photometric.name == "MINISWHITE")
    if path.suffix.lower() == ".npy":
        return False
    with image_errors(path), Image.open(path) as image:
        if image.mode != "P" or image.palette is None:
            return False
        colours = np.array(image.getpalette("RGB")).reshape(-1, 3).sum(axis=1)
        used = np.flatnonzero(image.histogram()[: len(colours)])
        return len(used) == 2 and bool(colours[used[0]] > colours[used[1]])


def _surrounds(mask: NDArray[np.bool_]) -> bool:
    """Whether one part of a (height, width) mask touches all sides of the image, and no part of the rest does."""
    height, width = mask.shape
    whole = [
        (
            cv2.connectedComponentsWithStats(part.view(np.uint8), connectivity=8)[2][1:, :4]
            == [0, 0, width, height]
        )
        .all(axis=1)
        .any()
        for part in (mask, ~mask)
    ]
    return bool(whole[0] and not whole[1])


def _load_npy(path: Path) -> NDArray:
    try:
        # Mapped, so that a header that claims more than there is ends in an error, and not in memory.
        array = np.squeeze(np.array(np.load(path, mmap_mode="r", allow_pickle=False)))
    except OSError:
        raise
    except Exception as error:  # the header is a Python expression, and fails in as many ways
        # Objects are refused, because to unpickle them is to run whatever the file says.
        raise InputError(f"{path}: not a plain NumPy array ({error})") from error
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(f"{path}: array of shape {array.shape}, expected (height, width)")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: array of type {array.dtype}, expected numbers")
    return array.view(np.uint8) if array.dtype == bool else array


def _one_channel(path: Path, array: NDArray, channel: str | None) -> NDArray:
    """(height, width) of an array that may have channels."""
    if channel is not None:
        depth = array.shape[2] if array.ndim == 3 else 1
        if CHANNELS[channel] >= depth:
            raise InputError(f"{path}: {depth} channels, expected one named {channel!r}")
        return np.ascontiguousarray(array[..., CHANNELS[channel]])
    if array.ndim == 2:
        return array
    if array.shape[2] == 4 and np.ptp(array[..., :3]) == 0 and np.ptp(array[..., 3]) > 0:
        raise InputError(f"{path}: only the alpha channel varies; give a --spec with 'channel: alpha'")
    first, *others = (
        cv2.split(array[..., :3]) if array.dtype == np.uint8 else np.moveaxis(array[..., :3], -1, 0)
    )
    if not all(np.array_equal(first, other) for other in others):
        raise InputError(
            f"{path}: a coloured mask, expected one channel or equal channels; "
            "for colours that stand for classes give a --spec that lists them"
        )
    return np.asarray(first)


def _binary(path: Path, values: NDArray, rule: MaskRule) -> NDArray[np.uint8]:
    if rule.threshold is not None:
        foreground = values > rule.threshold
    else:
        low, high = values.min(initial=0), values.max(initial=0)
        foreground = values == high if high > 0 else np.zeros(values.shape, bool)
        if np.count_nonzero(foreground) != np.count_nonzero(values) or low < 0:
            found = np.unique(values)
            shown = ", ".join(f"{value:g}" for value in found[:5]) + (", ..." if len(found) > 5 else "")
            raise InputError(
                f"{path}: a mask of {len(found)} values ({shown}), expected 0 and one other; for masks that are "
                "JPEG or anti-aliased, or whose values are classes or cells, give a --spec that says so"
            )
    if rule.invert:
        foreground = ~foreground
    if foreground.size and foreground.all():
        raise InputError(
            f"{path}: every pixel is a cell, expected some background; is the mask inverted? A --spec can say so"
        )
    return foreground.view(np.uint8)


def _instances(path: Path, values: NDArray) -> NDArray[np.integer]:
    if np.issubdtype(values.dtype, np.floating):
        if not np.array_equal(values, np.round(values)):
            raise InputError(f"{path}: label map of fractions, expected whole numbers")
        values = values.astype(np.int64)
    if values.min(initial=0) < 0:
        raise InputError(f"{path}: label {int(values.min())}, expected 0 for background and positive labels")
    return values


def _classes(path: Path, pixels: NDArray, rule: MaskRule) -> NDArray[np.uint8]:
    """Class number of each pixel; raises if more pixels than allowed are far from everything listed."""
    if rule.colours:
        if pixels.dtype != np.uint8:
            raise InputError(f"{path}: colours of type {pixels.dtype}, expected 8 bits a channel")
        pixels = np.stack([pixels] * 3, axis=-1) if pixels.ndim == 2 else pixels[..., :3]
    known = [*rule.values, *rule.colours]
    listed = np.array([item for item, _ in known]).reshape(len(known), -1)
    numbers = {name: number for number, name in enumerate(rule.class_names, start=1)}
    meaning = np.array([numbers.get(name, 0) for _, name in known], np.uint8)
    classes, unlisted, commonest = nearest_class(pixels, listed, meaning, rule.tolerance)
    if unlisted > rule.max_unlisted * classes.size:
        raise InputError(
            f"{path}: {unlisted} of {classes.size} pixels have other values than those listed "
            f"({', '.join(str(item) for item, _ in known)}), most often {commonest}"
        )
    return classes
