"""Random transforms of training crops: quarter turns, stain, and Albumentations behind Detectron2's interface."""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

# Without this, importing Albumentations asks a server for a newer release.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A  # noqa: N812  its documentation's habit
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T  # noqa: N812  Detectron2's own habit
from fvcore.transforms.transform import Transform
from numpy.typing import NDArray

from bccd_d2.data.stain import ReinhardNormalizer, StainStatistics, StainTarget
from bccd_d2.errors import InputError


def draw_generator() -> np.random.Generator:
    """A generator seeded from NumPy's global state, which Detectron2 seeds apart in every loader worker."""
    return np.random.default_rng(np.random.randint(2**32, dtype=np.uint32))  # noqa: NPY002


class Rot90Transform(Transform):
    """Rotates an image of ``height`` x ``width`` counter-clockwise by 0 to 3 quarter turns, exactly."""

    def __init__(self, turns: int, height: int, width: int) -> None:
        super().__init__()
        self.turns, self.height, self.width = turns, height, width

    def apply_image(self, img: NDArray[Any]) -> NDArray[Any]:
        """Rotate (H, W) or (H, W, C)."""
        return np.rot90(img, self.turns)

    def apply_coords(self, coords: NDArray[Any]) -> NDArray[Any]:
        """Rotate (N, 2) xy points, corners of pixels being whole numbers."""
        x, y = coords[:, 0], coords[:, 1]
        turned = ((x, y), (y, self.width - x), (self.width - x, self.height - y), (self.height - y, x))[
            self.turns
        ]
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


def leaves(transform: A.BasicTransform | A.BaseCompose) -> list[A.BasicTransform]:
    """The transforms of a composition, at every depth, in order."""
    if isinstance(transform, A.BasicTransform):
        return [transform]
    return [leaf for child in transform.transforms for leaf in leaves(child)]


@dataclass(frozen=True)
class Step:
    """One transform of a draw."""

    transform: A.BasicTransform
    params: dict[str, Any]
    fill: tuple[float, ...] | None  # colour of what it uncovers, RGB; None keeps the transform's own

    def __call__(self, target: str, value: NDArray[Any]) -> NDArray[Any]:
        """Repeat on a value; ``target`` says what it is: "image", "mask" or "keypoints"."""
        if self.fill is not None:
            self.transform.fill = self.fill
        return self.transform.apply_with_params(self.params, **{target: value})[target]


class AlbumentationsTransform(Transform):
    """One draw of an Albumentations pipeline, to be replayed on images, label maps and points.

    With ``swap_channels`` images are BGR, where Albumentations' colour transforms expect RGB. ``result`` is what the
    image ``source``, which the draw was made for, became, so that it is not computed twice.
    """

    def __init__(
        self, steps: Sequence[Step], swap_channels: bool, source: NDArray[np.uint8], result: NDArray[np.uint8]
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
        """Transform (N, 2) xy points, corners of pixels being whole numbers."""
        # Albumentations' points are pixel centres at whole numbers: x, y, z, angle, scale.
        points = np.zeros((len(coords), 5))
        points[:, :2] = coords - 0.5
        return self._replay("keypoints", points)[:, :2] + 0.5

    def _replay(self, target: str, value: NDArray[Any]) -> NDArray[Any]:
        for step in self.steps:
            # Colour transforms know images only.
            if target in step.transform.available_keys:
                value = step(target, value)
        return value


def _swapped(image: NDArray[np.uint8], swap: bool) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image[..., ::-1]) if swap else image


class AlbumentationsAugmentation(T.Augmentation):
    """An Albumentations composition as a Detectron2 augmentation, see :func:`bccd_d2.data.pipeline.build_pipeline`.

    ``background_filled`` are those of its transforms that fill what they uncover with the colour of the background.
    """

    def __init__(
        self,
        pipeline: A.Compose,
        background_filled: Collection[A.BasicTransform] = (),
        image_format: str = "BGR",
    ) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.background_filled = list(background_filled)
        self.swap_channels = image_format == "BGR"
        self._leaves = leaves(pipeline)
        # Albumentations' own switch for writing down what it draws.
        for leaf in self._leaves:
            leaf.deterministic, leaf.save_key = True, "drawn"

    def get_transform(self, image: NDArray[np.uint8]) -> Transform:
        """Draw for an image (H, W, 3) uint8 in ``image_format``.

        Raises InputError where a transform fails on the image, or makes something else than an image of it.
        """
        source = _swapped(image, self.swap_channels)
        background = background_color(source) if self.background_filled else None
        for leaf in self.background_filled:
            leaf.fill = background
        draw = _Draw()
        # Not set_random_seed: it gives each transform a generator of its own with the same seed, so that all of
        # them run or none.
        generator = draw_generator()
        self.pipeline.set_random_state(generator, random.Random(int(generator.integers(2**31))))
        try:
            result = self.pipeline(image=source, drawn=draw)["image"]
        except Exception as error:  # Albumentations' own errors have no common base
            raise InputError(
                f"INPUT.AUGMENTATION.PIPELINE fails on an image of {image.shape}: {error}"
            ) from error
        by_id = {id(leaf): leaf for leaf in self._leaves}
        filled = {id(leaf) for leaf in self.background_filled}
        steps = [
            Step(by_id[key], params, background if key in filled else None) for key, params in draw.steps
        ]
        if result.dtype != np.uint8 or result.ndim != 3 or result.shape[2] != 3:
            names = ", ".join(type(step.transform).__name__ for step in steps)
            raise InputError(
                f"INPUT.AUGMENTATION.PIPELINE makes {result.dtype} of shape {result.shape} of an image "
                f"({names}); expected uint8 with three channels"
            )
        return AlbumentationsTransform(steps, self.swap_channels, image, _swapped(result, self.swap_channels))


def background_color(image: NDArray[np.uint8]) -> tuple[float, ...]:
    """Levels in [0, 255] of the background: the median of the quarter of (H, W, 3) uint8 that is lightest in green."""
    sample = image[::4, ::4].reshape(-1, 3)
    lightest = sample[sample[:, 1] >= np.quantile(sample[:, 1], 0.75)]
    return tuple(np.median(lightest, axis=0).tolist())


class RandomStain(T.Augmentation):
    """Draws a stain target around the normalizer's own, or (``around_target`` False) around the image's own statistics,
    which helps across laboratories (Tellez et al., Medical Image Analysis 58, 2019).

    Its input needs an attribute ``stain_statistics``, those of the whole image. ``mean_jitter`` is the largest shift of
    L, a and b in CIELAB units; each deviation is multiplied by a factor in [1 - ``std_jitter``, 1 + ``std_jitter``].
    """

    def __init__(
        self,
        normalizer: ReinhardNormalizer,
        *,
        around_target: bool,
        mean_jitter: Sequence[float],
        std_jitter: float,
    ) -> None:
        super().__init__()
        self.normalizer, self.around_target = normalizer, around_target
        self.mean_jitter, self.std_jitter = np.asarray(mean_jitter, np.float64), float(std_jitter)

    def draw_target(self, statistics: StainStatistics) -> StainTarget:
        """A random target for an image with these statistics."""
        base = self.normalizer.target if self.around_target else statistics
        generator = draw_generator()
        mean = np.array(base.mean) + generator.uniform(-self.mean_jitter, self.mean_jitter)
        std = np.array(base.std) * generator.uniform(1 - self.std_jitter, 1 + self.std_jitter, 3)
        return StainTarget(tuple(mean.tolist()), tuple(std.tolist()))

    def get_transform(self, image: NDArray[np.uint8], stain_statistics: StainStatistics | None) -> Transform:
        """Draw a target; without statistics of the whole image the crop stays as it is."""
        if stain_statistics is None:
            return T.NoOpTransform()
        target = self.draw_target(stain_statistics)
        return T.ColorTransform(lambda img: self.normalizer.apply(img, stain_statistics, target))


def build_stain_augmentation(cfg: CfgNode) -> RandomStain | None:
    """Stain normalization and jitter as ``INPUT.STAIN`` asks for; None where it asks for neither."""
    stain = cfg.INPUT.STAIN
    if not stain.ENABLED and not any(stain.JITTER_MEAN) and not stain.JITTER_STD:
        return None
    return RandomStain(
        ReinhardNormalizer.from_config(cfg),
        around_target=stain.ENABLED,
        mean_jitter=stain.JITTER_MEAN,
        std_jitter=stain.JITTER_STD,
    )
