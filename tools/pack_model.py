"""Make two small files of a trained model: NAME.safetensors (float16 weights) and NAME.yaml (what to predict with).

tools/predict.py takes them as --config-file NAME.yaml --weights NAME.safetensors. Example:

    python tools/pack_model.py --run output/lite --output weights --name lite
"""

from __future__ import annotations

import argparse
from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported
from bccd_d2.config import load_config
from bccd_d2.errors import InputError, run_command
from bccd_d2.modeling.packing import pack_model


def main(arguments: list[str] | None = None) -> None:
    """Pack, and print size and hash."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="OUTPUT_DIR of a training run")
    parser.add_argument("--weights", metavar="FILE", help="checkpoint, in place of the run's model_final.pth")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the two files")
    parser.add_argument("--name", required=True, help="of the model")
    parser.add_argument("--note", default="", help="comment at the top of NAME.yaml")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    parser.add_argument("options", nargs="*", metavar="KEY VALUE", help="win over the run's configuration")
    options = parser.parse_args(arguments)
    path = options.output / f"{options.name}.safetensors"
    if path.exists() and not options.overwrite:
        raise InputError(f"{path} exists; give --overwrite to replace it, or another --name")
    cfg = load_config(options.run / "config.yaml", options.options)
    weights = options.weights or str(options.run / "model_final.pth")
    digest = pack_model(cfg, weights, options.output, options.name, options.note)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, SHA-256 {digest}")


if __name__ == "__main__":
    run_command(main)
