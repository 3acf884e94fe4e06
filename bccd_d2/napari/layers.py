"""Cells as layers of napari, and corrected layers as cells again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from napari import Viewer
from napari.layers import Image, Labels, Shapes
from napari.utils import DirectLabelColormap
from numpy.typing import NDArray

from bccd_d2.drawing.overlay import class_color
from bccd_d2.errors import InputError
from bccd_d2.files import replacing, write_json
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers.coco import coco_dataset
from bccd_d2.io.levels import find_levels, to_uint8
from bccd_d2.io.sources import ArraySource
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.polygons import fill_rings, mask_to_rings

# napari puts (0, 0) in the middle of the first pixel, outlines at its corner.
_HALF_PIXEL = 0.5
# Of the corners of outlines that people move, in pixels.
_TOLERANCE = 0.75
_FEATURES_LEFT_OUT = ("id", "touches_border")


def pixels_of(layer: Image) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 BGR of an image layer, grey or RGB(A) of any depth; an InputError for a stack."""
    data = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    if data.ndim != (3 if layer.rgb else 2):
        raise InputError(
            f"{layer.name}: shape {data.shape}, expected one image: split the stack into its slices"
        )
    rgb = data[..., :3] if layer.rgb else np.repeat(data[..., None], 3, axis=2)
    return np.ascontiguousarray(to_uint8(rgb, find_levels(rgb, layer.name))[..., ::-1])


def outline_of(mask: NDArray[np.bool_], x: int, y: int) -> NDArray[np.float64]:
    """(P, 2) rows and columns in napari's frame: the outline of the largest part of a mask at (x, y), with few corners.

    Holes are left out, which napari's polygons do not have.
    """
    rings = [np.array(part[0], np.float32) for part in mask_to_rings(mask, x, y)]
    ring = max(rings, key=lambda points: abs(cv2.contourArea(points)))
    few = cv2.approxPolyDP(ring, _TOLERANCE, closed=True)[:, 0]
    return np.asarray((few if len(few) >= 3 else ring)[:, ::-1] - _HALF_PIXEL, np.float64)


def add_layers(viewer: Viewer, image: Image, result: ImageResult) -> tuple[Labels, Shapes]:
    """Add the cells found in a layer as labels and as polygons, both with class, type, score and measurements."""
    cells = result.cells
    table = pd.DataFrame({k: v for k, v in result.measurements.items() if k not in _FEATURES_LEFT_OUT})
    placed = {"scale": image.scale[-2:], "translate": image.translate[-2:]}
    labels = viewer.add_labels(
        cells.label_image(),
        name=f"{result.name} labels",
        features=pd.concat([pd.DataFrame({"index": np.arange(1, len(cells) + 1)}), table], axis=1),
        visible=False,
        **placed,
    )
    colors: dict[int | None, NDArray[np.float64]] = {None: np.zeros(4)}
    colors |= {label: rgba(category) for label, category in enumerate(cells.classes.tolist(), start=1)}
    labels.colormap = DirectLabelColormap(color_dict=colors)
    outlines = [outline_of(m, x, y) for m, (x, y, *_) in zip(cells.masks, cells.windows.tolist())]
    shapes = Shapes(
        outlines or None,
        shape_type="polygon",
        ndim=2,
        features=table,
        name=f"{result.name} cells",
        face_color="transparent",
        edge_width=max(1.5, max(cells.height, cells.width) / 400),
        **placed,
    )
    shapes.edge_color = [rgba(int(c)) for c in cells.classes] if len(cells) else rgba(0)
    viewer.add_layer(shapes)
    return labels, shapes


def rgba(index: int) -> NDArray[np.float64]:
    """Colour of a class, (4,) in [0, 1]."""
    return np.array([*(value / 255 for value in class_color(index)[::-1]), 1.0])


def set_class(layer: Labels | Shapes, name: str, names: Sequence[str]) -> int:
    """Give a class to the selected label, or to the selected polygons and those drawn from now on; the number of cells
    that were selected.
    """
    features = layer.features
    if isinstance(layer, Shapes):
        chosen = sorted(layer.selected_data)
        if chosen:
            features.loc[chosen, "class"] = name
            colors = np.array(layer.edge_color)
            colors[chosen] = rgba(names.index(name))
            layer.features, layer.edge_color = features, colors
        # Of what is drawn next, which is not measured.
        unknown = {"f": np.nan, "i": 0}
        defaults = {key: unknown.get(values.dtype.kind, "") for key, values in features.items()}
        layer.feature_defaults = {**defaults, "class": name}
        layer.current_edge_color = rgba(names.index(name))
        return len(chosen)
    label = int(layer.selected_label)
    if label not in set(features["index"]):
        features = pd.concat([features, pd.DataFrame({"index": [label]})], ignore_index=True)
    features.loc[features["index"] == label, "class"] = name
    layer.features = features
    layer.colormap = DirectLabelColormap(
        color_dict={**layer.colormap.color_dict, label: rgba(names.index(name))}
    )
    return 1


def cells_of(layer: Labels | Shapes, height: int, width: int, names: Sequence[str], default: str) -> Cells:
    """The cells of a corrected layer, in an image of ``height`` x ``width``.

    ``names`` are the classes by index, ``default`` is that of cells which were given none. Raises :class:`InputError`
    for a class of another name, and for shapes other than polygons, rectangles and ellipses.
    """
    if isinstance(layer, Labels):
        labels = np.asarray(layer.data)
        known = dict(zip(layer.features.get("index", ()), layer.features.get("class", ())))
        classes = {int(k): _class_index(known.get(int(k)), names, default) for k in np.unique(labels)}
        return Cells.from_label_image(labels, classes)
    masks, origins = [], []
    for kind, corners in zip(layer.shape_type, layer.data):
        if kind not in ("polygon", "rectangle", "ellipse"):
            raise InputError(f"{layer.name}: a {kind}, expected polygons, rectangles and ellipses")
        ring = _ellipse(corners) if kind == "ellipse" else np.asarray(corners)
        mask, origin = fill_rings([ring[:, -1:-3:-1] + _HALF_PIXEL], height, width)
        masks.append(mask)
        origins.append(origin)
    given = list(layer.features["class"]) if "class" in layer.features else [None] * len(masks)
    cells = Cells.from_masks(
        height, width, masks, origins=origins, classes=[_class_index(name, names, default) for name in given]
    )
    return cells[cells.areas > 0]


def _class_index(name: Any, names: Sequence[str], default: str) -> int:
    name = name if isinstance(name, str) and name else default
    if name not in names:
        raise InputError(f"class {name!r}: expected one of {', '.join(names)}")
    return list(names).index(name)


def _ellipse(corners: NDArray[Any]) -> NDArray[np.float64]:
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)[:, None]
    across, down = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    return np.asarray(corners.mean(axis=0) + np.cos(angles) * across + np.sin(angles) * down)


def save_correction(
    folder: Path, name: str, image: NDArray[np.uint8], cells: Cells, names: Sequence[str]
) -> Path:
    """Write ``NAME.png`` and ``NAME.json`` (COCO), which ``tools/adapt.py --corrected`` and ``convert_bccd.py`` read;
    the path of the JSON file. Raises :class:`InputError` if there is no cell.
    """
    if not len(cells):
        raise InputError(f"{name}: no cells, expected the corrected cells of the image")
    stem = re.sub(r"[^\w.-]+", "_", name).strip(".") or "image"
    picture = folder / f"{stem}.png"
    with replacing(picture) as temporary:
        temporary.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    path = folder / f"{stem}.json"
    write_json(path, coco_dataset(ImageResult(picture.name, ArraySource(image), cells, names)))
    return path
