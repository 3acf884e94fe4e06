"""What every method of the comparison is told and must tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rivals.budget import Budget
from rivals.judge import Judge


@dataclass(frozen=True)
class Setting:
    """The same for all methods of a comparison.

    Attributes:
        data_root: folder that tools/convert_bccd.py wrote; its train part is what is trained on.
        part: that is evaluated.
        seed: of what is drawn at random.
        config_file: of this project's model.
        detectron2_weights: what the tutorial's model starts from; None for random weights.
        torchvision_weights: likewise.
    """

    data_root: Path
    part: str
    seed: int
    config_file: Path
    detectron2_weights: Path | None = None
    torchvision_weights: Path | None = None


class Contender(Protocol):
    """A method that is ready to start.

    Attributes:
        recipe: a sentence that says exactly what it does.
        parameters: of its network that are trained; 0 without one.
    """

    recipe: str
    parameters: int

    def train(self, budget: Budget, judge: Judge) -> None:
        """Train until the budget is used up, and be judged at its moments.

        Raises:
            FloatingPointError: the training diverged.
        """


@dataclass(frozen=True)
class Method:
    """A row of the comparison.

    Attributes:
        title: what readers call it.
        build: makes it ready, in a folder of its own.
    """

    title: str
    build: Callable[[Setting, Path], Contender]
