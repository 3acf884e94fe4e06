"""What the methods of a comparison have in common: the time that each gets, and what each is given and says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from baselines.evaluator import Evaluator
from bccd_d2.errors import InputError
from bccd_d2.segmentation.otsu_watershed import otsu_watershed

WARMUP_SHARE = 0.1
"""Of the budget, in which the learning rate rises linearly; the same for all that train."""


@dataclass(frozen=True)
class Point:
    """A training as it was evaluated."""

    seconds: float  # of the budget's clock that the training had taken
    iterations: int  # that it had made
    metrics: Mapping[str, Any]  # of :class:`baselines.evaluator.Evaluator`


class Budget:
    """Counts the seconds and iterations of a training and has it evaluated, off the clock, when a moment has come.

    Learning rates follow :attr:`share`, not the number of iterations: how many fit is not known beforehand, and every
    schedule is at its end when the time is. ``moments`` are shares of the ``seconds`` in (0, 1], rising, the last one
    1; ``on_step`` is told the seconds used after each iteration. Raises InputError where these are not so.
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

    def step(self, evaluate: Callable[[], Mapping[str, Any]]) -> bool:
        """Note that an iteration was made; whether the budget is used up.

        ``evaluate`` returns the metrics of the model as it is now, once even where an iteration passed several moments.
        """
        used, share = self.used, self.share
        self.iterations += 1
        self._on_step(used)
        due = [moment for moment in self._moments if moment <= share]
        if due:
            with self.paused():
                self.points.append(Point(used, self.iterations, evaluate()))
            del self._moments[: len(due)]
        return not self._moments


@dataclass(frozen=True)
class Setting:
    """The same for all methods of a comparison."""

    data_root: Path  # that tools/convert_bccd.py wrote; its train part is what is trained on
    part: str  # that is evaluated
    seed: int
    config_file: Path  # of this project's model
    detectron2_weights: Path | None = None  # what the tutorial's model starts from; None for random weights
    torchvision_weights: Path | None = None


class Method(Protocol):
    """A method that is ready to start."""

    recipe: str  # a sentence that says exactly what it does
    parameters: int  # of its network that are trained; 0 without one

    def train(self, budget: Budget, evaluator: Evaluator) -> None:
        """Train until the budget is used up, evaluated at its moments; FloatingPointError where it diverges."""


class Classical:
    """:func:`bccd_d2.segmentation.otsu_watershed.otsu_watershed` with its default rule."""

    recipe = "`bccd_d2/segmentation/otsu_watershed.py` as it is; its few numbers were chosen on real training pairs"
    parameters = 0

    def __init__(self, setting: Setting, folder: Path) -> None:
        pass

    def train(self, budget: Budget, evaluator: Evaluator) -> None:
        """Be evaluated at once."""
        budget.points.append(Point(0.0, 0, evaluator(otsu_watershed)))
