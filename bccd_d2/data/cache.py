"""Keeps what was decoded, up to a limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class LRUCache:
    """Values by key; when their sizes exceed the limit, those unused for longest go.

    Args:
        limit: bytes that all values together may take; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of ``key``; made by ``make()``, whose result has an ``nbytes``, where it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        if value.nbytes <= self.limit:
            self._values[key] = value
            self.size += value.nbytes
            while self.size > self.limit:
                self.size -= self._values.popitem(last=False)[1].nbytes
        return value
