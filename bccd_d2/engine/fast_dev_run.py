"""A run of two iterations that touches everything a long one will touch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bccd_d2.data.registration import PARTS, annotation_file
from bccd_d2.files import write_json
from bccd_d2.io.coco_images import image_root
from bccd_d2.structures.coco import read_coco

_IMAGES = 2
# Two iterations, after each of which everything is due that a long run does now and then.
FAST_OPTIONS: Sequence[str] = (
    *("SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "1", "SOLVER.CHECKPOINT_PERIOD", "1"),
    *("TEST.EVAL_PERIOD", "1", "TEST.VALIDATION_LOSS_PERIOD", "1", "TEST.VALIDATION_LOSS_CROPS", "2"),
)


def reduced_data(root: Path, out: Path) -> Path:
    """Annotations of the first two images of each part; the images stay where they are.

    Args:
        root: what ``tools/convert_bccd.py`` wrote.
        out: where the annotations go.

    Returns:
        ``out``, to be registered in place of ``root``.

    Raises:
        InputError: a file is no COCO JSON.
    """
    for part in PARTS:
        file = annotation_file(root, part)
        if not file.is_file():
            continue
        content = read_coco(file)
        annotated = {annotation["image_id"] for annotation in content["annotations"]}
        # Images with cells first: training leaves out the others.
        images = sorted(content["images"], key=lambda image: image["id"] not in annotated)[:_IMAGES]
        kept = {image["id"] for image in images}
        folder = image_root(content, file).resolve()
        write_json(
            annotation_file(out, part),
            {
                **content,
                "info": {**content.get("info", {}), "image_root": str(folder)},
                "images": images,
                "annotations": [a for a in content["annotations"] if a["image_id"] in kept],
            },
        )
    return out
