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


def read_yolo_files(files: list[Path], images: ImageFiles) -> Imported:
    """Read the label file of every image; an image without one has no cells, as YOLO has it. Raises InputError
    where a line is wrong.
    """
    folder, labels = images.folder, set(files)
    names = read_yolo_names(folder)
    result = Imported(classes=[names[key] for key in sorted(names)])
    of_image = {
        name: label for name, path in images.paths.items() if (label := yolo_label_file(path)) in labels
    }
    left = sorted(labels - set(of_image.values()))
    of_image.update({name: Path(label) for label, name in images.match(map(str, left), str(folder)).items()})
    result.images += [ImportedImage(str(label), label) for label in left if label not in of_image.values()]
    for name, path in images.paths.items():
        label = of_image.get(name)
        part = next((p for p in map(part_of, reversed(Path(name).parts[:-1])) if p), None)
        image = ImportedImage(name, label or path, part=part)
        result.images.append(image)
        if label is None:
            result.counts["images without a label file, taken for images without cells"] += 1
            continue
        image.size = height, width = images.size(name)
        for number, values, score in read_yolo(label):
            xs, ys = yolo_points(values)
            xs, ys = [x * width for x in xs], [y * height for y in ys]
            cell = ImportedCell(yolo_class(names, number, label), score)
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
