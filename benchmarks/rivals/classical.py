"""Otsu's threshold and a watershed: no training, one point."""

from __future__ import annotations

from pathlib import Path

from bccd_d2.inference.classical import otsu_watershed
from rivals.budget import Budget, Point
from rivals.contender import Setting
from rivals.judge import Judge


class Classical:
    """:func:`bccd_d2.inference.classical.otsu_watershed` with its default rule."""

    recipe = "`bccd_d2/inference/classical.py` as it is; its few numbers were chosen on real training pairs"
    parameters = 0

    def __init__(self, setting: Setting, folder: Path) -> None:
        pass

    def train(self, budget: Budget, judge: Judge) -> None:
        """Be judged at once."""
        budget.points.append(Point(0.0, 0, judge(otsu_watershed)))
