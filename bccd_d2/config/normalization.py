"""What the network sees of an image: the one switch that sets mean, standard deviation and their colour order."""

from __future__ import annotations

from detectron2.config import CfgNode, get_cfg

from bccd_d2.errors import InputError

# ImageNet's mean and deviation of R, G, B, in levels of 0 to 255.
_IMAGENET_MEAN = [123.675, 116.28, 103.53]
_IMAGENET_STD = [58.395, 57.12, 57.375]
# The deviations of B, G, R, in the order that Detectron2's own configurations of these models have.
_COCO_STD = [57.375, 57.12, 58.395]
_RGB_ONLY = ("imagenet", "timm")
# Where weights lie that were trained on BGR images with COCO's mean subtracted.
_DETECTRON2_WEIGHTS = (
    "detectron2://COCO",
    "detectron2://LVIS",
    "detectron2://Misc",
    "detectron2://ImageNetPretrained/MSRA",
    "detectron2://ImageNetPretrained/FAIR",
    "https://dl.fbaipublicfiles.com/detectron2/COCO",
    "https://dl.fbaipublicfiles.com/detectron2/Misc",
    "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA",
)
# Those of them that were trained on levels divided by the deviation too.
_WITH_DEVIATION = ("X_101", "X-101", "/scratch_")


def apply_pixels(cfg: CfgNode) -> None:
    """Set ``MODEL.PIXEL_MEAN`` and ``PIXEL_STD`` as ``INPUT.PIXELS`` says, and check them against the weights."""
    stock = get_cfg().MODEL
    coco = (list(stock.PIXEL_MEAN), list(stock.PIXEL_STD))
    found = (list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD))
    known = {
        "coco": coco,
        "coco_std": (coco[0], _COCO_STD),
        "unit": ([0.0] * 3, [255.0] * 3),
        "imagenet": (_IMAGENET_MEAN, _IMAGENET_STD),
        "timm": found,
        "custom": found,
    }
    pixels = cfg.INPUT.PIXELS
    if pixels not in known:
        raise InputError(f"INPUT.PIXELS: expected one of {', '.join(known)}, found {pixels!r}")
    if pixels in _RGB_ONLY and cfg.INPUT.FORMAT != "RGB":
        raise InputError(f"INPUT.PIXELS {pixels!r} expects INPUT.FORMAT 'RGB', found {cfg.INPUT.FORMAT!r}")
    if pixels == "timm":
        known["timm"] = _timm_pixels(cfg)
    if found not in (coco, known[pixels]):
        raise InputError(
            f"MODEL.PIXEL_MEAN and PIXEL_STD are {found[0]} and {found[1]}, but INPUT.PIXELS is {pixels!r}, which "
            "sets them: expected 'custom'"
        )
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = known[pixels]
    weights = cfg.MODEL.WEIGHTS
    if not weights.startswith(_DETECTRON2_WEIGHTS):
        return
    expected = "coco_std" if any(name in weights for name in _WITH_DEVIATION) else "coco"
    if known[pixels] != known[expected] or cfg.INPUT.FORMAT != "BGR":
        raise InputError(
            f"MODEL.WEIGHTS {weights} expects INPUT.PIXELS {expected!r} and INPUT.FORMAT 'BGR', "
            f"found {pixels!r} and {cfg.INPUT.FORMAT!r}"
        )


def _timm_pixels(cfg: CfgNode) -> tuple[list[float], list[float]]:
    """Mean and deviation of R, G, B that the weights of ``MODEL.TIMM.NAME`` were trained with, 0 to 255."""
    if not cfg.MODEL.BACKBONE.NAME.startswith("build_timm_"):
        raise InputError(
            "INPUT.PIXELS 'timm' expects MODEL.BACKBONE.NAME 'build_timm_fpn_backbone' or 'build_timm_sfp_backbone', "
            f"found {cfg.MODEL.BACKBONE.NAME!r}"
        )
    import timm  # takes two seconds

    pretrained = timm.get_pretrained_cfg(cfg.MODEL.TIMM.NAME)
    if pretrained is None:  # a name that timm does not know; building the model says which ones are near
        return list(_IMAGENET_MEAN), list(_IMAGENET_STD)
    mean, std = pretrained.mean, pretrained.std
    return [round(255 * level, 3) for level in mean], [round(255 * level, 3) for level in std]
