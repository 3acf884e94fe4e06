"""What the conversion made of the images: their parts and the classes of their instances."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bccd_d2.errors import InputError
from bccd_d2.structures.coco import read_coco

PATTERN = "instances_*.json"


@dataclass(frozen=True)
class Annotations:
    """The output of a conversion, image by image.

    Attributes:
        parts: part (``train``, ``val``, ``test``, ...) by ``file_name``.
        classes: number of instances by class name, by ``file_name``; regions to ignore are not among them.
        ignored: number of regions with ``iscrowd`` by ``file_name``.
        names: names of all categories, in the order of their ids.
    """

    parts: dict[str, str]
    classes: dict[str, Counter[str]]
    ignored: Counter[str]
    names: list[str]


def read_annotations(folder: Path | str) -> Annotations:
    """Read the COCO files of a conversion.

    Args:
        folder: output folder of tools/convert_bccd.py, or its folder ``annotations``.

    Raises:
        InputError: there is no such file, one is no sound COCO document, or an image is in two parts.
    """
    folder = Path(folder)
    inner = folder / "annotations"
    files = sorted((inner if inner.is_dir() else folder).glob(PATTERN))
    if not files:
        raise InputError(f"{folder}: no annotations/{PATTERN}, expected the output of tools/convert_bccd.py")
    result = Annotations({}, {}, Counter(), [])
    by_id: dict[int, str] = {}
    for path in files:
        part = path.stem.removeprefix("instances_")
        document = read_coco(path)
        try:
            by_id.update({category["id"]: category["name"] for category in document["categories"]})
            names = {category["id"]: category["name"] for category in document["categories"]}
            images = {image["id"]: image["file_name"] for image in document["images"]}
            for file_name in images.values():
                if file_name in result.parts:
                    raise InputError(
                        f"{path}: {file_name!r} is in {result.parts[file_name]} too, expected one part"
                    )
                result.parts[file_name], result.classes[file_name] = part, Counter()
            for annotation in document["annotations"]:
                file_name = images[annotation["image_id"]]
                if annotation.get("iscrowd"):
                    result.ignored[file_name] += 1
                else:
                    result.classes[file_name][names[annotation["category_id"]]] += 1
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not a sound COCO document ({error!r}); tools/convert_bccd.py --check lists its faults"
            ) from error
    result.names.extend(by_id[number] for number in sorted(by_id))
    return result
