"""Two drawn images whose errors can be told by hand, as files."""

import json

import cv2
import numpy as np

from bccd_d2.structures.cells import Cells

HEIGHT, WIDTH = 240, 320
RBC, WBC = 0, 1
NAMES = ["RBC", "WBC"]
CELLS = [(20, 20, RBC), (70, 20, RBC), (160, 20, RBC), (20, 120, WBC), (160, 120, RBC), (0, 190, RBC)]
"""Upper left corner and class of squares of 40 px; the last touches the border, the first two are 10 px apart."""
SIDE = 40


def square(x, y, width=SIDE, height=SIDE):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + height, x : x + width] = True
    return mask


def truth():
    return Cells.from_masks(
        HEIGHT, WIDTH, [square(x, y) for x, y, _ in CELLS], classes=[kind for _, _, kind in CELLS]
    )


def flawed():
    """The first two in one outline, the third missed, the WBC taken for an RBC, one outline on nothing."""
    masks = [square(20, 20, 90), square(20, 120), square(160, 120), square(0, 190), square(250, 100)]
    return Cells.from_masks(HEIGHT, WIDTH, masks, scores=[0.9, 0.8, 0.7, 0.6, 0.55])


def entries(cells, image_id):
    return [
        {"image_id": image_id, "category_id": int(kind) + 1, "score": float(score), "segmentation": rle}
        for rle, kind, score in zip(cells.rles(), cells.classes, cells.scores)
    ]


def write_scene(root):
    """A data set with val and test, each of a perfectly and a poorly predicted image; predictions of both parts."""
    images = root / "images"
    images.mkdir(parents=True)
    (root / "annotations").mkdir()
    cells = truth()
    drawn = np.full((HEIGHT, WIDTH, 3), 220, np.uint8)
    drawn[cells.label_image() > 0] = (160, 110, 170)
    for name in ("good", "bad <1>"):
        cv2.imwrite(str(images / f"{name}.png"), drawn)
    listed = [
        {"id": number, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
        for number, name in ((1, "good"), (2, "bad <1>"))
    ]
    annotations = [
        {
            "id": 100 * image["id"] + index,
            "image_id": image["id"],
            "category_id": int(kind) + 1,
            "segmentation": rle,
            "area": SIDE**2,
            "bbox": [x, y, SIDE, SIDE],
            "iscrowd": 0,
        }
        for image in listed
        for index, (rle, kind, (x, y, _)) in enumerate(zip(cells.rles(), cells.classes, CELLS))
    ]
    document = {
        "info": {"image_root": "images", "files_sha256": "f" * 64},
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "RBC"}, {"id": 2, "name": "WBC"}],
    }
    results = entries(cells, 1) + entries(flawed(), 2)
    for part in ("val", "test"):
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(document))
        (root / f"{part}.json").write_text(json.dumps(results))
    return root
