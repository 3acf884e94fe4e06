"""The same time for every training, and the moments at which it is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bccd_d2.errors import InputError

WARMUP_SHARE = 0.1
"""Of the budget, in which the learning rate rises linearly; the same for all that train."""


@dataclass(frozen=True)
class Point:
    """A training as it was judged.

    Attributes:
        seconds: of the budget's clock that the training had taken.
        iterations: that it had made.
        metrics: what the judge said.
    """

    seconds: float
    iterations: int
    metrics: Mapping[str, Any]


class Budget:
    """Counts the seconds and iterations of a training and has it judged, off the clock, when a moment has come.

    Learning rates follow :attr:`share`, not the number of iterations: how many fit is not known beforehand, and every
    schedule is at its end when the time is.

    Args:
        seconds: that the training may take; it ends with the iteration in which they are used up.
        moments: shares of them in (0, 1], rising, the last one 1.
        clock: seconds since anything.
        on_step: told the seconds used after each iteration, for a progress bar.

    Raises:
        InputError: the moments are not as described, or the seconds not above 0.
    """

    def __init__(
        self,
        seconds: float,
        moments: Sequence[float],
        clock: Callable[[], float],
        on_step: Callable[[float], object] = lambda used: None,
    ) -> None:
        rising = [*moments] == sorted(set(moments))
        if not moments or not rising or moments[0] <= 0 or moments[-1] != 1:
            raise InputError(f"moments: expected rising shares in (0, 1], the last one 1, found {[*moments]}")
        if not seconds > 0:
            raise InputError(f"budget: expected more than 0 seconds, found {seconds}")
        self.seconds = seconds
        self.iterations = 0
        self.points: list[Point] = []
        self._moments = [*moments]
        self._clock = clock
        self._on_step = on_step
        self._zero = 0.0

    def start(self) -> None:
        """Start the clock: what was built before is not counted."""
        self._zero = self._clock()

    @property
    def used(self) -> float:
        """Seconds of training so far."""
        return self._clock() - self._zero

    @property
    def share(self) -> float:
        """Of the budget that is used, at most 1."""
        return min(1.0, self.used / self.seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is not counted."""
        start = self._clock()
        try:
            yield
        finally:
            self._zero += self._clock() - start

    def step(self, judge: Callable[[], Mapping[str, Any]]) -> bool:
        """Note that an iteration was made.

        Args:
            judge: says how good the model is now; called once even where one iteration passed several moments.

        Returns:
            Whether the budget is used up.
        """
        used, share = self.used, self.share
        self.iterations += 1
        self._on_step(used)
        due = [moment for moment in self._moments if moment <= share]
        if due:
            with self.paused():
                self.points.append(Point(used, self.iterations, judge()))
            del self._moments[: len(due)]
        return not self._moments
