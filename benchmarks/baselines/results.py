"""What came out: a file a method, a table, a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tabulate import tabulate

from baselines.method import Point
from bccd_d2.errors import InputError
from bccd_d2.evaluation.options import Value
from bccd_d2.files import write_json

RESULT_FILE = "result.json"
PLOTTED = {"AP": "mask AP", "F1": "F1 at IoU 0.5"}
_HEADERS = [
    *("method", "trained parameters", "iterations", "s a step", "mask AP", "95 % interval", "AP50", "F1", "Dice"),
    *("interior AP", "interior F1", "prediction, s an image"),
]  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One method, finished."""

    title: str
    recipe: str
    parameters: int
    settings: Mapping[str, Any]  # of the comparison, by name
    points: Sequence[Point]  # in the order of time; may be empty where the training diverged
    diverged: str | None = None  # why the training ended before its budget; None where it did not

    def write(self, folder: Path) -> None:
        """Write it, so that it is not measured again."""
        write_json(folder / RESULT_FILE, asdict(self), indent=2)

    @classmethod
    def read(cls, folder: Path, settings: Mapping[str, Any]) -> Result | None:
        """The result in ``folder``; None where it is not finished, InputError where its settings were others."""
        path = folder / RESULT_FILE
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = cls(**{**content, "points": [Point(**point) for point in content["points"]]})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: expected what side_by_side.py wrote, cannot read it ({error}); delete it"
            ) from error
        for name, value in settings.items():
            if found.settings.get(name) != value:
                raise InputError(
                    f"{path} was measured with {name} {found.settings.get(name)!r}, not {value!r}: give the same, or "
                    "another --output"
                )
        return found


def results_table(results: Sequence[Result]) -> str:
    """A Markdown table, the last point of each method, and below it what each method is."""
    rows = []
    for result in results:
        if not result.points:
            rows.append([result.title, _millions(result.parameters), "diverged"])
            continue
        last = result.points[-1]
        metrics = last.metrics
        steps = [last.iterations, _number(last.seconds / last.iterations, 2)] if last.iterations else ["", ""]
        interval = f"{_number(metrics['AP low'])} to {_number(metrics['AP high'])}"
        name = result.title + (" (diverged after that)" if result.diverged else "")
        rows.append(
            [
                *(name, _millions(result.parameters), *steps, _number(metrics["AP"]), interval),
                *(_number(metrics[key]) for key in ("AP50", "F1", "Dice", "interior AP", "interior F1")),
                _number(metrics["seconds an image"], 2),
            ]
        )
    table = tabulate(rows, headers=_HEADERS, tablefmt="pipe", disable_numparse=True)
    recipes = "\n".join(f"- **{result.title}**: {result.recipe}." for result in results)
    return f"{table}\n\n{recipes}\n"


def quality_over_time(results: Sequence[Result], time_label: str) -> Figure:
    """Mask AP and F1 of every method over the minutes that its training had taken; dashed lines had none."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    panels = figure.subplots(1, len(PLOTTED), sharex=True, sharey=True)
    for axes, (key, label) in zip(panels, PLOTTED.items()):
        for index, result in enumerate(results):
            style = {"color": f"C{index}", "label": result.title}
            if result.parameters == 0 and result.points:
                axes.axhline(result.points[-1].metrics[key], linestyle="--", **style)
                continue
            minutes = [point.seconds / 60 for point in result.points]
            axes.plot(
                minutes, [point.metrics[key] for point in result.points], marker="os^Dv"[index % 5], **style
            )
        axes.set(title=label, xlabel=time_label, ylim=(-0.02, 1))
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _number(value: Value | None, digits: int = 3) -> str:
    return value or "" if value is None or isinstance(value, str) else f"{value:.{digits}f}"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters else ""
