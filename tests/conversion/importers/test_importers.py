"""Each format in its tool's documented layout: two squares of known class, and a cell that has only a box."""

from __future__ import annotations

import base64
import csv
import itertools
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from roifile import ImagejRoi

from bccd_d2.conversion.importers import recognise
from bccd_d2.errors import InputError
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.rle import decode_segmentation
from tools.convert_bccd import main

HEIGHT, WIDTH = 100, 160
RBC = [(20, 30), (60, 30), (60, 70), (20, 70)]
WBC = [(90, 20), (120, 20), (120, 60), (90, 60)]
DISC = (110, 75, 150, 95)
"""Box of the cell without an outline."""
OUTLINED = {("a", "RBC", (20, 30, 40, 40), 1600), ("a", "WBC", (90, 20, 30, 40), 1200)}
BOXED = {("b", "RBC", DISC)}


def draw(path: Path) -> Path:
    """Images a and b; in b a dark ellipse fills the box."""
    for stem in "ab":
        pixels = np.full((HEIGHT, WIDTH, 3), 235, np.uint8)
        if stem == "b":
            cv2.ellipse(pixels, (130, 85), (20, 10), 0, 0, 360, (150, 60, 110), -1)
        path.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path / f"{stem}.png"), pixels)
    return path


def dump(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def flat(points: list[tuple[int, int]]) -> list[float]:
    return [float(value) for point in points for value in point]


def coco(prefix: str = "", **more: Any) -> dict[str, Any]:
    x0, y0, x1, y1 = DISC
    keys = ("id", "image_id", "category_id", "segmentation", "bbox", "area")
    rows = [
        (1, 0, 0, [flat(RBC)], [20, 30, 40, 40], 1600),
        (2, 0, 1, [flat(WBC)], [90, 20, 30, 40], 1200),
        (3, 1, 0, [], [x0, y0, x1 - x0, y1 - y0], 800),
    ]
    size = {"height": HEIGHT, "width": WIDTH}
    return {
        "images": [{"id": i, "file_name": f"{prefix}{s}.png", **size} for i, s in enumerate("ab")],
        "categories": [{"id": 0, "name": "RBC"}, {"id": 1, "name": "WBC"}],
        "annotations": [dict(zip(keys, row)) for row in rows],
        **more,
    }


def cvat_coco(root: Path) -> Path:
    draw(root / "images" / "default")
    dump(root / "annotations" / "instances_default.json", coco(licenses=[{"name": "", "id": 0, "url": ""}]))
    return root


def roboflow_coco(root: Path) -> Path:
    draw(root / "train")
    document = coco()
    document["categories"] = [{"id": 0, "name": "cells", "supercategory": "none"}] + [
        {"id": i, "name": name, "supercategory": "cells"} for i, name in enumerate(["RBC", "WBC"], start=1)
    ]
    for annotation in document["annotations"]:
        annotation["category_id"] += 1
    dump(root / "train" / "_annotations.coco.json", document)
    return root


def label_studio_coco(root: Path) -> Path:
    draw(root / "images")
    return dump(
        root / "result.json",
        coco(prefix="images\\\\0a1b2c3d-".replace("\\\\", "\\"), info={"contributor": "Label Studio"}),
    )


def makesense_coco(root: Path) -> Path:
    draw(root)
    document = coco()
    for annotation in document["annotations"]:  # no iscrowd, text for numbers
        annotation["image_id"] = str(annotation["image_id"])
    return dump(root / "labels_my-project.json", document)


def yolo(root: Path, *, segments: bool = True) -> Path:
    draw(root / "images" / "train")
    (root / "labels" / "train").mkdir(parents=True)
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nnames:\n  0: RBC\n  1: WBC\n")
    share = [WIDTH, HEIGHT]
    lines = []
    for number, points in enumerate((RBC, WBC)):
        lines.append(" ".join([str(number), *(str(v / s) for p in points for v, s in zip(p, share))]))
    (root / "labels" / "train" / "a.txt").write_text("\n".join(lines))
    x0, y0, x1, y1 = DISC
    box = [(x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT]
    (root / "labels" / "train" / "b.txt").write_text(" ".join(map(str, [0, *box])))
    return root


def makesense_yolo(root: Path) -> Path:
    yolo(root / "y")
    draw(root / "photographs")
    (root / "labels").mkdir()
    for stem in "ab":
        (root / "y" / "labels" / "train" / f"{stem}.txt").rename(root / "labels" / f"{stem}.txt")
        (root / "y" / "images" / "train" / f"{stem}.png").unlink()
    (root / "y" / "data.yaml").unlink()
    (root / "labels" / "classes.txt").write_text("RBC\nWBC\n")
    return root


def cvat(root: Path) -> Path:
    draw(root / "images")

    def points(corners: list[tuple[int, int]]) -> str:
        return ";".join(f"{x:.2f},{y:.2f}" for x, y in corners)

    x0, y0, x1, y1 = DISC
    (root / "annotations.xml").write_text(
        f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><job><labels><label><name>RBC</name></label><label><name>WBC</name></label>
</labels></job></meta>
<image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">
<polygon label="RBC" source="manual" occluded="0" points="{points(RBC)}" z_order="0"></polygon>
<mask label="WBC" occluded="0" rle="0, 1200" left="90" top="20" width="30" height="40" z_order="0"></mask>
<points label="WBC" points="1.0,1.0"></points></image>
<image id="1" name="b.png" width="{WIDTH}" height="{HEIGHT}">
<box label="RBC" occluded="0" xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}" z_order="0"></box></image></annotations>""",
        encoding="utf-8",
    )
    return root


def labelme(root: Path) -> Path:
    draw(root)
    filled = base64.b64encode(cv2.imencode(".png", np.full((40, 30), 255, np.uint8))[1].tobytes()).decode()
    mask = {"label": "WBC", "points": [[90, 20], [119, 59]], "shape_type": "mask", "mask": filled}
    shapes = [
        {"label": "RBC", "points": RBC, "group_id": None, "shape_type": "polygon", "flags": {}},
        {**mask, "group_id": None},
        {"label": "WBC", "points": [[1, 1]], "group_id": None, "shape_type": "point"},
    ]
    common = {"version": "5.4.1", "flags": {}, "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    dump(root / "a.json", {**common, "shapes": shapes, "imagePath": "..\\photographs\\a.png"})
    box = {"label": "RBC", "points": [DISC[:2], DISC[2:]], "group_id": None, "shape_type": "rectangle"}
    dump(root / "b.json", {**common, "shapes": [box], "imagePath": "b.png"})
    return root


def pack_brush(mask: np.ndarray) -> list[int]:
    """The brush of Label Studio in its simplest form: each pixel's RGBA by runs of a length of 16 bits."""
    values = np.repeat((mask * 255).astype(np.uint8).ravel(), 4)
    bits = f"{values.size:032b}" + f"{7:05b}" + f"{3:04b}{7:04b}{11:04b}{15:04b}"
    edges = np.flatnonzero(np.diff(values, prepend=values[0] ^ 1, append=values[-1] ^ 1))
    for start, stop in itertools.pairwise(edges):
        bits += f"1{3:02b}{stop - start - 1:016b}{values[start]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def label_studio_results() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    common = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image"}
    points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in RBC]
    brush = np.zeros((HEIGHT, WIDTH), np.uint8)
    brush[20:60, 90:120] = 1
    x0, y0, x1, y1 = DISC
    box = {"x": 100 * x0 / WIDTH, "y": 100 * y0 / HEIGHT, "width": 100 * (x1 - x0) / WIDTH}
    box |= {"height": 100 * (y1 - y0) / HEIGHT, "rotation": 0, "rectanglelabels": ["RBC"]}
    polygon = {"points": points, "closed": True, "polygonlabels": ["RBC"]}
    strokes = {"format": "rle", "rle": pack_brush(brush), "brushlabels": ["WBC"]}
    return (
        [
            {**common, "type": "polygonlabels", "value": polygon},
            {**common, "type": "brushlabels", "value": strokes},
            {"type": "choices", "value": {"choices": ["good"]}},
        ],
        [{**common, "type": "rectanglelabels", "value": box}],
    )


def label_studio(root: Path) -> Path:
    draw(root / "images")
    a, b = label_studio_results()
    tasks = [
        {"id": 1, "data": {"image": "/data/upload/3/0a1b2c3d-a.png"}}
        | {"annotations": [{"result": [], "was_cancelled": True}, {"result": a, "was_cancelled": False}]},
        {"id": 2, "data": {"image": "/data/local-files/?d=set/images/b.png"}, "annotations": [{"result": b}]},
        {"id": 3, "data": {"image": "c.png"}, "annotations": []},
    ]
    return dump(root / "project-1.json", tasks)


def label_studio_min(root: Path) -> Path:
    draw(root)
    rows = []
    for number, (stem, results) in enumerate(zip("ab", label_studio_results())):
        found = [
            {**r["value"], **{k: v for k, v in r.items() if k != "value"}}
            for r in results
            if r["type"] != "choices"
        ]
        rows.append(
            {"image": f"/data/upload/{stem}.png", "id": number, "label": found, "annotation_id": number}
        )
    return dump(root / "min.json", rows)


def via_regions() -> dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]:
    def shape(name: str, points: list[tuple[int, int]]) -> dict[str, Any]:
        return {"name": name, "all_points_x": [p[0] for p in points], "all_points_y": [p[1] for p in points]}

    x0, y0, x1, y1 = DISC
    box = {"name": "rect", "x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
    red, white = {"class": "RBC"}, {"class": "WBC"}
    return {
        "a.png": [
            (shape("polygon", RBC), red),
            (shape("polyline", [(1, 1), (2, 2)]), white),
            (shape("polygon", WBC), white),
        ],
        "b.png": [(box, red)],
    }


def via(root: Path) -> Path:
    draw(root)
    content = {
        f"{name}1234": {"filename": name, "size": 1234, "file_attributes": {}}
        | {"regions": [{"shape_attributes": s, "region_attributes": a} for s, a in regions]}
        for name, regions in via_regions().items()
    }
    return dump(root / "via_region_data.json", content)


def via_project(root: Path) -> Path:
    content = json.loads(via(root).read_text())
    (root / "via_region_data.json").unlink()
    return dump(root / "via_project.json", {"_via_settings": {}, "_via_img_metadata": content})


def via_3(root: Path) -> Path:
    """A project of VIA 3; shapes and classes are numbers, a view shows a file."""
    draw(root)
    numbers = {"polygon": 7, "polyline": 6, "rect": 2}
    options = {"0": "RBC", "1": "WBC"}
    metadata = {"1_time": {"vid": "1", "flg": 0, "z": [], "xy": [], "av": {"2": "sharp"}}}
    for view, regions in enumerate(via_regions().values(), start=1):
        for index, (shape, attributes) in enumerate(regions):
            points = zip(shape.get("all_points_x", ()), shape.get("all_points_y", ()))
            values = flat(list(points)) or [shape[key] for key in ("x", "y", "width", "height")]
            class_id = {name: number for number, name in options.items()}[attributes["class"]]
            xy = [numbers[shape["name"]], *values]
            metadata[f"{view}_{index}"] = {
                "vid": str(view),
                "flg": 0,
                "z": [],
                "xy": xy,
                "av": {"1": class_id},
            }
    content = {
        "project": {"data_format_version": "3.1.1", "vid_list": ["1", "2"]},
        "config": {},
        "attribute": {
            "1": {"aname": "class", "anchor_id": "FILE1_Z0_XY1", "type": 4, "options": options},
            "2": {"aname": "focus", "anchor_id": "FILE1_Z0_XY0", "type": 1, "options": {}},
        },
        "file": {
            str(n): {"fid": n, "fname": f"{stem}.png", "type": 2, "loc": 1, "src": f"{stem}.png"}
            for n, stem in enumerate("ab", start=1)
        },
        "metadata": metadata,
        "view": {str(n): {"fid_list": [n]} for n in (1, 2)},
    }
    return dump(root / "via_project.json", content)


def via_csv(root: Path) -> Path:
    draw(root)
    path = root / "via_region_data.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
        table.writerow(header.split(","))
        for name, regions in via_regions().items():
            for number, (shape, attributes) in enumerate(regions):
                table.writerow(
                    [name, 1, "{}", len(regions), number, json.dumps(shape), json.dumps(attributes)]
                )
    return path


def geojson(root: Path) -> Path:
    draw(root)

    def feature(points: list[tuple[int, int]], name: str) -> dict[str, Any]:
        geometry = {"type": "Polygon", "coordinates": [[*points, points[0]]]}
        properties = {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 0]}}
        return {"type": "Feature", "geometry": geometry, "properties": properties}

    features = [feature(RBC, "RBC"), feature(WBC, "WBC")]
    dump(root / "a.geojson", {"type": "FeatureCollection", "features": features})
    return root


def imagej(root: Path) -> Path:
    draw(root)
    with zipfile.ZipFile(root / "a_RoiSet.zip", "w") as archive:
        for name, points in (("RBC-0001", RBC), ("WBC-0002", WBC)):
            archive.writestr(f"{name}.roi", ImagejRoi.frompoints(np.array(points), name=name).tobytes())
    return root


def mask_folders(root: Path) -> Path:
    for stem in "ab":
        draw(root / stem / "images")
        other = "b" if stem == "a" else "a"
        (root / stem / "images" / f"{other}.png").unlink()
    for number, (row, column, height, width) in enumerate([(30, 20, 40, 40), (20, 90, 40, 30)]):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[row : row + height, column : column + width] = 255
        (root / "a" / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(root / "a" / "masks" / f"{number:08x}.png"), mask)
    return root


def cellpose(root: Path) -> Path:
    draw(root)
    masks = np.zeros((HEIGHT, WIDTH), np.uint16)
    masks[30:70, 20:60], masks[20:60, 90:120] = 3, 7
    content = {
        "masks": masks,
        "outlines": masks > 9,
        "filename": str(root / "a.png"),
        "diameter": np.float64(30.0),
    }
    np.save(root / "a_seg.npy", np.array({**content, "chan_choose": [0, 0], "flows": [masks, None]}, object))
    return root


WITH_BOX = {f.__name__: f for f in (
    cvat_coco, roboflow_coco, label_studio_coco, makesense_coco, yolo, makesense_yolo, cvat, labelme, label_studio,
    label_studio_min, via, via_project, via_csv, via_3,
)}  # fmt: skip
WITHOUT_BOX = {f.__name__: f for f in (geojson, imagej, mask_folders, cellpose)}
KINDS = {
    "cvat_coco": "coco", "roboflow_coco": "coco", "label_studio_coco": "coco", "makesense_coco": "coco",
    "makesense_yolo": "yolo", "label_studio": "label-studio", "label_studio_min": "label-studio", "via_project": "via",
    "via_csv": "via", "via_3": "via", "mask_folders": "mask-folders",
}  # fmt: skip


def convert(path: Path, out: Path, *options: str) -> dict[str, Any]:
    """The document of train, where all images go."""
    ratios = ["--ratios", "1", "0", "0"]
    assert main(["--root", str(path), "--output", str(out), "--workers", "1", *ratios, *options]) == 0
    return read_coco(out / "annotations" / "instances_train.json")


def cells(document: dict[str, Any], *, weak: bool = False) -> set[tuple]:
    stems = {image["id"]: Path(image["file_name"]).stem for image in document["images"]}
    names = {category["id"]: category["name"] for category in document["categories"]}
    found = set()
    for a in document["annotations"]:
        x, y, width, height = a["bbox"]
        inside = decode_segmentation(a["segmentation"], HEIGHT, WIDTH)
        assert int(inside.sum()) == a["area"]
        if a.get("weak", False) is not weak:
            continue
        if weak:
            assert inside[y : y + height, x : x + width].sum() > 0.5 * width * height
            found.add((stems[a["image_id"]], names[a["category_id"]], (x, y, x + width, y + height)))
        else:
            assert inside[y : y + height, x : x + width].all()
            found.add((stems[a["image_id"]], names[a["category_id"]], (x, y, width, height), a["area"]))
    return found


@pytest.mark.parametrize("make", [*WITH_BOX.values(), *WITHOUT_BOX.values()], ids=lambda f: f.__name__)
def test_a_format_is_read_as_it_was_drawn(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "data")
    kind = KINDS.get(make.__name__, make.__name__)
    assert recognise(path) == kind
    document = convert(path, tmp_path / "out")
    expected = OUTLINED
    if make in (mask_folders, cellpose):
        expected = {(stem, "cell", box, area) for stem, _, box, area in OUTLINED}
    assert cells(document) == expected
    assert cells(document, weak=True) == (BOXED if make.__name__ in WITH_BOX else set())
    names = [category["name"] for category in document["categories"]]
    assert names == (["cell"] if make in (mask_folders, cellpose) else ["RBC", "WBC"])
    assert all(
        (tmp_path / "out" / document["info"]["image_root"] / i["file_name"]).is_file()
        for i in document["images"]
    )


def test_the_parts_of_a_roboflow_export_are_the_official_split(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        roboflow_coco(tmp_path / part)
        (tmp_path / part / "train").rename(tmp_path / f"{part}_")
        (tmp_path / part).rmdir()
        (tmp_path / f"{part}_").rename(tmp_path / part)
    document = convert(tmp_path, tmp_path / "out", "--official")
    assert cells(document) == OUTLINED
    assert cells(read_coco(tmp_path / "out" / "annotations" / "instances_val.json")) == OUTLINED


def test_classes_are_renamed_and_dropped_by_a_dataset_spec(tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text("classes: {format: voc, categories: {RBC: red, WBC: ignore}, default: red}\n")
    document = convert(labelme(tmp_path / "data"), tmp_path / "out", "--from", "auto", "--spec", str(spec))
    assert [category["name"] for category in document["categories"]] == ["red"]
    assert {(a["area"], a["iscrowd"]) for a in document["annotations"] if not a.get("weak")} == {
        (1600, 0),
        (1200, 1),
    }


def test_images_elsewhere_are_found_by_name(tmp_path: Path) -> None:
    path = dump(tmp_path / "somewhere" / "a.json", coco())
    images = draw(tmp_path / "photographs" / "deep")
    with pytest.raises(InputError, match=r"images that are not found \(2 of 2\):\n  a\.png"):
        convert(path, tmp_path / "none")
    document = convert(path, tmp_path / "out", "--images", str(images.parent))
    assert cells(document) == OUTLINED


def test_polygons_with_holes_and_parts_cover_what_they_should(tmp_path: Path) -> None:
    draw(tmp_path / "data")
    hole = [[30, 40], [30, 50], [40, 50], [40, 40], [30, 40]]
    geometry = {
        "type": "MultiPolygon",
        "coordinates": [[[*map(list, [*RBC, RBC[0]])], hole], [[*map(list, [*WBC, WBC[0]])]]],
    }
    dump(tmp_path / "data" / "a.geojson", {"type": "Feature", "geometry": geometry, "properties": {}})
    (annotation,) = convert(tmp_path / "data", tmp_path / "out")["annotations"]
    assert annotation["area"] == 1600 - 100 + 1200
    assert annotation["bbox"] == [20, 20, 100, 50]


def test_one_label_and_group_of_labelme_is_one_cell(tmp_path: Path) -> None:
    draw(tmp_path)
    shapes = [{"label": "RBC", "points": p, "group_id": 4, "shape_type": "polygon"} for p in (RBC, WBC)]
    shapes += [{"label": "WBC", "points": [[50, 50], [50, 60]], "group_id": 4, "shape_type": "circle"}]
    dump(tmp_path / "a.json", {"shapes": shapes, "imagePath": "a.png"})
    first, second = convert(tmp_path, tmp_path / "out")["annotations"]
    assert first["area"] == 2800
    assert second["area"] == pytest.approx(np.pi * 100, rel=0.02)


def refused(tmp_path: Path, message: str, *options: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(tmp_path, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    draw(tmp_path)
    np.save(tmp_path / "a_seg.npy", np.array({"masks": Runs()}, object))
    refused(tmp_path, "which is not read from a pickle.*--spec label_maps")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "a_seg.npy").write_bytes(np.lib.format.magic(1, 0) + pickle.dumps({}))
    refused(tmp_path, "not Cellpose's _seg.npy")


@pytest.mark.parametrize("kind", ["coco", "labelme", "label-studio", "via", "geojson"])
@pytest.mark.parametrize(
    "content",
    [[], {}, [1], {"images": 1, "annotations": []}, [{"data": {}}], {"shapes": 3, "imagePath": "a.png"}]
    + [{"shapes": [{"points": 1}], "imagePath": "a.png"}, {"x": {"regions": [1], "filename": "a.png"}}]
    + [
        [{"data": {"image": "a.png"}, "annotations": [{"result": 3}]}],
        {"type": "Feature", "geometry": 3},
        None,
    ],
    ids=repr,
)
def test_a_file_of_another_shape_is_refused_by_name(tmp_path: Path, kind: str, content: Any) -> None:
    draw(tmp_path / "data")
    path = dump(tmp_path / "data" / "a.json", content)
    if kind == "geojson":
        path = path.rename(path.with_suffix(".geojson"))
    with pytest.raises(InputError, match=r"a\.(geo)?json|no annotated image"):
        main(["--root", str(path), "--output", str(tmp_path / "out"), "--from", kind, "--workers", "1"])


def test_all_faults_of_a_coco_file_are_listed(tmp_path: Path) -> None:
    document = coco()
    document["annotations"][0]["image_id"] = 77
    document["annotations"][1]["category_id"] = "platelet"
    draw(tmp_path)
    dump(tmp_path / "a.json", document)
    refused(
        tmp_path,
        r"2 faults:\n  annotation 1: unknown image_id 77\n  annotation 2: unknown category_id 'platelet'",
    )


@pytest.mark.parametrize("value", [[], {}, None, "x"], ids=repr)
@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_a_box_of_no_image_or_class_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    document = coco()
    document["annotations"][2][key] = value
    draw(tmp_path)
    dump(tmp_path / "a.json", document)
    refused(tmp_path, "a.json: ")


def test_a_file_name_that_is_none_is_refused(tmp_path: Path) -> None:
    via(tmp_path)
    dump(tmp_path / "via_region_data.json", {"x": {"filename": 3, "size": 1, "regions": []}})
    refused(tmp_path, "image '3', expected a file name")


def test_a_class_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = labelme(tmp_path) / "a.json"
    path.write_text(path.read_text().replace('"WBC"', r'"\ud800"'))
    refused(tmp_path, r"a\.json: class '\\ud800', expected text in UTF-8")


@pytest.mark.parametrize("coordinates", [[7], [[[1, 10**400], [2, 2], [3, 1]]], [["x"]], [[]]])
def test_outlines_that_are_none_are_refused(tmp_path: Path, coordinates: list) -> None:
    draw(tmp_path)
    geometry = {"type": "Polygon", "coordinates": coordinates}
    dump(tmp_path / "a.geojson", {"type": "Feature", "geometry": geometry, "properties": {}})
    refused(tmp_path, r"a\.geojson, feature 0: coordinates that are no rings")


def test_annotations_of_another_image_are_refused_or_left_out(tmp_path: Path) -> None:
    labelme(tmp_path)
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((50, 50, 3), np.uint8))
    refused(tmp_path, "b.json: annotations for an image of 160x100 pixels, expected 50x50")
    document = convert(tmp_path, tmp_path / "out", "--skip-bad")
    assert cells(document) == OUTLINED


@pytest.mark.parametrize(
    "options", [("--fill-holes", "9"), ("--cut-touching",), ("--min-area-relative", "0.1"), ("--boxes", "a")]
)
def test_options_for_masks_are_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    labelme(tmp_path)
    refused(tmp_path, f"{options[0]}: for masks", "--from", "auto", *options)


def test_what_is_not_recognised_is_said(tmp_path: Path) -> None:
    draw(tmp_path)
    refused(tmp_path, r"no image with a mask.*\n.*annotations of no known format; give --from")
    labelme(tmp_path)
    geojson(tmp_path)
    refused(tmp_path, "annotations of 1 of geojson, 2 of labelme; give --from")
    assert len(convert(tmp_path, tmp_path / "out", "--from", "geojson")["annotations"]) == 2


def test_geojson_may_be_called_json_and_lie_in_folders_as_its_images_do(tmp_path: Path) -> None:
    path = geojson(tmp_path / "day 1" / "images") / "a.geojson"
    path.rename(path.with_suffix(".json"))
    geojson(tmp_path / "day 2" / "images")
    found = convert(tmp_path, tmp_path / "out")
    assert sorted(image["file_name"] for image in found["images"]) == [
        f"day {n}/images/a.png" for n in (1, 2)
    ]
    assert len(found["annotations"]) == 4


CLUTTER = (".ipynb_checkpoints/{}-checkpoint{}", "__MACOSX/._{}{}", ".trash/{}{}")


@pytest.mark.parametrize("make", [yolo, labelme, geojson], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", CLUTTER)
def test_what_programs_leave_in_hidden_folders_is_no_annotation(
    tmp_path: Path, make: Callable[[Path], Path], name: str
) -> None:
    root = make(tmp_path / "data")
    for path in [p for p in root.rglob("a.*") if p.is_file()]:
        copy = path.parent / name.format(path.stem, path.suffix)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert cells(convert(root, tmp_path / "out")) == OUTLINED


CLASSES = {
    "spaces": (labelme, "a.json", '"RBC"', '" RBC "', "RBC"),
    "no label": (labelme, "a.json", '"RBC"', "null", "cell"),
    "decomposed": (labelme, "a.json", '"RBC"', '"e\u0301"', "\u00e9"),
    "a number": (via, "via_region_data.json", '{"class": "RBC"}', '{"class": 7}', "7"),
    "one tick": (via, "via_region_data.json", '{"class": "RBC"}', '{"class": {"R": true, "W": false}}', "R"),
    "names": (geojson, "a.geojson", '"name": "RBC"', '"names": ["RBC", "large"]', "RBC"),
    "derived": (geojson, "a.geojson", '"name": "RBC"', '"name": "RBC: large"', "RBC"),
    "unlabelled": (label_studio, "project-1.json", '"polygonlabels": ["RBC"]', '"x": 0', "cell"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_read_however_a_tool_writes_it(tmp_path: Path, name: str) -> None:
    make, file, old, new, expected = CLASSES[name]
    make(tmp_path)
    content = (tmp_path / file).read_text()
    assert old in content
    (tmp_path / file).write_text(content.replace(old, new))
    found = {area: label for _, label, _, area in cells(convert(tmp_path / file, tmp_path / "out"))}
    assert found == {1600: expected, 1200: "WBC"}


@pytest.mark.parametrize(
    ("make", "file", "old", "new", "message"),
    [
        (via, "via_region_data.json", '{"class": "RBC"}', '{"class": {"R": 1, "W": 1}}', "class R, W, expected one"),
        (via, "via_region_data.json", '"all_points_x": [20, ', '"all_points_x": [', r"zip\(\) argument 2 is longer"),
        (labelme, "a.json", "}", "", r"a\.json: .*JSON"),
        (makesense_coco, "labels_my-project.json", "}", "", r"labels_my-project\.json: .*JSON"),
        (yolo, "data.yaml", "train:", "kpt_shape: [4, 3]\ntrain:", "kpt_shape, labels of key points"),
    ],
)  # fmt: skip
def test_what_would_be_read_wrongly_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], file: str, old: str, new: str, message: str
) -> None:
    make(tmp_path)
    content = (tmp_path / file).read_text()
    assert old in content
    (tmp_path / file).write_text(content.replace(old, new))
    with pytest.raises(InputError, match=message):
        convert(tmp_path if make is yolo else tmp_path / file, tmp_path / "out")


@pytest.mark.parametrize("name", ["data.yml", "cells.yaml", "obj.names"])
def test_names_of_yolo_classes_are_found(tmp_path: Path, name: str) -> None:
    path = yolo(tmp_path) / "data.yaml"
    path.rename(tmp_path / name)
    if name == "obj.names":
        (tmp_path / name).write_text("RBC\nWBC\n\n")
    assert cells(convert(tmp_path, tmp_path / "out")) == OUTLINED


def test_a_line_that_is_missing_in_a_list_of_names_shifts_no_class(tmp_path: Path) -> None:
    (yolo(tmp_path) / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("RBC\n\nWBC\n")
    refused(tmp_path, r"a\.txt: class 1, expected one of 0, 2")


@pytest.mark.parametrize("make", [yolo, cvat, labelme], ids=lambda f: f.__name__)
def test_a_box_that_is_there_twice_is_one_cell(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    make(tmp_path)
    if make is yolo:
        path = tmp_path / "labels/train/b.txt"
        path.write_text(f"{path.read_text()}\n{path.read_text()}\n")
    elif make is cvat:
        path = tmp_path / "annotations.xml"
        box = path.read_text().partition("<box")[2].partition("</box>")[0]
        path.write_text(path.read_text().replace("</box>", f"</box><box{box}</box>"))
    else:
        content = json.loads((tmp_path / "b.json").read_text())
        dump(tmp_path / "b.json", {**content, "shapes": content["shapes"] * 2})
    document = convert(tmp_path, tmp_path / "out")
    assert cells(document, weak=True) == BOXED
    assert len(document["annotations"]) == 3


@pytest.mark.parametrize(("turned", "box"), [(0, DISC), (90, (120, 65, 140, 105)), (180, DISC)])
def test_a_turned_box_of_cvat_covers_what_it_shows(
    tmp_path: Path, turned: int, box: tuple[int, int, int, int]
) -> None:
    path = cvat(tmp_path) / "annotations.xml"
    path.write_text(path.read_text().replace("<box ", f'<box rotation="{turned}.0" '))
    x0, y0, x1, y1 = box
    (found,) = [a for a in convert(tmp_path, tmp_path / "out")["annotations"] if a.get("weak")]
    assert found["bbox"] == [x0, y0, x1 - x0, min(y1, HEIGHT) - y0]


@pytest.mark.parametrize("high", [1, 255], ids=["0 and 1", "0 and 255"])
def test_masks_of_single_cells_have_any_two_values(tmp_path: Path, high: int) -> None:
    for path in (mask_folders(tmp_path) / "a" / "masks").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) // 255 * high)
    assert len(convert(tmp_path, tmp_path / "out")["annotations"]) == 2


def test_a_mask_of_another_name_is_no_single_cell(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (mask_folders(data) / "a" / "masks" / f"{1:08x}.png").unlink()
    assert len(convert(data, tmp_path / "out")["annotations"]) == 1
    (data / "a").rename(data / "smears")
    with pytest.raises(InputError, match=r"smears/images/a\.png: image without mask"):
        convert(data, tmp_path / "none")


def test_a_region_around_the_whole_image_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = geojson(tmp_path) / "a.geojson"
    content = json.loads(path.read_text())
    around = {**content["features"][0], "properties": None}
    around["geometry"] = {
        "type": "Polygon",
        "coordinates": [[[0, 0], [160, 0], [160, 100], [0, 100], [0, 0]]],
    }
    dump(path, {**content, "features": [around, *content["features"]]})
    convert(tmp_path, tmp_path / "out")
    assert "one instance covers most of the image and touches all its sides (1 images)" in caplog.text
