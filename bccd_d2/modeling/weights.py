"""Loads checkpoints, with an error a user can act on when that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.checkpoint import DetectionCheckpointer

from bccd_d2.errors import InputError


@contextmanager
def weights_errors(weights: str) -> Iterator[None]:
    """Turn whatever goes wrong while ``weights`` are fetched and read into one clear line.

    Raises:
        InputError: anything was raised inside; it says what to do.
    """
    try:
        yield
    except Exception as error:  # a fetch, an unpickler and a checkpoint reader each raise kinds of their own
        if "://" not in weights:
            raise InputError(f"MODEL.WEIGHTS: {weights} cannot be loaded ({error})") from error
        raise InputError(
            f"MODEL.WEIGHTS: {weights} cannot be downloaded ({error}). Fetch it where there is a network and give the "
            "file as 'MODEL.WEIGHTS FILE', or train without it: configs/mask_rcnn_R_50_FPN_scratch.yaml"
        ) from error


def load_weights(model: torch.nn.Module, weights: str) -> None:
    """Load a checkpoint into ``model``, from a file or from the address that ``weights`` names.

    Raises:
        InputError: ``weights`` is empty, missing, or cannot be fetched or read.
    """
    if not weights:
        raise InputError("MODEL.WEIGHTS: expected a checkpoint file, found none; add 'MODEL.WEIGHTS FILE'")
    with weights_errors(weights):
        DetectionCheckpointer(model).load(weights)
