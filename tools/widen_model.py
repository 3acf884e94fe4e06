"""Give a slim model more channels: weights that find the same cells, to go on training from (Net2Net).

    python tools/widen_model.py --config-file smear.yaml --weights smear.safetensors --output wide.safetensors \\
        MODEL.SLIM_RESNET.CHANNELS "[48, 96, 192, 352]" MODEL.FPN.OUT_CHANNELS 96 MODEL.ROI_MASK_HEAD.CONV_DIM 96
"""

from __future__ import annotations

from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

import torch  # isort: skip
from detectron2.modeling import build_model  # isort: skip

from bccd_d2.commands import CommandParser
from bccd_d2.config import load_config
from bccd_d2.errors import InputError, run_command
from bccd_d2.modeling.weights import load_weights, save_weights
from bccd_d2.modeling.widening import widen


def _model(config_file: str, options: list[str]) -> torch.nn.Module:
    return build_model(load_config(config_file, ["MODEL.DEVICE", "cpu", *options]))


def main(arguments: list[str] | None = None) -> None:
    """Widen, and print the numbers of parameters."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    add("--config-file", required=True, metavar="YAML", help="of the narrow model")
    add("--weights", required=True, metavar="FILE", help="of the narrow model")
    add("--output", type=Path, required=True, metavar="FILE", help="weights of the wide model, .safetensors")
    add("--overwrite", action="store_true", help="replace a file that is there already")
    add("options", nargs="*", metavar="KEY VALUE", help="what the wide model has more")
    given = parser.parse_args(arguments)
    if given.output.exists() and not given.overwrite:
        raise InputError(f"{given.output} exists; give --overwrite to replace it, or another --output")
    narrow, wide = _model(given.config_file, []), _model(given.config_file, given.options)
    load_weights(narrow, given.weights)
    wide.load_state_dict(widen(narrow.state_dict(), wide.state_dict()))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    save_weights(wide, given.output)
    sizes = [sum(parameter.numel() for parameter in model.parameters()) / 1e6 for model in (narrow, wide)]
    print(f"{given.output}: {sizes[1]:.1f} M parameters, {sizes[0]:.1f} M before")


if __name__ == "__main__":
    run_command(main)
