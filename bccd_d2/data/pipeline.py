"""Albumentations pipelines by name or from YAML, checked entry by entry."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import albumentations as A  # noqa: N812  its documentation's habit

from bccd_d2.data.augmentation import AlbumentationsAugmentation
from bccd_d2.errors import InputError

# As a parameter "fill": the colour of the background in the image at hand.
BACKGROUND = "background"
_COMPOSITIONS = {
    "OneOf": A.OneOf,
    "SomeOf": A.SomeOf,
    "Sequential": A.Sequential,
    "RandomOrder": A.RandomOrder,
}
_KEY = "INPUT.AUGMENTATION.PIPELINE"

Entry = Sequence[Any]


@dataclass(frozen=True)
class Preset:
    """A set of augmentations in pixels of the resized crop, without flips and quarter turns."""

    zoom: tuple[float, float]  # smallest and largest magnification of the crop
    pipeline: Sequence[Entry]  # entries as in INPUT.AUGMENTATION.PIPELINE


# Magnified enough that a rotation uncovers next to nothing: cells do not end in mid-picture.
_MILD_AFFINE = ["Affine", {"scale": [1.08, 1.16], "rotate": [-10, 10], "fill": BACKGROUND, "p": 0.3}]
PRESETS = {
    "none": Preset((1.0, 1.0), ()),
    # What two slides, or two microscopes, differ by.
    "mild": Preset(
        (0.85, 1.1),
        (
            _MILD_AFFINE,
            ["GaussianBlur", {"blur_limit": [3, 5], "p": 0.1}],
            ["RandomBrightnessContrast", {"brightness_limit": 0.15, "contrast_limit": 0.15, "p": 0.5}],
            [
                "HueSaturationValue",
                {"hue_shift_limit": 8, "sat_shift_limit": 15, "val_shift_limit": 8, "p": 0.3},
            ],
        ),
    ),
    # Beyond that: other magnifications, squeezed cells, bad files, hidden parts. A cell hidden by a cut-out hole loses
    # what is hidden from its mask too.
    "strong": Preset(
        (0.5, 1.5),
        (
            _MILD_AFFINE,
            # Displacements of about 1.5 pixels (standard deviation), smooth over 8: cells bend, borders do not tear.
            # A cell is 40 to 130 pixels wide.
            ["ElasticTransform", {"alpha": 75, "sigma": 8, "fill": BACKGROUND, "p": 0.2}],
            [
                "OneOf",
                {
                    "transforms": [
                        ["GaussianBlur", {"blur_limit": [3, 7]}],
                        ["GaussNoise", {"std_range": [0.01, 0.05]}],
                        ["ImageCompression", {"quality_range": [40, 90]}],
                    ],
                    "p": 0.4,
                },
            ],
            [
                "ColorJitter",
                {"brightness": [0.75, 1.25], "contrast": [0.75, 1.25], "saturation": [0.7, 1.3]}
                | {"hue": [-0.05, 0.05], "p": 0.6},
            ],
            [
                "CoarseDropout",
                {
                    "num_holes_range": [1, 4],
                    "hole_height_range": [0.05, 0.15],
                    "hole_width_range": [0.05, 0.15],
                }
                | {"fill": BACKGROUND, "fill_mask": 0, "p": 0.2},
            ],
        ),
    ),
}


def build_pipeline(entries: Sequence[Entry], image_format: str = "BGR") -> AlbumentationsAugmentation | None:
    """Make a Detectron2 augmentation of a list of Albumentations; None for an empty list.

    Entries are ``[name, {parameter: value}]``, applied in order, with the names of Albumentations 2.0.8. "OneOf",
    "SomeOf", "RandomOrder" and "Sequential" take such a list as parameter "transforms"; a parameter "fill" may be
    "background". Raises InputError that names the entry and what is wrong with it.
    """
    if not entries:
        return None
    background_filled: list[A.BasicTransform] = []
    transforms = [_build(entry, f"{_KEY}[{k}]", background_filled) for k, entry in enumerate(entries)]
    return AlbumentationsAugmentation(A.Compose(transforms), background_filled, image_format)


def _build(
    entry: Any, where: str, background_filled: list[A.BasicTransform]
) -> A.BasicTransform | A.BaseCompose:
    if not (
        isinstance(entry, Sequence)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], Mapping)
    ):
        raise InputError(f"{where} is {entry!r}; expected [name, {{parameter: value}}]")
    name, parameters = entry[0], {key: _as_tuple(value) for key, value in entry[1].items()}
    where = f"{where} ({name})"
    if name in _COMPOSITIONS:
        children = entry[1].get("transforms")
        if not isinstance(children, Sequence) or not children:
            raise InputError(f"{where}: transforms is {children!r}; expected a list of entries")
        parameters["transforms"] = [
            _build(child, f"{where}.transforms[{k}]", background_filled) for k, child in enumerate(children)
        ]
        return _construct(_COMPOSITIONS[name], parameters, where)

    cls = getattr(A, name, None)
    if not (isinstance(cls, type) and issubclass(cls, A.DualTransform | A.ImageOnlyTransform)):
        close = difflib.get_close_matches(name, set(dir(A)) - {name}, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"{where}: Albumentations {A.__version__} has no image transform of this name{hint}")
    fills_with_background = parameters.get("fill") == BACKGROUND
    if fills_with_background:
        parameters["fill"] = 0
    transform = _construct(cls, {**parameters, "strict": True}, where)
    if isinstance(transform, A.DualTransform) and "mask" not in transform.available_keys:
        raise InputError(f"{where}: it cannot transform masks")
    if transform.targets_as_params:
        raise InputError(f"{where}: it needs {', '.join(transform.targets_as_params)} beside the image")
    if fills_with_background:
        if not hasattr(transform, "fill"):
            raise InputError(f"{where}: it has no parameter fill")
        background_filled.append(transform)
    return transform


def _construct(cls: Any, parameters: Mapping[str, Any], where: str) -> Any:
    try:
        transform = cls(**parameters)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {_problems(error)}") from error
    if not 0 <= transform.p <= 1:
        raise InputError(f"{where}: p is {transform.p}; expected a probability in [0, 1]")
    return transform


def _problems(error: Exception) -> str:
    """In one line what Albumentations' validation, which is pydantic's, finds wrong."""
    for cause in (error, error.__cause__, error.__context__):
        if cause is not None and hasattr(cause, "errors"):
            return "; ".join(
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}, found {problem['input']!r}"
                for problem in cause.errors()
            )
    return str(error)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
