"""Make two small files of a trained model: NAME.safetensors (float16 weights) and NAME.yaml (what to predict with).

tools/predict.py takes them as --config-file NAME.yaml --weights NAME.safetensors. Of several runs that started from the
same weights, with other seeds or lengths, the mean of the weights is packed (a "model soup"): sometimes better than
each of them (docs/experiments.md), and as fast. Examples:

    python tools/pack_model.py --run output/lite --output weights --name lite
    python tools/pack_model.py --run output/lite/long output/lite/short --output weights --name soup
"""

from __future__ import annotations

from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported
from bccd_d2.commands import CommandParser, refuse_to_replace, run_command
from bccd_d2.config import load_config
from bccd_d2.modeling.weights import pack_model


def main(arguments: list[str] | None = None) -> None:
    """Pack, and print size and hash."""
    parser = CommandParser(__doc__)
    run_help = "OUTPUT_DIR of a training run; the configuration is that of the first"
    parser.add_argument("--run", type=Path, nargs="+", required=True, metavar="DIR", help=run_help)
    weights_help = "checkpoints, in place of model_final.pth of each run"
    parser.add_argument("--weights", nargs="+", metavar="FILE", help=weights_help)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the two files")
    parser.add_argument("--name", required=True, help="of the model")
    parser.add_argument("--note", default="", help="comment at the top of NAME.yaml")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    parser.add_argument("options", nargs="*", metavar="KEY VALUE", help="win over the run's configuration")
    options = parser.parse_args(arguments)
    path = options.output / f"{options.name}.safetensors"
    refuse_to_replace(path, options.overwrite, "--name")
    cfg = load_config(options.run[0] / "config.yaml", options.options)
    weights = options.weights or [str(run / "model_final.pth") for run in options.run]
    digest = pack_model(cfg, weights, options.output, options.name, options.note)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, SHA-256 {digest}")


if __name__ == "__main__":
    run_command(main)
