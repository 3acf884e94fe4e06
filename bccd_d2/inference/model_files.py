"""Which model a prediction takes: that of a training run, any checkpoint, or one that comes with bccd_d2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bccd_d2.errors import InputError
from bccd_d2.files import shipped_file, shipped_folder

WEIGHTS_FOLDER = shipped_folder("weights")
"""NAME.yaml is the configuration of NAME.safetensors."""

SHIPPED_MODEL = "smear"
SHIPPED_LICENSE = "CC-BY-NC-SA-3.0"
"""SPDX identifier; see the model card, README.md in the folder of the weights."""


@dataclass(frozen=True)
class ModelFiles:
    """YAML file of a model, and its checkpoint or an address that Detectron2 fetches."""

    config: str
    weights: str


def find_model(
    run: Path | None = None,
    config_file: str | Path | None = None,
    weights: str | Path | None = None,
    name: str | None = None,
) -> ModelFiles:
    """Files of the model to predict with: the shipped one of a ``name``, or those of a training run.

    ``run`` is the OUTPUT_DIR with ``config.yaml`` and ``model_final.pth``; ``config_file`` and ``weights`` take their
    place. Raises :class:`InputError` if only one of these is given without a run, both a name and files are, or a file
    is not there.
    """
    if run is None and config_file is None and weights is None:
        return shipped_model(name or SHIPPED_MODEL)
    if name is not None:
        raise InputError(f"--model {name}: not together with --run, --config-file or --weights")
    if run is None and (config_file is None or weights is None):
        raise InputError(
            "give both --config-file and --weights, or --run, or none of them for a model that comes with bccd_d2"
        )
    if run is not None and not run.is_dir():
        raise InputError(f"--run: {run} is not there; expected the OUTPUT_DIR of tools/train_net.py")
    folder = run or Path()
    files = ModelFiles(
        shipped_file(config_file or folder / "config.yaml"),
        shipped_file(weights or folder / "model_final.pth"),
    )
    if not Path(files.config).is_file():
        raise InputError(f"{files.config} is not there; expected the configuration of the model")
    if "://" not in files.weights and not Path(files.weights).is_file():
        raise InputError(f"{files.weights} is not there; expected the weights of the model")
    return files


def shipped_model(name: str = SHIPPED_MODEL, folder: Path = WEIGHTS_FOLDER) -> ModelFiles:
    """Files of a model that comes with bccd_d2; an InputError if it is not there."""
    config, weights = folder / f"{name}.yaml", folder / f"{name}.safetensors"
    if not (config.is_file() and weights.is_file()):
        there = ", ".join(model_names(folder)) or "none"
        raise InputError(
            f"no model {name!r} in {folder} (there: {there}): give --run, or --config-file and --weights"
        )
    return ModelFiles(str(config), str(weights))


def model_names(folder: Path = WEIGHTS_FOLDER) -> list[str]:
    """Names of the models that come with bccd_d2."""
    names = sorted(path.stem for path in folder.glob("*.safetensors"))
    return [
        name for name in names if not name.startswith("types_")
    ]  # classifiers of cell types lie there too
