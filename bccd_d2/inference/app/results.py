"""What a visitor takes away: the files that tools/predict.py writes, of the corrected cells, and the smear report."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.inference.app.fields import CellFilter, Field, FoundCells
from bccd_d2.inference.collect import collect
from bccd_d2.inference.outputs import RECORDS, Outputs
from bccd_d2.inference.predict_file import write_results
from bccd_d2.inference.smear_report import Place, crop, field_of, render_report
from bccd_d2.io.storage import Storage

IMAGES = "images"
"""Folder of the images in the zip, as ``--images`` of tools/adapt.py takes it."""


def write_zip(
    fields: Sequence[Field], formats: Sequence[str], chosen: CellFilter, target: BinaryIO, *, images: bool
) -> None:
    """Write the output folder of tools/predict.py as a zip to ``target``, its cells corrected.

    Fields that are not done are left out; with ``images`` their images are added, in :data:`IMAGES`. Raises
    :class:`InputError` if no field is done, or an image cannot be read any more.
    """
    done = _done(fields)
    with tempfile.TemporaryDirectory(prefix="bccd_d2-") as folder:
        outputs = Outputs(Storage(folder), tuple(formats), "page")
        for field, found in done:
            with field.open() as source:
                record = write_results(field.file, field.name, [found.counted(source, chosen)], outputs)
                if record["error"] is not None:
                    raise InputError(record["error"])
        types = any(found.result.types is not None for _, found in done)
        collect([(field.file, field.name) for field, _ in done], outputs, types=types)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(folder).rglob("*")):
                name = path.relative_to(folder).as_posix()
                if path.is_file() and not name.startswith((".", f"{RECORDS}/")):
                    archive.write(path, name)
            for field, _ in done if images else ():
                _add_image(archive, field)


def _add_image(archive: zipfile.ZipFile, field: Field) -> None:
    """The file as it was uploaded, or the page of it as PNG."""
    if field.page is None:
        name = f"{IMAGES}/{field.name}{field.file.suffix}"
        archive.write(field.file, name, compress_type=zipfile.ZIP_STORED)
        return
    with field.open() as source:
        pixels = source.read(0, 0, source.width, source.height)
    archive.writestr(f"{IMAGES}/{field.name}.png", cv2.imencode(".png", pixels)[1].tobytes())


def smear_report(fields: Sequence[Field], chosen: CellFilter, title: str, facts: Mapping[str, str]) -> str:
    """The smear report of the fields that are done, with corrected cells; raises as :func:`write_zip`."""
    report_fields = []
    for field, found in _done(fields):
        with field.open() as source:
            one = field_of(found.counted(source, chosen))
            # Its pixels are read again where they are needed, so that one image is in memory at a time.
            report_fields.append(replace(one, crops=partial(_crops, field)))
    failures = [field.error for field in fields if field.state == "failed"]
    return render_report(report_fields, title, facts, failures)


def _crops(field: Field, places: Sequence[Place]) -> list[NDArray[np.uint8]]:
    with field.open() as source:
        return crop(source, places)


def _done(fields: Sequence[Field]) -> list[tuple[Field, FoundCells]]:
    done = [(field, found) for field in fields if (found := field.found) is not None]
    if not done:
        raise InputError("no field is finished yet")
    return done
