"""What is in an output folder: which results are finished, and what they were made with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bccd_d2.config import load_config
from bccd_d2.errors import InputError
from bccd_d2.inference.model_files import ModelFiles
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.io.cells_table import CELLS, COUNTS
from bccd_d2.io.storage import Storage, fingerprint

RECORDS = "records"
"""Folder of what is known of each file's results, below the output folder."""
MANIFEST = "run.json"
"""File that says what the results of a folder were made with."""
PREDICTIONS, QUALITY, DIFFERENTIAL = "predictions.json", "quality.csv", "differential.csv"
BATCH_FILES = (PREDICTIONS, CELLS, COUNTS, QUALITY, DIFFERENTIAL)
DIAMETERS = "diameters"
"""Entry of the manifest with estimated diameters by group of images; no part of the description of a run."""

Record = dict[str, Any]

# Of the configuration what decides about a prediction, and in MODEL what does not.
_CONFIG_SECTIONS = ("MODEL", "INPUT", "TEST")
_MACHINE_KEYS = ("DEVICE", "WEIGHTS")
# How much is done at a time, not what.
_SPEED_OPTIONS = ("batch_size",)


@dataclass(frozen=True)
class Outputs:
    """Where the results of a batch go, and in which formats; can be sent to other processes.

    ``formats`` are names in :data:`bccd_d2.inference.writers.FORMATS`; ``key`` says what the results are made with, see
    :func:`claim_output`.
    """

    storage: Storage
    formats: tuple[str, ...]
    key: str

    def record(self, name: str) -> Record | None:
        """What is known of a file's results; ``None`` if they are not there or made with something else."""
        found = read_record(self.storage, record_file(name))
        return found if found.get("key") == self.key else None

    def write_record(self, name: str, record: Record) -> None:
        """Write what is known of a file's results, with its own digest: the last that is written of a file."""
        content = json.dumps({**record, "digest": _record_digest(record)}, ensure_ascii=False)
        self.storage.write(record_file(name), lambda path: path.write_text(content, encoding="utf-8"))

    def is_finished(self, path: str | Path, name: str) -> bool:
        """Whether all results of this very file are there, made with the same model and options."""
        found = self.record(name)
        if found is None or found["error"] is not None or not set(self.formats) <= set(found["formats"]):
            return False
        try:
            same = found["file"] == fingerprint(path)
        except OSError:
            return False
        return same and all(self.storage.exists(file) for file in found["results"])


def record_file(name: str) -> str:
    """Path below the output folder of what is known of an image file's results."""
    return f"{RECORDS}/{name}.json"


def read_record(storage: Storage, file: str) -> Record:
    """Content of a record; an empty one if it is not there or not as it was written, so that the file is done again."""
    try:
        found = json.loads(storage.read(file) or b"{}")
        return found if found.pop("digest", "") == _record_digest(found) else {}
    except (ValueError, RecursionError, AttributeError, TypeError):
        return {}


def _record_digest(record: Record) -> str:
    return _digest(json.dumps(record, sort_keys=True).encode())


def recorded_results(storage: Storage) -> Iterator[str]:
    """Paths below an output folder of what its records list, and of the records."""
    for record in storage.find(RECORDS):
        yield from read_record(storage, record).get("results", ())
        yield record


def describe_run(
    model: ModelFiles, options: PredictionOptions, max_detections: int | None = None
) -> dict[str, Any]:
    """What decides about the results: digests of the configuration and the weights, the classes, the options.

    Raises :class:`InputError` or :class:`OSError` if configuration or weights cannot be read.
    """
    cfg = load_config(model.config)
    sections = {name: cfg[name].clone() for name in _CONFIG_SECTIONS}
    for key in _MACHINE_KEYS:
        sections["MODEL"].pop(key, None)
    text = "".join(sections[name].dump() for name in _CONFIG_SECTIONS)
    plain = dataclasses.asdict(options)
    if max_detections is not None:
        plain["max_detections"] = max_detections
    return {
        "config": _digest(text.encode()),
        "weights": _digest_file(model.weights),
        "class_names": list(cfg.DATASETS.CLASS_NAMES),
        "options": {key: value for key, value in plain.items() if key not in _SPEED_OPTIONS},
    }


def describe_types(classifiers: Sequence[str]) -> dict[str, str]:
    """Digests of the weights and the card of each classifier of cell types, by name."""
    return {
        Path(path).stem: _digest_file(path) + _digest_file(str(Path(path).with_suffix(".yaml")))
        for path in classifiers
    }


def claim_output(storage: Storage, description: Mapping[str, Any], overwrite: bool = False) -> str:
    """Write down what the results of a folder are made with (:func:`describe_run`); a key of that description.

    With ``overwrite`` what the folder says is forgotten; the caller has removed the results. Raises :class:`InputError`
    if the folder holds results of another description, :class:`OSError` if it cannot be written.
    """
    found = None if overwrite else read_manifest(storage)
    if found is not None and not is_same_run(found, description):
        differences = "; ".join(_differences(_described(found), json.loads(json.dumps(description))))
        raise InputError(
            f"{storage.path(MANIFEST)}: the results there were made with something else: {differences}. Give another "
            "--output, or --overwrite to make them again"
        )
    write_manifest(storage, description, (found or {}).get(DIAMETERS))
    return _run_key(description)


def read_manifest(storage: Storage) -> dict[str, Any] | None:
    """What :data:`MANIFEST` of a folder says, ``None`` if it is not there; an InputError if it is no JSON object."""
    content = storage.read(MANIFEST)
    if content is None:
        return None
    path = storage.path(MANIFEST)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); give --overwrite to make the results again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected an object; give --overwrite to make the results again")
    return found


def write_manifest(
    storage: Storage, description: Mapping[str, Any], diameters: Mapping[str, Any] | None = None
) -> None:
    """Write :data:`MANIFEST` of an output folder."""
    content = {**_described(description), **({DIAMETERS: diameters} if diameters else {})}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    storage.write(MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))


def is_same_run(manifest: Mapping[str, Any], description: Mapping[str, Any]) -> bool:
    """Whether a manifest was written for this description."""
    return _run_key(_described(manifest)) == _run_key(description)


def _described(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key != DIAMETERS}


def _run_key(description: Mapping[str, Any]) -> str:
    return _digest(json.dumps(description, sort_keys=True).encode())


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
