"""Reads checkpoint files without running what is in them, and writes safetensors.

A pickle is a program: ``pickle.load`` runs what its author wrote. Downloaded files are therefore read by readers that
know tensors, arrays and plain values, and nothing else.
"""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bccd_d2.errors import InputError
from bccd_d2.files import ArrayUnpickler, replacing


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint file, by its suffix: ``.safetensors``, ``.pkl`` (Detectron2's model zoo), else torch's own.

    Returns ``"model"``, the state dict (tensors, or arrays from a ``.pkl``); what else a training run saved
    (``"trainer"``, ``"iteration"``, ``"config"``); ``"matching_heuristics"`` for files of Caffe2 with names of its own.
    Raises InputError where the file asks for something else than tensors, arrays and plain values, or holds no state
    dict, OSError where it cannot be read.
    """
    with path.open("rb"):  # so that a file that is not there, or a folder, is named
        pass
    try:
        if path.suffix == ".safetensors":
            content = _read_safetensors(path)
        elif path.suffix == ".pkl":
            content = _read_zoo_pickle(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted is None:
            raise InputError(
                f"{path}: expected a checkpoint, cannot read it ({_first_line(error)})"
            ) from error
        raise InputError(
            f"{path}: refused, for it asks for {wanted[1]}, which can run code: expected tensors and plain values only"
        ) from error
    except (InputError, OSError):
        raise
    except Exception as error:  # torch's reader raises many kinds
        raise InputError(f"{path}: expected a checkpoint, cannot read it ({_first_line(error)})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a dict of tensors, found {type(content).__name__}")
    if not isinstance(content.get("model"), Mapping):
        content = {"model": content}
    model = content["model"]
    wrong = [key for key, value in model.items() if not hasattr(value, "shape")]
    if wrong or not model:
        found = f"{type(model[wrong[0]]).__name__} as {wrong[0]}" if wrong else "an empty one"
        raise InputError(f"{path}: expected a state dict of tensors, found {found}")
    return content


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {**metadata, "model": {key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path}: expected safetensors, cannot read it ({error})") from error


def _read_zoo_pickle(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        content = ArrayUnpickler(file, encoding="latin1").load()
    if not isinstance(content, dict) or "__author__" in content:
        return content
    # Caffe2's own: names that Detectron2 translates, in detection models below "blobs".
    blobs = content.get("blobs", content)
    model = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
    return {"model": model, "__author__": "Caffe2", "matching_heuristics": True}


def write_safetensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], half: bool = False
) -> None:
    """Write a state dict as safetensors, whole or not at all; :func:`read_checkpoint` gives the ``metadata`` back.

    With ``half`` floating point tensors become float16; one whose values float16 cannot hold stays as it is. Raises
    InputError for another suffix, OSError where the file cannot be written.
    """
    from safetensors.torch import save

    if path.suffix != ".safetensors":
        raise InputError(f"{path}: expected a name that ends in .safetensors")
    content, too_large = {}, []
    for name, tensor in tensors.items():
        value = tensor.detach().cpu()
        if half and value.is_floating_point():
            rounded = value.half()
            if torch.isfinite(rounded).all() or not torch.isfinite(value).all():
                value = rounded
            else:
                too_large.append(name)
        content[name] = value.clone(memory_format=torch.contiguous_format)
    if too_large:
        logging.getLogger(__name__).warning(
            f"{len(too_large)} tensors with values above 65504 are not halved: {', '.join(too_large[:5])}"
        )
    with replacing(path) as temporary:
        # Not the library's save_file, whose file only its owner can read.
        temporary.write_bytes(save(content, metadata={"format": "pt", **metadata}))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
