"""YOLO labels, boxes and segments, of Ultralytics, Roboflow, makesense, LabelImg and Darknet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bccd_d2.conversion.importers.common import (
    ImageFiles,
    Imported,
    ImportedCell,
    ImportedImage,
    part_of,
    ring,
)
from bccd_d2.errors import InputError
from bccd_d2.files import read_lines, read_yaml
from bccd_d2.io.coco_images import image_path

YOLO_NAMES = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names", "_darknet.labels")
"""Files that name the classes of a YOLO data set: Ultralytics, makesense and LabelImg, Darknet, Roboflow."""
YOLO_REACH = 0.5
"""How far outside the image, in its sides, a YOLO coordinate may lie; further out it was not divided by the sides."""


def read_yolo_files(files: list[Path], images: ImageFiles, result: Imported) -> None:
    """Read the label file of every image; an image without one has no cells, as YOLO has it. Raises InputError
    where a line is wrong.
    """
    folder, labels = images.folder, set(files)
    names = read_yolo_names(folder)
    result.classes += [names[key] for key in sorted(names)]
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
        if label is None:
            result.counts["images without a label file, taken for images without cells"] += 1
            result.images.append(image)
            continue
        with result.reading(label, "YOLO labels"):
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
            result.images.append(image)


def is_yolo(path: Path) -> bool:
    """Whether a text file holds YOLO labels."""
    if path.name in YOLO_NAMES or path.suffix.lower() != ".txt":
        return False
    try:
        return bool(read_yolo(path)) or path.parent.name.lower() == "labels"
    except (InputError, OSError):
        return False


def yolo_label_file(image: Path) -> Path | None:
    """The label file of an image: ``labels`` in place of the last ``images`` in its path, or beside it; ``None`` where
    there is none.
    """
    places = [image.with_suffix(".txt")]
    for folder in image.parents:
        if folder.name.lower() == "images":
            places.insert(0, folder.parent / "labels" / places[-1].relative_to(folder))
            break
    files = (image_path(place.parent, place.name) for place in places)
    return next((file for file in files if file.is_file()), None)


def read_yolo(path: Path) -> list[tuple[int, list[float], float | None]]:
    """Class number, coordinates and score of each line of a YOLO label file. Coordinates are shares of the image's
    sides: ``cx cy w h`` of a box, or ``x0 y0 x1 y1 ...`` of an outline; an odd last number is a score. Raises
    InputError for another line, or coordinates far outside of the image.
    """
    rows = []
    for line_number, line in enumerate(read_lines(path, "YOLO labels"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {line_number}"
        words = line.split()
        try:
            number, values = float(words[0]), [float(word) for word in words[1:]]
        except ValueError as error:
            raise InputError(f"{where}: {line[:60]!r}, expected numbers: class cx cy w h") from error
        score = values.pop() if len(values) % 2 else None
        if len(values) < 4:
            raise InputError(
                f"{where}: {len(words)} numbers, expected class cx cy w h, or a class and three points or more"
            )
        if number != number or number < 0 or number != int(min(number, 1e9)):
            raise InputError(f"{where}: class {words[0]!r}, expected a whole number from 0")
        if not all(-YOLO_REACH <= value <= 1 + YOLO_REACH for value in values):
            raise InputError(
                f"{where}: {line[:60]!r}, expected coordinates as shares of the image's sides, from 0 to 1"
            )
        rows.append((int(number), values, score))
    return rows


def yolo_class(names: Mapping[int, str], number: int, path: Path) -> str:
    """Name of a class, or its number as text where the data set has no list of names; raises InputError where that
    lacks it.
    """
    if names and number not in names:
        raise InputError(f"{path}: class {number}, expected one of {', '.join(map(str, sorted(names)))}")
    return names.get(number, str(number))


def read_yolo_names(root: Path) -> dict[int, str]:
    """Names of the classes from the first of :data:`YOLO_NAMES` in ``root``, its ``labels`` or the folder above, or
    from another YAML file in ``root`` that has ``names``; none where there is no such file. Raises InputError for
    one that names no classes.
    """
    for folder in (root, root / "labels", root.parent):
        for name in YOLO_NAMES:
            path = folder / name
            if path.is_file():
                return _yolo_names(path)
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        content = read_yaml(path)
        if isinstance(content, Mapping) and "names" in content:
            return _yolo_names(path)
    return {}


def _yolo_names(path: Path) -> dict[int, str]:
    if path.suffix not in (".yaml", ".yml"):
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        return {number: line.strip() for number, line in enumerate(lines) if line.strip()}
    content = read_yaml(path)
    if isinstance(content, Mapping) and "kpt_shape" in content:
        raise InputError(f"{path}: kpt_shape, labels of key points; expected boxes or segments")
    names = content.get("names") if isinstance(content, Mapping) else None
    pairs = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(pairs, Mapping) or not all(str(key).isdigit() for key in pairs):
        raise InputError(f"{path}: names {str(names)[:60]!r}, expected a list of class names")
    return {int(key): str(name) for key, name in pairs.items()}


def yolo_points(values: list[float]) -> tuple[list[float], list[float]]:
    """x and y of the corners of a box (upper left, lower right) or of the points of an outline."""
    if len(values) > 4:
        return values[0::2], values[1::2]
    cx, cy, width, height = values
    return [cx - width / 2, cx + width / 2], [cy - height / 2, cy + height / 2]
