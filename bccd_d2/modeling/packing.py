"""A trained model as two small files that can be handed on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

from bccd_d2.files import replacing
from bccd_d2.modeling.weights import load_mean_weights, save_weights


def pack_model(cfg: CfgNode, weights: Sequence[str], folder: Path, name: str, note: str = "") -> str:
    """Write ``NAME.safetensors``, the weights as float16, and ``NAME.yaml``, the configuration to predict with.

    Paths of the machine that trained the model are left out of the configuration.

    Args:
        cfg: of the training run.
        weights: its checkpoint, or several whose mean is taken, see
            :func:`bccd_d2.modeling.weights.load_mean_weights`.
        folder: where the files go.
        name: of the model.
        note: comment at the top of the configuration.

    Returns:
        SHA-256 of the weights' file, in hexadecimal digits.

    Raises:
        InputError: a checkpoint cannot be read or is of another model, or there is none.
    """
    cfg = cfg.clone()
    cfg.defrost()
    model = build_model(cfg)
    load_mean_weights(model, weights)
    cfg.DATASETS.ROOT = ""
    cfg.MODEL.WEIGHTS = ""
    cfg.OUTPUT_DIR = get_cfg().OUTPUT_DIR
    path = folder / f"{name}.safetensors"
    with replacing(folder / f"{name}.yaml") as temporary:
        comment = "".join(f"# {line}\n" for line in note.splitlines())
        temporary.write_text(comment + cfg.dump(), encoding="utf-8")
        save_weights(model, path, half=True)
    return hashlib.sha256(path.read_bytes()).hexdigest()
