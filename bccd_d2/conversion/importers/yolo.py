"""YOLO labels, boxes and segments, of Ultralytics, Roboflow, makesense, LabelImg and Darknet."""

from __future__ import annotations

from pathlib import Path

from bccd_d2.conversion.importers.common import (
    ImageFiles,
    Imported,
    ImportedCell,
    ImportedImage,
    part_of,
    ring,
)
from bccd_d2.conversion.yolo_labels import (
    YOLO_NAMES,
    read_yolo,
    read_yolo_names,
    yolo_class,
    yolo_label_file,
    yolo_points,
)
from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image_size


def read_yolo_files(files: list[Path], images: ImageFiles) -> Imported:
    """Read the label file of every image; an image without one has no cells, as YOLO has it. Raises InputError
    where labels belong to no image, or a line is wrong.
    """
    folder = images.folder
    names = read_yolo_names(folder)
    result = Imported(classes=[names[key] for key in sorted(names)])
    of_image = {path: label for path in images.paths.values() if (label := yolo_label_file(path)) in files}
    left = sorted(set(files) - set(of_image.values()))
    of_image.update({path: Path(label) for label, path in images.match(map(str, left), str(folder)).items()})
    lost = sorted(set(files) - set(of_image.values()))
    if lost:
        raise InputError(
            f"{lost[0]}: no image for these labels ({len(lost)} such files); expected it in images/ beside labels/, "
            "or give its folder with --images"
        )
    for path in images.paths.values():
        label = of_image.get(path)
        relative = path.relative_to(folder)
        part = next((p for p in map(part_of, reversed(relative.parts[:-1])) if p), None)
        image = ImportedImage(relative.as_posix(), label or path, part=part)
        result.images.append(image)
        if label is None:
            result.counts["images without a label file, taken for images without cells"] += 1
            continue
        image.size = height, width = read_image_size(path)
        for number, values in read_yolo(label):
            xs, ys = yolo_points(values)
            xs, ys = [x * width for x in xs], [y * height for y in ys]
            cell = ImportedCell(yolo_class(names, number, label))
            if len(values) == 4:
                cell.box = (xs[0], ys[0], xs[1], ys[1])
            else:
                cell.rings = [ring(xs, ys)]
            image.cells.append(cell)
    return result


def is_yolo(path: Path) -> bool:
    """Whether a text file holds YOLO labels."""
    if path.name in YOLO_NAMES or path.suffix.lower() != ".txt":
        return False
    try:
        return bool(read_yolo(path)) or path.parent.name.lower() == "labels"
    except (InputError, OSError):
        return False
