"""Numbers and lists in plain English."""

from __future__ import annotations

from collections.abc import Sequence


def number(value: float, decimals: int = 0) -> str:
    """With thousands separated: ``4,347``."""
    return f"{value:,.{decimals}f}"


def count(value: int, one: str, many: str) -> str:
    """``1 cell``, ``4,347 cells``."""
    return f"{number(value)} {one if value == 1 else many}"


def join(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
