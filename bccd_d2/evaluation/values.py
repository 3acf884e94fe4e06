"""What a metric can be: a number, or words that say why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

Value = float | str
"""A metric in its unit, or :data:`NO_GROUND_TRUTH` or :data:`NO_MATCH`. Never NaN, never -1."""
NO_GROUND_TRUTH = "no ground truth"
NO_MATCH = "no matched cell"
REGIONS = ("all", "interior")
"""``"interior"`` leaves out ground truth that touches the border and predictions there that match no interior cell."""
ALL_CLASSES = "all classes"
"""Name under which the result over all classes stands beside those of each class."""


def mean_value(values: Iterable[Value], otherwise: str = NO_GROUND_TRUTH) -> Value:
    """Mean of those values that are numbers; ``otherwise`` where none is."""
    numbers = [value for value in values if not isinstance(value, str)]
    return float(np.mean(numbers)) if numbers else otherwise


def plain(value: Any) -> Any:
    """The same as what JSON knows: dataclasses and mappings as dict, arrays and sequences as list, NumPy scalars bare.

    Raises:
        ValueError: a number is NaN or infinite; a metric without value is words.
    """
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"{value} among the metrics")
    return value
