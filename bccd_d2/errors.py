"""The one error that stands for bad input."""

from __future__ import annotations


class InputError(ValueError):
    """Something a user gave cannot be used; the message names it, says what was found and what was expected."""
