"""Ablations: the same training with one thing changed a row, over several seeds, in one table."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.config import load_config
from bccd_d2.errors import InputError
from bccd_d2.files import read_json, read_yaml, shipped_folder, write_json
from bccd_d2.io.coco_images import image_path, image_root
from bccd_d2.structures.cell_kinds import kind_of
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.dataset_files import dataset_file

TOOLS = shipped_folder("tools")
METRICS = (
    ("segm", "AP"), ("segm", "AP50"), ("segm", "AP75"), ("overlap", "IoU"), ("overlap", "Dice"), ("instances", "F1")
)  # fmt: skip

_HEADERS = [f"{'mask ' if group == 'segm' else ''}{name}" for group, name in METRICS]


@dataclass(frozen=True)
class AblationPlan:
    """What to train: a configuration, keys of every row, one training a row and seed, and what only a row has.

    A row with the key ``evaluate`` is not trained: its value names a trained row, whose weights are evaluated with this
    row's keys; ``checkpoint`` may name another file than model_final.pth.
    """

    config: Path
    options: Mapping[str, Any]
    seeds: Sequence[int]
    rows: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> AblationPlan:
        """Read a plan, whose ``config`` is relative to the working directory; InputError names a wrong key."""
        content = read_yaml(path)
        expected = {"config": str, "options": dict, "seeds": list, "rows": dict}
        if not isinstance(content, dict) or set(content) != set(expected):
            found = list(content) if isinstance(content, dict) else type(content).__name__
            raise InputError(f"{path}: expected the keys {', '.join(expected)}, found {found}")
        for key, kind in expected.items():
            if not isinstance(content[key], kind) or (not content[key] and key != "options"):
                raise InputError(f"{path}: {key}: expected a {kind.__name__}, found {content[key]!r}")
        rows, folders = content["rows"], dict[str, str]()
        trained = [
            name for name, changes in rows.items() if isinstance(changes, dict) and "evaluate" not in changes
        ]
        for name, changes in rows.items():
            where = f"{path}: rows: {name}"
            if folders.setdefault(_folder_name(name), name) != name:
                other = folders[_folder_name(name)]
                raise InputError(f"{where}: would share its folder with {other!r}: rename one")
            if not isinstance(changes, dict):
                raise InputError(f"{where}: expected a dict of configuration keys, found {changes!r}")
            if "evaluate" in changes and changes["evaluate"] not in trained:
                raise InputError(
                    f"{where}: evaluate: expected one of {', '.join(trained)}, found {changes['evaluate']!r}"
                )
            if "checkpoint" in changes and "evaluate" not in changes:
                raise InputError(f"{where}: checkpoint has no effect in a row without evaluate")
        return cls(Path(content["config"]), content["options"], content["seeds"], rows)

    def changed(self, opts: Sequence[str]) -> AblationPlan:
        """The plan with other options, ``opts`` as KEY VALUE KEY VALUE."""
        if len(opts) % 2:
            raise InputError(f"expected KEY VALUE pairs, found {' '.join(opts)!r}")
        return replace(self, options={**self.options, **dict(zip(opts[::2], opts[1::2]))})


def run_ablation(
    plan: AblationPlan, out: Path, data_root: Path, also_evaluate: Mapping[str, Path]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Train and evaluate every row with every seed, in one folder each; what is finished already is not done again.

    ``also_evaluate`` are more data sets by name, on whose ``DATASETS.TEST`` each model is evaluated too. Returns the
    content of ``results.json`` by data (``"data"``, then the names of ``also_evaluate``) and row, one a seed. Raises
    InputError that names the log of a training that failed.
    """
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    # Seed by seed, so that an unfinished ablation has all rows. A row that only evaluates comes after the one that it
    # evaluates; in the table they stand as in the plan.
    ordered = sorted(plan.rows, key=lambda name: "evaluate" in plan.rows[name])
    for name, seed in tqdm([(name, seed) for seed in plan.seeds for name in ordered], unit="training"):
        changes = dict(plan.rows[name])
        source = changes.pop("evaluate", name)
        checkpoint = changes.pop("checkpoint", "model_final.pth")
        folder = _folder(out, name, seed)
        options = {**plan.options, **plan.rows[source], **changes, "SEED": seed}
        weights = {**options, "MODEL.WEIGHTS": str(_folder(out, source, seed) / checkpoint)}
        if source == name:
            found = _train_net(plan.config, data_root, folder, options, "--resume")
        else:
            found = _train_net(plan.config, data_root, folder, weights, "--eval-only")
        results.setdefault("data", {}).setdefault(name, []).append(found)
        for data, root in also_evaluate.items():
            evaluated = _train_net(plan.config, root, folder / data, weights, "--eval-only")
            results.setdefault(data, {}).setdefault(name, []).append(evaluated)
    return {data: {name: rows[name] for name in plan.rows} for data, rows in results.items()}


def _folder(out: Path, name: str, seed: int) -> Path:
    return out / _folder_name(name) / f"seed{seed}"


def _folder_name(row: str) -> str:
    return re.sub(r"[^\w.,+-]", "_", str(row)).casefold()


def _require_same_plan(folder: Path, planned: Mapping[str, Any]) -> None:
    """Refuse results and checkpoints of another plan, and note this one in a new folder."""
    path = folder / "plan.json"
    if path.is_file():
        before = read_json(path)
        keys = sorted(key for key in before.keys() | planned.keys() if before.get(key) != planned.get(key))
        if keys:
            listed = ", ".join(
                f"{key} {before.get(key)!r} there, {planned.get(key)!r} now" for key in keys[:4]
            )
            raise InputError(f"{folder} was made by another plan ({listed}): give another --output")
    elif folder.is_dir() and any(folder.glob("*.json")):
        raise InputError(f"{folder} holds a run without plan.json: give another --output")
    else:
        write_json(path, planned, indent=2)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _train_net(
    config: Path, data_root: Path, folder: Path, options: Mapping[str, Any], flag: str
) -> dict[str, Any]:
    """The results of one run of tools/train_net.py, which is skipped where the same plan has made them."""
    result_file = folder / "results.json"
    pairs = [str(word) for pair in options.items() for word in pair]
    resolved = yaml.safe_load(load_config(config, pairs).dump())
    _require_same_plan(folder, {"flag": flag, "data": str(data_root.resolve()), **_flat(resolved)})
    if not result_file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["--config-file", str(config), "--data-root", str(data_root), flag]
        command += ["OUTPUT_DIR", str(folder), *pairs]
        _run("train_net", command, folder)
    return read_json(result_file)


def _run(tool: str, arguments: Sequence[str], folder: Path) -> None:
    log = folder / f"{tool}.txt"
    with log.open("w", encoding="utf-8") as file:
        command = [sys.executable, str(TOOLS / f"{tool}.py"), *arguments]
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        raise InputError(f"tools/{tool}.py failed with status {status}; {log} says why")


def predict_laboratories(plan: AblationPlan, out: Path, data_root: Path) -> str:
    """Evaluate the trained rows as users predict: tools/predict.py, without options, over each of ``DATASETS.TEST``.

    Returns a Markdown table, one line per row, seed and data set. F1 is of all classes as one, "interior" without cells
    at the image border. What is finished is not done again. Raises InputError that names the log of a failed tool.
    """
    rows = []
    for name, changes in plan.rows.items():
        for seed in plan.seeds if "evaluate" not in changes else ():
            run = _folder(out, name, seed)
            keys = [str(word) for pair in {**plan.options, **changes}.items() for word in pair]
            for data in load_config(plan.config, keys).DATASETS.TEST:
                truth = dataset_file(data_root, data)
                metrics = run / f"predicted_{data}" / "judged" / "metrics.json"
                if not metrics.is_file():
                    _predict(run, truth, metrics.parent)
                rows.append([name, seed, data, *_prediction_figures(read_json(metrics))])
    headers = [
        "row",
        "seed",
        "data",
        "mAP@0.5",
        "F1",
        "F1 interior",
        "red cells called white",
        "white cells found as such",
    ]
    return tabulate(rows, headers=headers, tablefmt="pipe", floatfmt=".3f")


def _predict(run: Path, truth: Path, judged: Path) -> None:
    document = read_coco(truth)
    folder = image_root(document, truth)
    images = [str(image_path(folder, image["file_name"])) for image in document["images"]]
    found = judged.with_name("found")
    found.parent.mkdir(exist_ok=True)
    # Average precision needs the low scores too.
    options = ["--formats", "coco", "--score-threshold", "0.05"]
    _run("predict", ["--run", str(run), "--input", *images, "--output", str(found), *options], found.parent)
    predictions = ["--predictions", str(found / "predictions.json"), "--truth", str(truth)]
    _run("evaluate", [*predictions, "--output", str(judged), "--overwrite"], found.parent)


def _prediction_figures(metrics: Mapping[str, Any]) -> list[Any]:
    (part,) = metrics["parts"].values()
    names, confusion = part["class_names"], np.array(part["confusion"])
    figures = [part["intervals"]["all"]["mAP@0.5"]["value"]]
    figures += [part["instances"][region]["all classes"]["f1"] for region in ("all", "interior")]
    red, white = (np.flatnonzero([kind_of(name) == kind for name in names]) for kind in ("red", "white"))
    if not len(red) or not len(white):
        return figures
    found, true = confusion[red].sum(axis=0), confusion[white].sum(axis=0)
    return [*figures, f"{found[white].sum()} of {found[:-1].sum()}", f"{true[white].sum()} of {true.sum()}"]


def ablation_table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A Markdown table of fractions, mean +- sample standard deviation over the seeds, one line a row.

    ``results`` are by row, the content of ``results.json`` of each seed; of several data sets the first counts.
    """
    rows = [[name, len(runs), *map(_mean_and_spread, _values(runs).T)] for name, runs in results.items()]
    return tabulate(rows, headers=["row", "seeds", *_HEADERS], tablefmt="pipe", disable_numparse=True)


def difference_table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A Markdown table of what each row adds to the first, seed by seed, as above; empty for one row.

    The spread of the differences is smaller than that of the rows where a seed is good or bad for all of them.
    """
    (base, base_runs), *others = results.items()
    rows = []
    for name, runs in others:
        differences = (_values(runs) - _values(base_runs)).T
        rows.append([name, len(runs), *(_mean_and_spread(values, sign="+") for values in differences)])
    headers = [f"minus {base}", "seeds", *_HEADERS]
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True) if rows else ""


def _values(runs: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """(seeds, metrics), fractions."""
    first = [next(iter(run.values())) for run in runs]
    return np.array([[metrics[group][metric] / 100 for group, metric in METRICS] for metrics in first])


def _mean_and_spread(values: NDArray[np.float64], sign: str = "") -> str:
    spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.3f}{spread}"
