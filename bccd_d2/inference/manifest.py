"""What the results in a folder were made with, so that those of two models are never mixed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bccd_d2.config import load_config
from bccd_d2.errors import InputError
from bccd_d2.inference.model_zoo import ModelFiles
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.io.storage import Storage

MANIFEST = "run.json"

# Of the configuration what decides about a prediction, and in MODEL what does not.
_CONFIG_SECTIONS = ("MODEL", "INPUT", "TEST")
_MACHINE_KEYS = ("DEVICE", "WEIGHTS")
# How much is done at a time, not what.
_SPEED_OPTIONS = ("batch_size",)


def describe_run(model: ModelFiles, options: PredictionOptions) -> dict[str, Any]:
    """What decides about the results: digests of the configuration and the weights, the classes, the options.

    Raises:
        InputError: the configuration cannot be read.
        OSError: the weights cannot be read.
    """
    cfg = load_config(model.config)
    sections = {name: cfg[name].clone() for name in _CONFIG_SECTIONS}
    for key in _MACHINE_KEYS:
        sections["MODEL"].pop(key, None)
    text = "".join(sections[name].dump() for name in _CONFIG_SECTIONS)
    plain = dataclasses.asdict(options)
    return {
        "config": _digest(text.encode()),
        "weights": _digest_file(model.weights),
        "class_names": list(cfg.DATASETS.CLASS_NAMES),
        "options": {key: value for key, value in plain.items() if key not in _SPEED_OPTIONS},
    }


def manifest_bytes(description: Mapping[str, Any]) -> bytes:
    """The description as it is written to :data:`MANIFEST`."""
    return json.dumps(description, indent=1, ensure_ascii=False).encode()


def run_key(description: Mapping[str, Any]) -> str:
    """A short text that is the same for the same description."""
    return _digest(json.dumps(description, sort_keys=True).encode())


def claim_output(storage: Storage, description: Mapping[str, Any], overwrite: bool) -> str:
    """Write down what the results of a folder are made with, and check that nothing else is in it.

    Args:
        storage: the folder of the results.
        description: from :func:`describe_run`.
        overwrite: forget what the folder says; the caller has removed the results themselves.

    Returns:
        :func:`run_key` of the description.

    Raises:
        InputError: the folder holds results of another description.
        OSError: the folder cannot be written.
    """
    key = run_key(description)
    content = storage.read(MANIFEST)
    if content is not None and not overwrite:
        found = _parse(storage.path(MANIFEST), content)
        if run_key(found) != key:
            differences = "; ".join(_differences(found, json.loads(json.dumps(description))))
            raise InputError(
                f"{storage.path(MANIFEST)}: the results there were made otherwise: {differences}. Give another "
                "--output, or --overwrite to make them anew"
            )
    with storage.staging() as folder:
        staged = folder / MANIFEST
        staged.write_bytes(manifest_bytes(description))
        storage.publish(staged, MANIFEST)
    return key


def _parse(path: str, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); give --overwrite to make the results anew") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected an object; give --overwrite to make the results anew")
    return found


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key} was {before!r}, is now {after!r}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _digest_file(path: str) -> str:
    """Digest of the content; of the address itself where the file is elsewhere."""
    if "://" in path:
        return _digest(path.encode())
    with Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()[:16]
