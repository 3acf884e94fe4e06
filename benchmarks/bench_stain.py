"""Time and error of stain normalization on one core, against other ways to do the same.

torchstain (MIT), normalizing the whole image as it does, is measured too where it is installed. The error is
measured against Reinhard's formula in float64, with scikit-image's colour conversion and the
statistics of every foreground pixel, in grey levels over all pixels and channels.
"""

from __future__ import annotations

import argparse
import statistics as stats
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from skimage.color import lab2rgb, rgb2lab
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.stain import ReinhardNormalizer, foreground_weight
from bccd_d2.errors import InputError, run_command
from bccd_d2.io.find_images import find_images
from bccd_d2.io.images import read_image


def reference(normalizer: ReinhardNormalizer, image: np.ndarray) -> np.ndarray | None:
    """Reinhard's formula in float64 on a BGR image; the same foreground, every one of its pixels.

    Returns:
        (H, W, 3) float64, BGR, not rounded; None where there is no foreground.
    """
    found = normalizer.statistics(image)
    if found is None:
        return None
    lab = rgb2lab(image[..., ::-1])
    cells = lab[image[..., 1] <= found.threshold]
    scale = np.array(normalizer.target.std) / cells.std(0)
    moved = lab2rgb((lab - cells.mean(0)) * scale + normalizer.target.mean)[..., ::-1] * 255
    weight = foreground_weight(found)[image[..., 1]][..., None] / 255
    return weight * moved + (1 - weight) * image


def float32_opencv(normalizer: ReinhardNormalizer, image: np.ndarray) -> np.ndarray:
    """The same on all pixels in OpenCV's float32 CIELAB."""
    found = normalizer.statistics(image)
    if found is None:
        return image
    lab = cv2.cvtColor(image.astype(np.float32) * np.float32(1 / 255), cv2.COLOR_BGR2LAB)
    scale = np.array(normalizer.target.std) / np.array(found.std)
    shift = np.array(normalizer.target.mean) - np.array(found.mean) * scale
    moved = cv2.cvtColor(lab * scale.astype(np.float32) + shift.astype(np.float32), cv2.COLOR_LAB2BGR)
    return (moved * 255).clip(0, 255).astype(np.uint8)


def torchstain_way(target: np.ndarray) -> Callable[[np.ndarray], Any] | None:
    """torchstain's NumPy Reinhard fitted to an image; None where torchstain is not installed."""
    try:
        from torchstain.numpy.normalizers.reinhard import NumpyReinhardNormalizer
    except ImportError:
        return None
    normalizer = NumpyReinhardNormalizer()
    normalizer.fit(target[..., ::-1])
    return lambda image: normalizer.normalize(image[..., ::-1])


def best_time(function: Callable[[], Any], repeats: int) -> float:
    """Shortest of ``repeats`` timings in seconds, which other processes disturb least; one goes untimed."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="PATH", help="images, or folders of them"
    )
    parser.add_argument("--max-images", type=int, default=12, help="evenly picked from all (default 12)")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each image (default 5)")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    paths = [path for path, _ in find_images(options.input)]
    paths = paths[:: max(1, len(paths) // options.max_images)][: options.max_images]
    cfg = get_bccd_cfg()
    normalizers = {"keep": ReinhardNormalizer(cfg)}

    torchstain = torchstain_way(read_image(str(paths[0])))
    errors: dict[str, list[np.ndarray]] = {name: [] for name in normalizers}
    times: dict[str, list[float]] = {}
    for path in tqdm(paths, desc="images", unit="image"):
        image = read_image(str(path))
        ways: dict[str, Callable[[np.ndarray], Any]] = {
            **{f"bccd_d2, background {name}": normalizer for name, normalizer in normalizers.items()},
            "OpenCV float32, all pixels": partial(float32_opencv, normalizers["keep"]),
            "scikit-image float64, all pixels": partial(reference, normalizers["keep"]),
        }
        if torchstain is not None:
            ways["torchstain NumPy, all pixels"] = torchstain
        for name, way in ways.items():
            repeats = 1 if name.startswith("scikit") else options.repeats
            seconds = best_time(partial(way, image), repeats) * 1600 * 1200 / image[..., 0].size
            times.setdefault(name, []).append(seconds)
        for name, normalizer in normalizers.items():
            expected = reference(normalizer, image)
            if expected is not None:
                errors[name].append(np.abs(normalizer(image) - expected))
    if not errors["keep"]:
        raise InputError(f"none of {len(paths)} images shows cells")

    slowest = stats.median(times["scikit-image float64, all pixels"])
    rows = [
        [name, 1e3 * stats.median(values), 1e3 * max(values), slowest / stats.median(values)]
        for name, values in times.items()
    ]
    headers = ["method, scaled to 1600x1200, one core", "median ms", "slowest image ms", "x scikit-image"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f"))
    rows = [
        [name, np.mean([e.mean() for e in found]), max(e.mean() for e in found)]
        + [float(np.mean([np.percentile(e, q) for e in found])) for q in (99, 99.9)]
        for name, found in errors.items()
    ]
    headers = ["background", "mean error, grey levels", "worst image's mean", "99 %", "99.9 %"]
    print("\n" + tabulate(rows, headers, tablefmt="pipe", floatfmt=".2f"))


if __name__ == "__main__":
    run_command(main)
