"""The class source that a data set's YAML asks for."""

from __future__ import annotations

from pathlib import Path

from bccd_d2.conversion.bbbc041 import Bbbc041Boxes
from bccd_d2.conversion.box_assignment import BoxClasses
from bccd_d2.conversion.boxes import BoxFile
from bccd_d2.conversion.class_source import ClassSource
from bccd_d2.conversion.class_table import ClassTable
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.layout import find_below
from bccd_d2.conversion.voc import VocFolder
from bccd_d2.errors import InputError


def make_class_source(
    spec: DatasetSpec, root: Path | str, boxes: Path | str | None = None
) -> ClassSource | None:
    """Make the class source for a data set.

    Args:
        spec: its section ``classes`` says what the categories of the boxes mean.
        root: root of the data, where ``classes: boxes`` of the dataset spec is looked for.
        boxes: file or folder of the boxes, in place of that.

    Returns:
        ``None`` where the dataset spec has no such section: classes come from the masks, or all is one class.

    Raises:
        InputError: boxes without a table, a table without boxes, or either of them broken.
    """
    if spec.classes is None:
        if boxes is not None:
            raise InputError(
                f"{boxes}: boxes, but the dataset spec has no section 'classes' that says what their categories mean; "
                "expected one that has, for instance bbbc041"
            )
        return None
    table = ClassTable.from_mapping(spec.classes)
    if boxes is None and table.boxes is None:
        raise InputError(
            "the dataset spec takes classes from boxes; expected --boxes, a file or folder with them"
        )
    path = Path(boxes) if boxes is not None else find_below(Path(root), str(table.boxes))
    file: BoxFile = VocFolder(path) if table.format == "voc" else Bbbc041Boxes.read(path)
    return BoxClasses(file, table)
