"""Loads, averages, saves and packs weights, with an error a user can act on when that fails."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import BatchNorm2d, Conv2d, FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.utils.file_io import Detectron2Handler
from iopath.common.file_io import get_cache_dir
from torch.nn.utils.fusion import fuse_conv_bn_weights

from bccd_d2.errors import InputError
from bccd_d2.files import replacing
from bccd_d2.modeling.checkpoint_files import read_checkpoint, write_safetensors

# Parts of names that some checkpoints hold and others do not, and that the configuration sets or nothing reads.
_CONSTANTS = ("pixel_mean", "pixel_std", "anchor_generator.", "num_batches_tracked")
_NAMES_SHOWN = 4


class BCCDCheckpointer(DetectionCheckpointer):
    """``DetectionCheckpointer`` that unpickles tensors only, reads safetensors too, and tells what does not fit.

    :meth:`load`, for prediction, evaluation and resuming, wants a checkpoint that fits the model in every tensor.
    ``load(path, checkpointables=[])``, which is how ``resume_or_load(path, resume=False)`` starts a fine-tuning,
    leaves what does not fit at its initial values, such as heads of another number of classes, with a warning.
    """

    _source = ""
    _strict = True

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load ``path`` into the model and ``checkpointables`` (``None``: all of them); an empty path loads nothing.

        Returns what the checkpoint holds beside. Raises InputError where no tensor of it fits, or not every one does
        and ``checkpointables`` is ``None``; or it is refused, see
        :func:`bccd_d2.modeling.checkpoint_files.read_checkpoint`.
        """
        self._source, self._strict = path, checkpointables is None
        return super().load(path, checkpointables)

    def _load_file(self, filename: str) -> dict[str, Any]:
        return read_checkpoint(Path(filename))

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        # Without the layers' version numbers: a frozen batch norm takes that of a trained one for an old one of its
        # own, and changes variances, or fails where some have other shapes.
        checkpoint["model"] = dict(checkpoint["model"])
        offered = len(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        shapes = [
            f"{key} {there} in the file, {here} here" for key, there, here in incompatible.incorrect_shapes
        ]
        other = {key for key, *_ in incompatible.incorrect_shapes}  # these are among the missing ones too
        missing = _without_constants(key for key in incompatible.missing_keys if key not in other)
        unexpected = _without_constants(incompatible.unexpected_keys)
        # Not from the missing ones: batch norms make up for statistics that are.
        fitting = offered - len(incompatible.unexpected_keys) - len(shapes)
        if fitting <= 0:
            raise InputError(
                f"{self._source}: no tensor in it fits this model ({_listed(unexpected or shapes)})"
            )
        differences = [
            f"{len(names)} {what}: {_listed(names)}"
            for what, names in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("of another shape", shapes),
            )
            if names
        ]
        if self._strict and differences:
            raise InputError(f"{self._source}: it is of another configuration: {'; '.join(differences)}")
        if differences:
            self.logger.warning(
                f"{self._source}: {fitting} tensors loaded. Not loaded, the model's missing ones and those of another "
                f"shape start from random values: {'; '.join(differences)}"
            )
        return None  # nothing left to log


@contextmanager
def weights_errors(weights: str) -> Iterator[None]:
    """Turn whatever goes wrong while ``weights`` are fetched and read into an InputError that says what to do."""
    try:
        yield
    except InputError as error:
        raise InputError(f"MODEL.WEIGHTS: {error}") from error
    except Exception as error:  # a fetch, an unpickler and a checkpoint reader each raise kinds of their own
        if "://" not in weights:
            raise InputError(f"MODEL.WEIGHTS: {weights} cannot be loaded ({error})") from error
        address, place = _address_and_place(weights)
        raise InputError(
            f"MODEL.WEIGHTS: {weights} cannot be downloaded ({error}). Fetch {address} where there is a network and "
            f"put it at {place}, or anywhere and give it as 'MODEL.WEIGHTS FILE'; or train without it: "
            "configs/mask_rcnn_R_50_FPN_scratch.yaml"
        ) from error


def _address_and_place(weights: str) -> tuple[str, Path]:
    """Where Detectron2 fetches weights from, and where it keeps what it has fetched."""
    address = weights
    if weights.startswith(Detectron2Handler.PREFIX):
        address = Detectron2Handler.S3_DETECTRON2_PREFIX + weights.removeprefix(Detectron2Handler.PREFIX)
    return address, Path(get_cache_dir()) / urlparse(address).path.lstrip("/")


def load_weights(model: torch.nn.Module, weights: str) -> None:
    """Load ``.pth``, ``.safetensors``, a ``.pkl`` of the model zoo, or the address of one, into ``model``.

    Tensors are converted to the model's types. Raises InputError where ``weights`` is empty, missing, cannot be fetched
    or read, or does not fit.
    """
    if not weights:
        raise InputError("MODEL.WEIGHTS: expected a checkpoint file, found none; add 'MODEL.WEIGHTS FILE'")
    with weights_errors(weights):
        BCCDCheckpointer(model).load(weights)


def fold_batch_norm(model: torch.nn.Module) -> None:
    """Let the convolutions of a model in evaluation mode do the work of the batch normalizations behind them, in place.

    Its results stay the same up to rounding; it cannot be trained further, and its checkpoints no longer fit it.
    """
    for module in model.modules():
        norm = getattr(module, "norm", None)
        if isinstance(module, Conv2d) and isinstance(norm, BatchNorm2d | FrozenBatchNorm2d):
            module.weight, module.bias = fuse_conv_bn_weights(
                module.weight,
                module.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            module.norm = None


def load_mean_weights(model: torch.nn.Module, weights: Sequence[str]) -> None:
    """Load the mean of several checkpoints: a model soup (Wortsman et al., ICML 2022), as fast as one model.

    It can help where all were trained from the same weights, with other seeds or lengths; of models that started apart
    the mean is no model. Statistics of batch norms are averaged like weights; whole numbers and truth values are the
    first's. Raises InputError as :func:`load_weights`, and where there is none.
    """
    if not weights:
        raise InputError("expected one checkpoint or more to average, found none")
    kept: dict[str, torch.Tensor] = {}
    sums: dict[str, torch.Tensor] = {}
    for name in weights:
        load_weights(model, name)
        for key, value in model.state_dict().items():
            if not value.is_floating_point():
                kept.setdefault(key, value.clone())
            else:
                sums[key] = sums[key] + value.double() if key in sums else value.double()
    means = {key: total / len(weights) for key, total in sums.items()}
    model.load_state_dict(kept | means)  # converted to the model's types


def save_weights(
    model: torch.nn.Module, path: str | Path, half: bool = False, config: CfgNode | None = None
) -> None:
    """Write the weights as ``.safetensors``, a quarter of a training checkpoint or, with ``half``, an eighth.

    ``config`` is written into the file's metadata as YAML. Raises InputError for another suffix.
    """
    metadata = {} if config is None else {"config": config.dump()}
    write_safetensors(Path(path), model.state_dict(), metadata, half)


def pack_model(cfg: CfgNode, weights: Sequence[str], folder: Path, name: str, note: str = "") -> str:
    """Write ``NAME.safetensors``, float16, and ``NAME.yaml``, the configuration to predict with; returns the SHA-256.

    Of several checkpoints in ``weights`` the mean is taken, see :func:`load_mean_weights`. ``note`` becomes a comment
    at the top of the configuration, which names no path of the machine that trained the model. Raises InputError where
    a checkpoint cannot be read or is of another model.
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


def load_pretrained_backbone(model: torch.nn.Module) -> None:
    """Give backbones that have weights of their own (timm's, a vision transformer's file) what they start from.

    Building a model does not do this, so that a trained one needs no download. Raises InputError where they cannot be
    had.
    """
    for module in model.modules():
        load: Any = getattr(module, "initialize_from_pretrained", None)
        if load is not None:
            load()


def _without_constants(keys: Iterator[str] | Sequence[str]) -> list[str]:
    return sorted(key for key in keys if not any(part in key for part in _CONSTANTS))


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def join_rows(rows: torch.Tensor, chosen: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows of a head for other classes: for each new one the mean of the old rows ``chosen``, of all where there is
    none.
    """
    every = list(range(len(rows)))
    return torch.stack([rows[list(one) or every].float().mean(0) for one in chosen]).to(rows.dtype)
