"""What runs the network of a prediction: torch, or onnxruntime or OpenVINO for the network exported once."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import torch

from bccd_d2.config import cpu_supports_bfloat16, load_config
from bccd_d2.errors import InputError
from bccd_d2.inference.exporting.export import export_model
from bccd_d2.inference.exporting.exported import ExportedPredictor, Precision
from bccd_d2.inference.finder import CellFinder
from bccd_d2.inference.magnification import DiameterEstimate
from bccd_d2.inference.model_files import ModelFiles
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.predictor import BCCDPredictor, allow_detections
from bccd_d2.io.sources import ArraySource

EAGER = "eager"
ENGINES = (EAGER, "onnx", "openvino")
FLOAT32: Precision = "float32"
PRECISIONS: tuple[Precision, ...] = (FLOAT32, "bfloat16")
_VERSION = 2
"""Counted up when the same model would be exported as another network."""


def load_predictor(
    model: ModelFiles,
    options: PredictionOptions,
    *,
    engine: str = EAGER,
    precision: Precision = FLOAT32,
    device: str | None = None,
    max_detections: int | None = None,
) -> CellFinder:
    """The predictor of a model, whose weights may be a file that ``tools/export_model.py`` wrote.

    ``engine`` is one of :data:`ENGINES`: others than "eager" run on the CPU and find its cells up to rounding, in less
    time. ``precision`` "bfloat16", for eager and openvino on CPUs that have it in hardware, is faster and finds almost
    the same (docs/export.md). ``device`` and ``max_detections`` as :class:`BCCDPredictor`. Raises :class:`InputError`
    if the model cannot be read or exported, what runs it is not installed, or model and options do not fit.
    """
    exported = model.weights.endswith(".onnx")
    check_precision(precision, engine)
    predictor: CellFinder
    if engine == EAGER:
        if exported:
            raise InputError(
                f"--weights {model.weights}: an exported network needs --engine onnx or openvino"
            )
        predictor = BCCDPredictor(
            model.config,
            model.weights,
            options,
            device=device,
            cpu_mode="bfloat16" if precision == "bfloat16" else "channels_last",
            max_detections=max_detections,
        )
        if precision != FLOAT32 and predictor.network.on_cuda:
            raise InputError(f"--precision {precision} is for CPUs: not together with --device cuda")
    else:
        if device not in (None, "cpu"):
            raise InputError(f"--engine {engine} runs on the CPU: not together with --device {device}")
        if load_config(model.config).TEST.TTA.ENABLED and options.augmentation is None:
            raise InputError(
                f"{model.config}: TEST.TTA.ENABLED is True, which --engine {engine} does not follow; give --tta, which "
                f"predicts its views with this engine, or --engine {EAGER}"
            )
        if exported and max_detections is not None:
            raise InputError("--max-detections: the number is part of an exported network; export it again")
        path = Path(model.weights) if exported else exported_file(model, max_detections)
        predictor = ExportedPredictor(
            path, options, engine=engine, threads=torch.get_num_threads(), precision=precision
        )
    # Options that the model cannot follow are refused here, once for all images.
    predictor.magnification_of(ArraySource(np.zeros((1, 1, 3), np.uint8)), estimate=DiameterEstimate(None, 0))
    return predictor


def check_precision(precision: Precision, engine: str) -> None:
    """Raise :class:`InputError` if an engine or this CPU cannot compute in a precision."""
    if precision == FLOAT32:
        return
    if engine == "onnx":
        raise InputError(f"--precision {precision}: --engine onnx knows float32 only; give --engine openvino")
    if not cpu_supports_bfloat16():
        raise InputError(
            f"--precision {precision}: this CPU does not compute it in hardware (AVX512-BF16 or AMX), and would be "
            "slower than with float32"
        )


def exported_file(model: ModelFiles, max_detections: int | None = None) -> Path:
    """The model, whose weights are a file, as an ONNX file that is written at its first use.

    It lies in ``bccd_d2`` below ``$XDG_CACHE_HOME``, or below ``~/.cache``. ``max_detections`` takes the place of
    ``TEST.DETECTIONS_PER_IMAGE``. Raises :class:`InputError` as :func:`export_model`.
    """
    cfg = load_config(model.config)
    if max_detections is not None:
        allow_detections(cfg, max_detections)
    if not Path(model.weights).is_file():
        raise InputError(
            f"{model.weights} is not there; another engine than eager needs the weights as a file"
        )
    content = Path(model.weights).read_bytes() + cfg.dump().encode()
    key = hashlib.sha256(content).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bccd_d2"
    path = cache / f"{Path(model.weights).stem}_{key}_v{_VERSION}.onnx"
    if not path.is_file():
        logging.getLogger(__name__).info("exporting %s, once: %s", model.weights, path)
        cache.mkdir(parents=True, exist_ok=True)
        export_model(cfg, model.weights, path)
    return path
