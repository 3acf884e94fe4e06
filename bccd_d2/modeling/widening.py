"""A slim model with more channels, which computes what the narrow one does (Net2WiderNet, Chen et al., ICLR 2016)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from bccd_d2.errors import InputError

_NOISE = 0.02  # of a tensor's standard deviation: without it, copied channels would stay equal for ever
# Parts of the weights' names, and the groups of channels that they put out and take in; the first that matches counts.
# {0} is the number in the name, {1} the one below it.
_LAYERS = (
    (r"bottom_up\.stem\.", "res2", None),
    (r"bottom_up\.res2\.", "res2", "res2"),
    (r"bottom_up\.res(\d)\.0\.(?:conv1|shortcut)\.", "res{0}", "res{1}"),
    (r"bottom_up\.res(\d)\.", "res{0}", "res{0}"),
    (r"fpn_lateral(\d)\.", "fpn", "res{0}"),
    (r"fpn_output\d\.|rpn_head\.conv\.", "fpn", "fpn"),
    (r"rpn_head\.|box_head\.fc1\.", None, "fpn"),
    (r"mask_head\.mask_fcn1\.", "mask", "fpn"),
    (r"mask_head\.predictor\.", None, "mask"),
    (r"mask_head\.", "mask", "mask"),
)


def widen(
    narrow: Mapping[str, Tensor], wide: Mapping[str, Tensor], noise: float = _NOISE
) -> dict[str, Tensor]:
    """Weights in the shapes of ``wide`` that compute what ``narrow`` computes, up to ``noise``.

    Both are state dicts of models of ``build_slim_resnet_fpn_backbone`` with RPN, a box head of fully connected layers
    and a mask head; ``wide`` may have more channels in the stages of the backbone, the FPN and the mask head. The
    channels that it has more are copies of others, drawn with a fixed seed, and what reads a channel divides its
    weights among the copies. Raises InputError where the names differ, or a shape that cannot grow.
    """
    if narrow.keys() != wide.keys():
        raise InputError(
            f"the two models differ in {sorted(narrow.keys() ^ wide.keys())[:3]}, expected only other widths"
        )
    generator = torch.Generator().manual_seed(0)
    copied: dict[str, Tensor] = {}  # of each group, the narrow channel that each wide one copies
    for name, old in narrow.items():
        put_out, _ = _groups(name)
        if put_out is not None and name.endswith(".weight") and put_out not in copied:
            channels, more = (tensor.shape[1 if _is_transposed(name) else 0] for tensor in (old, wide[name]))
            copies = torch.randperm(channels, generator=generator)[: max(0, more - channels)]
            copied[put_out] = torch.cat([torch.arange(channels), copies])
    widened = {}
    for name, old in narrow.items():
        put_out, taken_in = _groups(name)
        new = old.transpose(0, 1) if _is_transposed(name) else old
        if put_out is not None and new.ndim:
            new = new[copied[put_out]]
        if taken_in is not None and new.ndim > 1:
            source = copied[taken_in]
            shares = torch.bincount(source)[source].reshape(1, -1, *[1] * (new.ndim - 1))
            # A fully connected layer has the positions of a channel beside each other.
            new = (new.unflatten(1, (int(source.max()) + 1, -1))[:, source] / shares).flatten(1, 2)
        if new.ndim > 1 and new.numel() > old.numel():
            new = new + noise * new.std() * torch.randn(new.shape, generator=generator)
        widened[name] = new.transpose(0, 1).contiguous() if _is_transposed(name) else new
        if widened[name].shape != wide[name].shape:
            raise InputError(f"{name}: {tuple(old.shape)} cannot become {tuple(wide[name].shape)}")
    return widened


def _is_transposed(name: str) -> bool:
    """Whether it is the weight of a transposed convolution, which has its inputs first."""
    return name.endswith("deconv.weight")


def _groups(name: str) -> tuple[str | None, str | None]:
    for pattern, put_out, taken_in in _LAYERS:
        if found := re.search(pattern, name):
            stage = int(found[1]) if found.groups() else 0
            return put_out and put_out.format(stage), taken_in and taken_in.format(stage, stage - 1)
    return None, None
