"""Joins predictions to the images and classes of the ground truth: by name, and by number where there are no names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from bccd_d2.errors import InputError
from bccd_d2.structures.names import match_classes, match_images, stem_of

ImageIds = Literal["ids", "names"]
IMAGE_IDS: tuple[ImageIds, ...] = get_args(ImageIds)
_AGNOSTIC = "--class-agnostic compares outlines alone"


def join_image_ids(
    values: Sequence[Any], names: Mapping[int, str], where: str, meaning: ImageIds | None = None
) -> dict[Any, int]:
    """The id of the image (of ``names``, file names by id) that each ``image_id`` of COCO results means.

    Some tools write the ids of the ground truth, others the names of the images without extension, as a number where
    the name is one (Ultralytics). ``meaning`` ``None`` takes what fits. Raises InputError where a value is neither, or
    all values are ids as well as names, of other images.
    """
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise InputError(f"{where}: image_id {value!r}, expected a number or a name")
    distinct = list(dict.fromkeys(values))
    by_id = {value: int(value) for value in distinct if _is_whole(value) and int(value) in names}
    by_name = _by_name(distinct, names, where)
    fits_ids, fits_names = len(by_id) == len(distinct), len(by_name) == len(distinct)
    if meaning is None and fits_ids and fits_names and by_id != by_name:
        example = next(value for value in distinct if by_id[value] != by_name[value])
        raise InputError(
            f"{where}: image_id {example!r} is the id of {names[by_id[example]]} and the name of "
            f"{names[by_name[example]]}: say which it means with --image-ids ids or --image-ids names"
        )
    found = by_name if meaning == "names" or (meaning is None and fits_names and not fits_ids) else by_id
    missing = [value for value in distinct if value not in found]
    if missing:
        known = ", ".join(f"{number} ({name})" for number, name in list(names.items())[:5])
        raise InputError(
            f"{where}: image {missing[0]!r}, which the ground truth does not hold (it holds {known}"
            f"{', ...' if len(names) > 5 else ''})"
        )
    return found


def join_class_names(found: Sequence[str], known: Sequence[str], where: str) -> dict[str, int]:
    """Class index by name, of those names that are known; InputError where none is, or one can be two."""
    distinct = dict(enumerate(dict.fromkeys(found)))
    classes = dict(enumerate(known))
    matched = match_classes(distinct, classes, where=where, required=False)
    if distinct and not matched:
        try:
            match_classes(distinct, classes, where=where)
        except InputError as error:
            raise InputError(f"{error}; {_AGNOSTIC}") from error
    return {distinct[number]: index for number, index in matched.items()}


def join_class_numbers(found: Sequence[Any], known: Mapping[int, str], where: str) -> list[int]:
    """Category id of each number; InputError where one is no number, or not known."""
    for value in found:
        if isinstance(value, bool) or not isinstance(value, int | float | str) or not _is_whole(value):
            raise InputError(f"{where}: category_id {value!r}, expected a number, or a name as 'category'")
    numbers = [int(value) for value in found]
    try:
        match_classes(numbers, known, where=where)
    except InputError as error:
        raise InputError(f"{error}; {_AGNOSTIC}") from error
    return numbers


def _by_name(values: Sequence[Any], names: Mapping[int, str], where: str) -> dict[Any, int]:
    ids = {name: image_id for image_id, name in names.items()}
    numbered = {int(stem_of(name)): number for name, number in ids.items() if stem_of(name).isdecimal()}
    texts = [value for value in values if isinstance(value, str)]
    matched = match_images(texts, ids, where=where, required=False)
    found: dict[Any, int] = {text: ids[name] for text, name in matched.items()}
    return found | {
        v: numbered[int(v)] for v in values if _is_whole(v) and v not in found and int(v) in numbered
    }


def _is_whole(value: Any) -> bool:
    if isinstance(value, str):
        return value.isdecimal()
    return isinstance(value, int) or value.is_integer()
