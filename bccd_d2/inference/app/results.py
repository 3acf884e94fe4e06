"""What a visitor takes away: the files that tools/predict.py writes, of the corrected cells, and the smear report."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import cv2

from bccd_d2.errors import InputError
from bccd_d2.inference.app.fields import CellFilter, Field, FoundCells
from bccd_d2.inference.collect import collect
from bccd_d2.inference.outputs import RECORDS, Outputs
from bccd_d2.inference.predict_file import write_results
from bccd_d2.inference.smear_report import crop, field_of, render_report
from bccd_d2.io.storage import Storage

IMAGES = "images"
"""Folder of the images in the zip, as ``--images`` of tools/adapt.py takes it."""


def write_zip(
    fields: Sequence[Field],
    formats: Sequence[str],
    chosen: CellFilter,
    target: BinaryIO,
    *,
    megapixels: float,
    images: bool = True,
) -> None:
    """Write the output folder of tools/predict.py as a zip, its cells corrected.

    Args:
        fields: those that are not done are left out.
        formats: names in :data:`bccd_d2.inference.writers.FORMATS`.
        chosen: which cells count.
        target: where the zip goes.
        megapixels: see :meth:`bccd_d2.inference.app.fields.Field.open`.
        images: add the images too, in :data:`IMAGES`.

    Raises:
        InputError: no field is done, or an image cannot be read any more.
    """
    done = _done(fields)
    with tempfile.TemporaryDirectory(prefix="bccd_d2-") as folder:
        outputs = Outputs(Storage(folder), tuple(formats), "page")
        types = False
        for field, found in done:
            with field.open(megapixels) as source:
                result = found.result(field.name, source, chosen)
                types |= result.types is not None
                record = write_results(field.file, field.name, [result], outputs)
                if record["error"] is not None:
                    raise InputError(record["error"])
        collect([(field.file, field.name) for field, _ in done], outputs, types=types)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(folder).rglob("*")):
                name = path.relative_to(folder).as_posix()
                if path.is_file() and not name.startswith((".", f"{RECORDS}/")):
                    archive.write(path, name)
            for field, _ in done if images else ():
                _add_image(archive, field, megapixels)


def _add_image(archive: zipfile.ZipFile, field: Field, megapixels: float) -> None:
    """The file as it was uploaded, or the page of it as PNG."""
    if not field.is_page:
        archive.write(
            field.file, f"{IMAGES}/{field.name}{field.file.suffix}", compress_type=zipfile.ZIP_STORED
        )
        return
    with field.open(megapixels) as source:
        pixels = source.read(0, 0, source.width, source.height)
    archive.writestr(f"{IMAGES}/{field.name}.png", cv2.imencode(".png", pixels)[1].tobytes())


def smear_report(
    fields: Sequence[Field], chosen: CellFilter, title: str, facts: Mapping[str, str], megapixels: float
) -> str:
    """The smear report of the fields that are done, with corrected cells.

    Raises:
        InputError: no field is done, or an image cannot be read any more.
    """
    report_fields = []
    for field, found in _done(fields):
        with field.open(megapixels) as source:
            one = field_of(found.result(field.name, source, chosen))
            # Its pixels are read again where they are needed, so that one image is in memory at a time.
            report_fields.append(replace(one, crops=_reader(field, megapixels)))
    failures = [field.error for field in fields if field.state == "failed"]
    return render_report(report_fields, title, facts, failures)


def _reader(field: Field, megapixels: float) -> Callable[..., list]:
    def read(places: Sequence[tuple[float, float, float]]) -> list:
        with field.open(megapixels) as source:
            return crop(source, places)

    return read


def _done(fields: Sequence[Field]) -> list[tuple[Field, FoundCells]]:
    done = [(field, found) for field in fields if (found := field.found) is not None]
    if not done:
        raise InputError("no field is finished yet")
    return done
