"""Small valid files of every kind that is read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import pickle
import tempfile
import zipfile
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported

# isort: split
import cv2
import numpy as np
import soak
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from roifile import ImagejRoi
from safetensors.torch import save as safetensors_bytes

from bccd_d2.config import load_config
from bccd_d2.conversion.splits import splits_hash
from bccd_d2.data.registration import register_bccd
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.inference.outputs import Outputs, record_file
from bccd_d2.inference.quality import Quality
from bccd_d2.inference.results import Counts
from bccd_d2.io.storage import Storage

COCO = "annotations/instances_val.json"
HEIGHT, WIDTH = 40, 48


def example(name: str) -> bytes:
    """A valid file by name; some are found beside an input by that path."""
    return _training() if name == "training.pth" else _examples()[name]


@cache
def _training() -> bytes:
    return (Path(trainer().cfg.OUTPUT_DIR) / "model_final.pth").read_bytes()


@cache
def trainer() -> BCCDTrainer:
    """Of a small model that has trained for an iteration; its folder holds the checkpoint."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for name in (COCO, "a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(example(name))
    register_bccd(folder, "trained")
    sets = "DATASETS.TRAIN ('trained_val',) DATASETS.TEST ('trained_val',) INPUT.CROP.SIZE [32,32]"
    keys = "MODEL.ROI_HEADS.NUM_CLASSES 2 SOLVER.MAX_ITER 1 TEST.EVAL_PERIOD 0 TEST.VALIDATION_LOSS_PERIOD 0"
    options = f"{soak.OPTIONS} {sets} {keys}".split() + ["OUTPUT_DIR", str(folder)]
    made = BCCDTrainer(load_config(soak.CONFIG, options))
    made.train()
    return made


def output_of(folder: Path) -> Outputs:
    """An output folder of a prediction."""
    return Outputs(Storage(str(folder)), ("csv", "coco"), "k")


def _record() -> bytes:
    """Of an image with one cell."""
    cells = {"RBC": 1}
    image = {"name": "a.png", "height": 4, "width": 4, "quality": asdict(Quality())}
    image["counts"] = asdict(Counts(cells, cells, 1.0))
    record = {"key": "k", "formats": ["csv", "coco"], "file": "", "results": ["csv/a.png.csv"], "error": None}
    with tempfile.TemporaryDirectory() as folder:
        output_of(Path(folder)).write_record("a.png", {**record, "images": [image]})
        return (Path(folder) / record_file("a.png")).read_bytes()


def _image(kind: str, pixels: NDArray, **options: Any) -> bytes:
    stream = io.BytesIO()
    if kind == "tiff":
        tifffile.imwrite(stream, pixels, **options)
    elif kind == "npy":
        np.save(stream, pixels, allow_pickle=pixels.dtype == object)
    else:
        image = Image.fromarray(pixels)
        (image.convert("P") if options.get("palette") else image).save(stream, kind)
    return stream.getvalue()


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()


def _zipped(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def truth_document() -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """A COCO document of one image, and its mask."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    annotations = []
    for number, (x, y) in enumerate(((12, 12), (30, 20), (40, 34)), start=1):
        one = cv2.circle(np.zeros_like(mask), (x, y), 7, 1, -1)
        mask[one > 0] = 255
        code = coco_mask.encode(np.asfortranarray(one))
        rle: Any = {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}
        outline = [x - 7, y - 7, x + 8, y - 7, x + 8, y + 7, x - 7, y + 7]
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": 1 + number % 2,
                "bbox": coco_mask.toBbox(code).tolist(),
                "area": int(one.sum()),
                "iscrowd": int(number == 3),
                "border": False,
                "segmentation": [outline] if number == 2 else rle,
            }
        )
    image = {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}
    categories = [{"id": 1, "name": "RBC"}, {"id": 2, "name": "WBC"}]
    document = {
        "info": {"image_root": "."},
        "images": [image],
        "annotations": annotations,
        "categories": categories,
    }
    return document, mask


@cache
def _examples() -> dict[str, bytes]:
    document, mask = truth_document()
    colour = np.dstack([mask // 2 + 60, mask // 3 + 20, 200 - mask // 4]).astype(np.uint8)
    labels = cv2.connectedComponents(mask)[1].astype(np.uint16)
    results = [
        {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": a["bbox"], "segmentation": a["segmentation"]}
        for a in document["annotations"]
    ]
    dark = {"minimum": {"r": 1, "c": 2}, "maximum": {"r": 20, "c": 30}}
    bbbc = [
        {
            "image": {"pathname": f"/images/{stem}.png", "shape": {"r": 1200, "c": 1600, "channels": 3}},
            "objects": [{"bounding_box": dark, "category": "red blood cell"}],
        }
        for stem in "ab"
    ]
    voc = "".join(
        f"<object><name>RBC</name><difficult>0</difficult><bndbox><xmin>{x}</xmin><ymin>1</ymin><xmax>{x + 9}</xmax>"
        "<ymax>20</ymax></bndbox></object>"
        for x in (1, 20)
    )
    parts = {"train": ["a", "b"], "val": ["c"], "test": [["/data/d.png", "/data/d_mask.png"]]}
    digest = splits_hash({"train": ["a", "b"], "val": ["c"], "test": ["d"]})
    rows = "{a: {}, b: {SEED: 3}, c: {evaluate: a}}"
    plan = f"config: a.yaml\noptions: {{SOLVER.MAX_ITER: 3}}\nseeds: [1, 2]\nrows: {rows}\n"
    coco = {**document, "annotations": [{**a, "score": 0.5} for a in document["annotations"]]}
    state = {
        "model": {"a.weight": torch.ones(2, 3), "b": torch.zeros(4)},
        "iteration": 3,
        "config": "MODEL: {}",
    }
    stream = io.BytesIO()
    torch.save(state, stream)
    arrays = {"model": {"a": np.ones((2, 3), np.float32), "b": np.zeros(4)}, "__author__": "x"}
    line = json.dumps({"iteration": 1, "total_loss": 0.5}) + "\n"
    shape = {"all_points_x": [5, 20, 20], "all_points_y": [5, 5, 20], "name": "polygon"}
    region = {"shape_attributes": shape, "region_attributes": {"class": "RBC"}}
    corners = [[5, 5], [20, 5], [20, 20]]
    brush: dict[str, Any] = {"original_width": 48, "original_height": 40, "type": "polygonlabels"}
    brush |= {"value": {"points": corners, "polygonlabels": ["RBC"]}}
    geometry = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    outline = {"label": "RBC", "points": corners, "group_id": 1, "shape_type": "polygon"}
    labelme = {"imagePath": "a.png", "imageHeight": 40, "imageWidth": 48, "shapes": [outline]}
    feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": "RBC"}}}
    via_3 = {
        "attribute": {"1": {"aname": "class", "type": 4, "options": {"0": "RBC"}}},
        "file": {"1": {"fid": 1, "fname": "a.png", "src": "a.png"}},
        "view": {"1": {"fid_list": ["1"]}},
        "metadata": {"m": {"vid": "1", "xy": [7, 5, 5, 20, 5, 20, 20], "av": {"1": "0"}}},
    }
    minimal = [{"image": "a.png", "annotation_id": 1, "label": [{**brush, **brush["value"]}]}]
    table = io.StringIO()
    header = ["filename", "region_shape_attributes", "region_attributes"]
    csv.writer(table).writerows([header, ["a.png", json.dumps(shape), json.dumps({"class": "RBC"})]])
    return {
        "labelme.json": _json(labelme),
        "label-studio.json": _json([{"data": {"image": "a.png"}, "annotations": [{"result": [brush]}]}]),
        "via.json": _json({"a": {"filename": "a.png", "size": 1, "regions": [region]}}),
        "via_3.json": _json(via_3),
        "label-studio-min.json": _json(minimal),
        "a.geojson": _json(feature),
        "via.csv": table.getvalue().encode(),
        "yolo.txt": b"0 0.5 0.5 0.4 0.4\n1 0.1 0.1 0.5 0.1 0.5 0.5\n",
        "cvat.xml": b'<annotations><image id="0" name="a.png" width="48" height="40"><polygon label="RBC" '
        b'points="5,5;20,5;20,20"/><mask label="WBC" rle="0,12" left="30" top="20" width="3" height="4"/></image>'
        b"</annotations>",
        "a.zip": _zipped("RBC-1.roi", ImagejRoi.frompoints(np.array(corners), name="RBC-1").tobytes()),
        "a.roi": ImagejRoi.frompoints(np.array(corners), name="RBC-1").tobytes(),
        "a_seg.npy": _image("npy", np.array({"masks": labels, "filename": "a.png"}, object)),
        "img/a.png": _image("png", colour),
        "a/images/a.png": _image("png", colour),
        "in/a.csv": b"id,class,score\n1,RBC,0.5\n2,RBC,0.5\n3,WBC,0.5\n",
        "binary.png": _image("png", mask),
        "palette.png": _image("png", mask, palette=True),
        "deep.png": _image("png", labels * 1000),
        "a.png": _image("png", colour),
        "a.jpg": _image("jpeg", colour),
        "a.bmp": _image("bmp", colour),
        "labels.tif": _image("tiff", labels, compression="zlib"),
        "strips.tif": _image("tiff", mask, rowsperstrip=8),
        "tiles.tif": _image(
            "tiff", np.tile(colour, (3, 3, 1)), tile=(16, 16), compression="jpeg", photometric="rgb"
        ),
        "float.tif": _image("tiff", labels.astype(np.float32), compression="lzw"),
        "labels.npy": _image("npy", labels),
        "float.npy": _image("npy", labels.astype(np.float32)),
        "voc.xml": f"<annotation><size><width>48</width><height>40</height></size>{voc}</annotation>".encode(),
        "train.txt": b"a\nb\n",
        "val.txt": b"c\n",
        "bbbc041.json": _json(bbbc),
        "annotations/instances_val.json": _json(document),
        "results.json": _json(results),
        "named.json": _json([{**r, "file_name": "a.png"} for r in results]),
        "predictions.json": _json([{**r, "file_name": "a.png", "category": "RBC"} for r in results]),
        "document.json": _json(coco),
        "splits.json": _json({**parts, "sha256": digest}),
        "table.csv": b"stem,patient\na,1\nb,2\nc,3\nd,1\n",
        "config.yaml": load_config(soak.CONFIG).dump().encode(),
        "short.yaml": f"_BASE_: {soak.CONFIG}\nINPUT: {{SCALE: 0.5}}\nSOLVER: {{MAX_ITER: 5}}\n".encode(),
        "voc.yaml": Path(soak.REPOSITORY, "configs/datasets/bccd_voc.yaml").read_bytes(),
        "masks.yaml": b"folders: [{image: a, mask: b}]\nmask: {kind: classes, values: {0: background, 1: RBC}}\n"
        b"instances: {min_area: 5, cut: 0.1}\n",
        "plan.yaml": plan.encode(),
        "a.pth": stream.getvalue(),
        "a.safetensors": safetensors_bytes(state["model"], {"config": "x"}),  # type: ignore[arg-type]
        "a.pkl": pickle.dumps(arrays, protocol=2),
        "run.json": _json({"seed": 1, "annotations": {"bccd_val": hashlib.sha256(b"c\n").hexdigest()}}),
        "metrics.json": (2 * line).encode(),
        "scores.json": _json({"bccd_val": {"segm": {"AP": 50.0}}}),
        "records/a.png.json": _record(),
        "manifest.json": _json({"config": "1", "options": {"a": 1}}),
        "coco/a.png.json": _json(coco),
        "csv/a.png.csv": b"image,cell\na.png,1\n",
    }
