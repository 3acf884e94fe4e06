"""Random transforms of training crops: exact quarter turns, and Albumentations behind Detectron2's interface.

Every parameter is drawn in ``get_transform``; the transform it returns only replays the draw, so image and
label map see the same one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

# Without this, importing Albumentations asks a server for a newer release.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A  # noqa: N812  its documentation's habit
import numpy as np
from detectron2.data import transforms as T  # noqa: N812  Detectron2's own habit
from fvcore.transforms.transform import Transform
from numpy.typing import NDArray

from bccd_d2.errors import InputError

Pipeline = Sequence[tuple[str, Mapping[str, Any]]]

# Small changes of the kind that two slides or two microscopes differ by. Fill is the grey of empty glass.
_GLASS = [230, 230, 230]
PRESETS: dict[str, Pipeline] = {
    "none": (),
    "mild": (
        (
            "Affine",
            {
                "scale": [0.9, 1.1],
                "translate_percent": [-0.05, 0.05],
                "rotate": [-10, 10],
                "fill": _GLASS,
                "p": 0.3,
            },
        ),
        ("GaussianBlur", {"blur_limit": [3, 5], "p": 0.1}),
        ("RandomBrightnessContrast", {"brightness_limit": 0.15, "contrast_limit": 0.15, "p": 0.5}),
        (
            "HueSaturationValue",
            {"hue_shift_limit": 8, "sat_shift_limit": 15, "val_shift_limit": 8, "p": 0.3},
        ),
    ),
}


def draw_generator() -> np.random.Generator:
    """A generator seeded from NumPy's global state, which Detectron2 seeds apart in every loader worker."""
    return np.random.default_rng(np.random.randint(2**32, dtype=np.uint32))  # noqa: NPY002


class Rot90Transform(Transform):
    """Rotates counter-clockwise by ``turns`` quarter turns, exactly.

    Args:
        turns: 0 to 3.
        height: of the image before the rotation.
        width: of the image before the rotation.
    """

    def __init__(self, turns: int, height: int, width: int) -> None:
        super().__init__()
        self.turns, self.height, self.width = turns, height, width

    def apply_image(self, img: NDArray[Any]) -> NDArray[Any]:
        """Rotate (H, W) or (H, W, C)."""
        return np.rot90(img, self.turns)

    def apply_coords(self, coords: NDArray[Any]) -> NDArray[Any]:
        """Rotate (N, 2) xy points, corners of pixels being whole numbers."""
        x, y = coords[:, 0], coords[:, 1]
        turned = (
            (x, y),
            (y, self.width - x),
            (self.width - x, self.height - y),
            (self.height - y, x),
        )[self.turns]
        return np.stack(turned, axis=1)

    def inverse(self) -> Transform:
        """The rotation back."""
        size = (self.height, self.width) if self.turns % 2 == 0 else (self.width, self.height)
        return Rot90Transform(-self.turns % 4, *size)


class RandomRot90(T.Augmentation):
    """Rotates by 0, 90, 180 or 270 degrees, each as likely."""

    def get_transform(self, image: NDArray[Any]) -> Transform:
        """Draw the number of quarter turns."""
        return Rot90Transform(int(draw_generator().integers(4)), *image.shape[:2])


class _Draw(dict[str, Any]):
    """Receives from Albumentations, in order of application, which transform ran with which parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[int, dict[str, Any]]] = []

    def __setitem__(self, transform_id: Any, params: Any) -> None:
        self.steps.append((transform_id, params))


def _leaves(transform: Any) -> list[A.BasicTransform]:
    if isinstance(transform, A.BasicTransform):
        return [transform]
    return [leaf for child in transform.transforms for leaf in _leaves(child)]


class AlbumentationsTransform(Transform):
    """One draw of an Albumentations pipeline, to be replayed on images, label maps and points.

    Args:
        steps: the transforms that ran, in order, each with its parameters.
        swap_channels: whether images are BGR; Albumentations' colour transforms expect RGB.
        source: the image that the draw was made for ...
        result: ... and what it became, so that it is not computed twice.
    """

    def __init__(
        self,
        steps: Sequence[tuple[A.BasicTransform, dict[str, Any]]],
        swap_channels: bool,
        source: NDArray[np.uint8],
        result: NDArray[np.uint8],
    ) -> None:
        super().__init__()
        self.steps = steps
        self.swap_channels = swap_channels
        self._source, self._result = source, result

    def apply_image(self, img: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Transform (H, W, 3) uint8 in the colour order of the images."""
        if img is self._source:
            return self._result
        return _swapped(self._replay("image", _swapped(img, self.swap_channels)), self.swap_channels)

    def apply_segmentation(self, segmentation: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Transform a label map, (H, W) or (H, W, L) uint16, with nearest neighbour."""
        if segmentation.ndim == 2:
            return self._replay("mask", segmentation)
        layers = [self._replay("mask", segmentation[..., k]) for k in range(segmentation.shape[-1])]
        return np.stack(layers, axis=-1)

    def apply_coords(self, coords: NDArray[Any]) -> NDArray[Any]:
        """Transform (N, 2) xy points."""
        points = np.zeros((len(coords), 5))  # x, y, z, angle, scale
        points[:, :2] = coords
        return self._replay("keypoints", points)[:, :2]

    def _replay(self, target: str, value: NDArray[Any]) -> NDArray[Any]:
        for transform, params in self.steps:
            value = transform.apply_with_params(params, **{target: value})[target]
        return value


def _swapped(image: NDArray[np.uint8], swap: bool) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image[..., ::-1]) if swap else image


class AlbumentationsAugmentation(T.Augmentation):
    """An Albumentations pipeline as a Detectron2 augmentation.

    Args:
        pipeline: (name, parameters) of Albumentations' transforms, in order.
        image_format: "BGR" or "RGB", the colour order of the images.

    Raises:
        InputError: an entry has no such name or parameter.
    """

    def __init__(self, pipeline: Pipeline, image_format: str = "BGR") -> None:
        super().__init__()
        self.pipeline = A.Compose([_build(index, *entry) for index, entry in enumerate(pipeline)])
        self.swap_channels = image_format == "BGR"
        self._leaves = {id(leaf): leaf for leaf in _leaves(self.pipeline)}
        for leaf in self._leaves.values():
            leaf.deterministic, leaf.save_key = True, "drawn"

    def get_transform(self, image: NDArray[np.uint8]) -> Transform:
        """Draw for an image.

        Args:
            image: (H, W, 3) uint8 in the colour order of the images.
        """
        draw = _Draw()
        self.pipeline.set_random_seed(int(draw_generator().integers(2**31)))
        result = self.pipeline(image=_swapped(image, self.swap_channels), drawn=draw)["image"]
        steps = [(self._leaves[key], params) for key, params in draw.steps]
        return AlbumentationsTransform(steps, self.swap_channels, image, _swapped(result, self.swap_channels))


def _build(index: int, name: str, parameters: Mapping[str, Any]) -> A.BasicTransform:
    where = f"augmentation entry {index} ({name})"
    transform = getattr(A, str(name), None)
    if not (isinstance(transform, type) and issubclass(transform, A.BasicTransform)):
        raise InputError(f"{where}: Albumentations has no transform of this name")
    try:
        return transform(**{key: _as_tuple(value) for key, value in parameters.items()}, strict=True)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def build_pipeline(preset: str, pipeline: Sequence[Any]) -> Pipeline:
    """The Albumentations pipeline that a configuration asks for.

    Args:
        preset: ``INPUT.AUGMENTATION.PRESET``, a key of :data:`PRESETS`.
        pipeline: ``INPUT.AUGMENTATION.PIPELINE``, which takes the preset's place when it is not empty.

    Raises:
        InputError: there is no such preset, or an entry is no pair of a name and a mapping.
    """
    if not pipeline:
        if preset not in PRESETS:
            raise InputError(f"INPUT.AUGMENTATION.PRESET is {preset!r}; expected one of {', '.join(PRESETS)}")
        return PRESETS[preset]
    for index, entry in enumerate(pipeline):
        if not (isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[1], Mapping)):
            raise InputError(
                f"INPUT.AUGMENTATION.PIPELINE entry {index} is {entry!r}; "
                "expected [name, {parameter: value}]"
            )
    return [(name, parameters) for name, parameters in pipeline]
