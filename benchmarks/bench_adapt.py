"""How much tools/adapt.py improves the shipped model, by the number of corrected images.

    python benchmarks/bench_adapt.py --source bccd_voc [--altered] [--corrected 1 3 5 10] [--test 15] [--output DIR]

Images of the validation part of a source below $BCCD_ROOT (bccd_voc, or those of 575x575 pixels of txl_pbc) are divided
into corrected images and test images. Their boxes are annotated; outlines are guessed from these, and boxes without one
are regions to ignore. --altered then turns the images into those of another stain and microscope, see :func:`alter`.
Adaptation and prediction run as commands without options. The table says F1 at IoU 0.5 on the test images, with the
cells at the border and without, and the processor time of the adaptation.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from tabulate import tabulate

from bccd_d2.commands import run_command
from bccd_d2.conversion.importers.boxes import read_voc
from bccd_d2.files import write_json
from bccd_d2.io.images import read_image, read_image_size
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.rle import decode_segmentation

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("BCCD_ROOT", REPOSITORY.parent / "shared" / "data"))
CLASSES = ("WBC", "RBC", "Platelets")
SIDE = 575
"""Of the images of TXL-PBC that are taken: phone photographs of many stains."""


def alter(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another stain and microscope: colours exchanged, half the contrast, half the size, out of focus, noise; BGR."""
    height, width = image.shape[:2]
    turned = image[..., [1, 2, 0]].astype(np.float32)
    brightness = turned.sum(axis=2)
    background = np.median(turned[brightness > np.median(brightness)], axis=0)
    small = cv2.resize(
        background + 0.5 * (turned - background), (width // 2, height // 2), interpolation=cv2.INTER_AREA
    )
    blurred = cv2.GaussianBlur(small, (0, 0), 1.5)
    noise = np.random.default_rng(0).normal(0, 4, blurred.shape)
    return np.clip(np.rint(blurred + noise), 0, 255).astype(np.uint8)


def run(*command: object) -> float:
    """Run a tool; minutes of processor time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *map(str, command)], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60


def select(source: str, number: int) -> list[Path]:
    """Images of the validation part, spread evenly over the names."""
    if source == "bccd_voc":
        stems = (DATA / source / "ImageSets" / "Main" / "val.txt").read_text().split()
        paths = [DATA / source / "JPEGImages" / f"{stem}.jpg" for stem in sorted(stems)]
    else:
        paths = [
            path
            for path in sorted((DATA / source / "val" / "images").iterdir())
            if read_image_size(path) == (SIDE, SIDE)
        ]
    return [paths[index] for index in np.linspace(0, len(paths) - 1, number).round().astype(int)]


def yolo_lines(path: Path) -> str:
    """Boxes of an image as YOLO labels of :data:`CLASSES`."""
    if path.parent.name == "images":
        return (path.parent.parent / "labels" / f"{path.stem}.txt").read_text()
    cells = read_voc(path.parent.parent / "Annotations" / f"{path.stem}.xml").cells
    height, width = read_image_size(path)
    return "".join(
        f"{CLASSES.index(cell.class_name)} {(x0 + x1) / 2 / width} {(y0 + y1) / 2 / height} "
        f"{(x1 - x0) / width} {(y1 - y0) / height}\n"
        for cell in cells
        for x0, y0, x1, y1 in [np.clip(cell.extent(), 0, [width, height] * 2).tolist()]
    )


def convert(paths: Sequence[Path], folder: Path) -> dict[str, Any]:
    """COCO document of the images, with outlines guessed from the boxes."""
    for name in ("images", "labels"):
        (folder / "boxes" / name).mkdir(parents=True)
    (folder / "boxes" / "classes.txt").write_text("\n".join(CLASSES))
    for path in paths:
        (folder / "boxes" / "images" / path.name).write_bytes(path.read_bytes())
        (folder / "boxes" / "labels" / f"{path.stem}.txt").write_text(yolo_lines(path))
    options = ("--from", "yolo", "--ratios", 1, 0, 0, "--workers", 1)
    run("tools/convert_bccd.py", "--root", folder / "boxes", "--output", folder / "outlines", *options)
    return read_coco(folder / "outlines" / "annotations" / "instances_train.json")


def halved(annotation: Mapping[str, Any], height: int, width: int) -> dict[str, Any] | None:
    """An annotation of the altered image; ``None`` where nothing is left of it."""
    mask = decode_segmentation(annotation["segmentation"], height, width)
    size = width // 2, height // 2
    code = coco_mask.encode(np.asfortranarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)))
    if not coco_mask.area(code):
        return None
    outline = {"size": code["size"], "counts": code["counts"].decode()}
    return {
        **{key: annotation[key] for key in ("id", "image_id", "category_id", "iscrowd")},
        "segmentation": outline,
        "area": int(coco_mask.area(code)),
        "bbox": coco_mask.toBbox(code).tolist(),
    }


def write_set(document: Mapping[str, Any], paths: Sequence[Path], folder: Path, *, altered: bool) -> None:
    """Write some images and their part of a document, as CVAT exports them."""
    (folder / "images").mkdir(parents=True)
    names, images, annotations = {path.name: path for path in paths}, [], []
    for entry in document["images"]:
        if (name := Path(entry["file_name"]).name) not in names:
            continue
        image = read_image(names[name])
        own = [a for a in document["annotations"] if a["image_id"] == entry["id"]]
        if altered:
            own = [b for a in own if (b := halved(a, entry["height"], entry["width"])) is not None]
            image = alter(image)
        cv2.imwrite(str(folder / "images" / f"{Path(name).stem}.png"), image)
        entry = {"id": entry["id"], "file_name": f"{Path(name).stem}.png"}
        images.append({**entry, "height": image.shape[0], "width": image.shape[1]})
        annotations += own
    content = {"images": images, "annotations": annotations, "categories": document["categories"]}
    write_json(folder / "annotations" / "instances_default.json", content)


def measure(test: Path, output: Path, *model: object) -> dict[str, float]:
    """F1 of a model on the test images, in all and without the border."""
    run("tools/predict.py", "--input", test / "images", "--output", output, *model)
    report = output.with_name(f"{output.name}_evaluation")
    truth = ("--truth", test / "annotations" / "instances_default.json", "--images", test / "images")
    run("tools/evaluate.py", "--predictions", output, *truth, "--output", report)
    (metrics,) = json.loads((report / "metrics.json").read_text())["parts"].values()
    return {region: metrics["instances"][region]["all classes"]["f1"] for region in ("all", "interior")}


def main() -> None:
    """Adapt with more and more images, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", choices=("bccd_voc", "txl_pbc"), required=True)
    parser.add_argument("--altered", action="store_true", help="another stain and microscope")
    parser.add_argument(
        "--corrected", type=int, nargs="+", default=[1, 3, 5, 10], metavar="N", help="numbers of images"
    )
    parser.add_argument(
        "--test", type=int, default=15, metavar="N", help="number of test images (default 15)"
    )
    parser.add_argument("--output", type=Path, default=Path("output/adapt"), metavar="DIR", help="new folder")
    given = parser.parse_args()
    out = given.output.resolve()
    most = max(given.corrected)
    paths = select(given.source, most + given.test)
    paths = [paths[index] for index in np.random.default_rng(0).permutation(len(paths))]
    document = convert(paths, out)
    write_set(document, paths[most:], out / "test", altered=given.altered)
    before = measure(out / "test", out / "before")
    rows: list[list[object]] = [[0, 0, *(f"{before[region]:.3f}" for region in before)]]
    for number in sorted(given.corrected):
        write_set(document, paths[:number], out / f"corrected_{number}", altered=given.altered)
        model = out / f"model_{number}"
        minutes = run("tools/adapt.py", "--corrected", out / f"corrected_{number}", "--output", model)
        after = measure(out / "test", out / f"after_{number}", "--run", model)
        rows.append([number, f"{minutes:.1f}", *(f"{after[region]:.3f}" for region in after)])
        with (out / "curve.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        print(
            tabulate(rows, ["corrected images", "CPU minutes", "F1", "F1 without border"], tablefmt="pipe"),
            flush=True,
        )


if __name__ == "__main__":
    run_command(main)
