"""Each command in the table of docs/annotations.md converts what its row says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from tests.conversion.importers import test_importers as made
from tests.conversion.importers.test_importers import DISC, HEIGHT, RBC, WBC, WIDTH, coco, draw, dump, flat
from tools.convert_bccd import main

TABLE = (Path(__file__).parents[3] / "docs" / "annotations.md").read_text(encoding="utf-8")
ROWS = dict(
    re.findall(r"^\| ([^|]+) \|[^|]+\| `(--root [^`]+)`", TABLE.partition("## What becomes")[0], re.MULTILINE)
)


def in_folder(make: Callable[[Path], Path], name: str = "EXPORT") -> Callable[[], object]:
    return lambda: make(Path(name))


def elsewhere(make: Callable[[Path], Path], name: str) -> Callable[[], object]:
    """One file, its images in IMAGES."""

    def build() -> None:
        shutil.copy(make(Path("made")), name)
        draw(Path("IMAGES"))

    return build


def via_coco() -> None:
    draw(Path())
    dump(Path("via_coco.json"), coco())


def labels(folder: str, name: str) -> None:
    masks = np.zeros((HEIGHT, WIDTH), np.uint16)
    masks[30:70, 20:60], masks[20:60, 90:120] = 3, 7
    Path(folder).mkdir(parents=True)
    tifffile.imwrite(f"{folder}/{name}", masks)


def label_images() -> None:
    draw(Path("FOLDER/images"))
    Path("FOLDER/images/b.png").unlink()
    labels("FOLDER/masks", "a.tif")


def results(*kinds: str) -> None:
    draw(Path("IMAGES"))
    for kind in kinds:
        if kind == "coco":
            dump(Path("RESULTS/coco/a.png.json"), coco())
        elif kind == "labels":
            labels("RESULTS/labels", "a.png.tif")
            Path("RESULTS/labels/a.png.csv").write_text("id,class,score\n3,RBC,0.9\n7,WBC,0.8\n")
        else:
            made.imagej(Path("RESULTS/roi")).joinpath("a_RoiSet.zip").rename("RESULTS/roi/a.png.zip")
            for image in Path("RESULTS/roi").glob("*.png"):
                image.unlink()


def predictions() -> None:
    draw(Path("IMAGES"))
    cells = [("RBC", 1, RBC), ("WBC", 2, WBC)]
    common = {"file_name": "a.png", "score": 0.9}
    dump(
        Path("RESULTS/predictions.json"),
        [{**common, "category": c, "category_id": n, "segmentation": [flat(p)]} for c, n, p in cells],
    )


def voc() -> None:
    draw(Path("FOLDER/JPEGImages"))
    for image in Path("FOLDER/JPEGImages").glob("*.png"):
        cv2.imwrite(str(image.with_suffix(".jpg")), cv2.imread(str(image)))
        image.unlink()
    Path("FOLDER/Annotations").mkdir()
    corners = "".join(
        f"<{k}>{v}</{k}>"
        for k, v in zip(("xmin", "ymin", "xmax", "ymax"), (DISC[0] + 1, DISC[1] + 1, *DISC[2:]))
    )
    box = f"<object><name>RBC</name><bndbox>{corners}</bndbox></object>"
    for stem, found in (("a", ""), ("b", box)):
        Path(f"FOLDER/Annotations/{stem}.xml").write_text(f"<annotation>{found}</annotation>")


def bbbc041() -> None:
    draw(Path("IMAGES"))
    (x0, y0, x1, y1), size = DISC, {"r": HEIGHT, "c": WIDTH, "channels": 3}
    box = {"minimum": {"r": y0, "c": x0}, "maximum": {"r": y1, "c": x1}}
    found = [{"category": "RBC", "bounding_box": box}]
    dump(
        Path("boxes.json"),
        [
            {"image": {"pathname": f"/images/{s}.png", "shape": size}, "objects": found[: s == "b"]}
            for s in "ab"
        ],
    )


def points() -> None:
    label_images()
    Path("FOLDER/points").mkdir()
    Path("FOLDER/points/a.txt").write_text("40 50 0\n105 40 4\n")
    Path("MINE.yaml").write_text(
        "folders: [{image: images, mask: masks}]\nmask: {kind: instances}\n"
        "classes: {format: points, boxes: points, categories: {0: normal, 4: target}, default: normal}\n"
    )


BUILDERS: dict[str, Callable[[], object]] = {
    'CVAT, "COCO 1.0"': in_folder(made.cvat_coco),
    'CVAT, "CVAT for images 1.1"': in_folder(made.cvat),
    'Roboflow, "COCO"': in_folder(made.roboflow_coco),
    'Roboflow, Ultralytics, "YOLO"': in_folder(made.yolo),
    'Label Studio, "COCO"': in_folder(made.label_studio_coco),
    'Label Studio, "JSON" or "JSON-MIN"': elsewhere(made.label_studio, "project.json"),
    'makesense, "COCO JSON"': elsewhere(made.makesense_coco, "labels.json"),
    'makesense, LabelImg, "YOLO"': in_folder(made.makesense_yolo, "FOLDER"),
    "LabelMe": in_folder(made.labelme, "FOLDER"),
    "VIA 2, JSON, CSV or project; VIA 3, project": lambda: made.via(Path()).rename("via.json"),
    "VIA 2, COCO": via_coco,
    'QuPath, "Export objects as GeoJSON"': in_folder(made.geojson, "FOLDER"),
    'ImageJ, ROI manager, "Save"': in_folder(made.imagej, "FOLDER"),
    "Data Science Bowl 2018": in_folder(made.mask_folders, "FOLDER"),
    "Cellpose": in_folder(made.cellpose, "FOLDER"),
    "Cellpose, StarDist: label images": label_images,
    "`tools/predict.py`, `coco`, `geojson`, `roi`": lambda: results("roi"),
    "`tools/predict.py`, all images together": predictions,
    "`tools/predict.py`, `labels`": lambda: results("labels"),
    "Pascal VOC boxes": voc,
    "BBBC041 boxes": bbbc041,
    "Points of classes beside masks": points,
}


def test_every_row_is_run() -> None:
    assert list(ROWS) == list(BUILDERS)


@pytest.mark.parametrize("row", BUILDERS)
def test_a_command_converts_what_its_row_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str
) -> None:
    monkeypatch.chdir(tmp_path)
    BUILDERS[row]()
    assert main([*ROWS[row].split(), "--output", "out", "--workers", "1"]) == 0
    parts = [json.loads(path.read_text()) for path in Path("out/annotations").glob("*.json")]
    classes = {c["id"]: c["name"] for part in parts for c in part["categories"]}
    found = sorted(
        (classes[a["category_id"]], a["area"]) for p in parts for a in p["annotations"] if not a.get("weak")
    )
    first, second = ("normal", "target") if row.startswith("Points") else ("RBC", "WBC")
    boxes = row in ("Pascal VOC boxes", "BBBC041 boxes")
    if len(classes) == 1 and not boxes:
        first = second = "cell"
    assert found == ([] if boxes else sorted([(first, 1600), (second, 1200)]))
    assert sum(len(part["annotations"]) for part in parts)
