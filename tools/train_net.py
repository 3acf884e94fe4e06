"""Train a model, or evaluate one with --eval-only.

Detectron2's own command line: a YAML file from configs/ and KEY VALUE pairs that win over it. Training writes
checkpoints, metrics.json, TensorBoard events, config.yaml and results.json to OUTPUT_DIR; --resume goes on where
an interrupted run stopped. --eval-only also writes the report of tools/evaluate.py to OUTPUT_DIR/evaluation.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported

import torch  # isort: skip

from detectron2.engine import default_argument_parser, default_setup, launch  # isort: skip
from detectron2.modeling import build_model
from detectron2.utils import comm

from bccd_d2.engine.setup import setup_config
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.errors import InputError, run_command
from bccd_d2.modeling.weights import load_weights
from bccd_d2.report.run import report_run

EXAMPLES = """examples:
  python tools/train_net.py --config-file configs/mask_rcnn_R_18_FPN_lite.yaml --data-root datasets/bccd
  python tools/train_net.py --config-file configs/mask_rcnn_R_50_FPN.yaml --num-gpus 2 SOLVER.IMS_PER_BATCH 8
  python tools/train_net.py --config-file output/config.yaml --eval-only MODEL.WEIGHTS output/model_final.pth
"""


def argument_parser() -> ArgumentParser:
    """Detectron2's arguments and the folder of the data."""
    parser = default_argument_parser(epilog=EXAMPLES)
    parser.description = __doc__
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="folder that tools/convert_bccd.py wrote (default: DATASETS.ROOT, else bccd below $DETECTRON2_DATASETS "
        "or ./datasets)",
    )
    return parser


def main(arguments: Namespace) -> Any:
    """Train or evaluate in one process of the launch."""
    cfg = setup_config(
        arguments.config_file, arguments.opts or [], arguments.data_root, training=not arguments.eval_only
    )
    cfg.freeze()
    default_setup(cfg, arguments)
    if arguments.eval_only:
        model = build_model(cfg)
        load_weights(model, cfg.MODEL.WEIGHTS)
        results = BCCDTrainer.test(cfg, model)
        if comm.is_main_process():
            report_run(Path(cfg.OUTPUT_DIR))
        return results
    trainer = BCCDTrainer(cfg)
    trainer.resume_or_load(resume=arguments.resume)
    return trainer.train()


def run() -> None:
    """Parse the command line and start one process a GPU."""
    parser = argument_parser()
    arguments = parser.parse_args()
    if not arguments.config_file:
        parser.error("--config-file is needed, for example configs/mask_rcnn_R_18_FPN_lite.yaml")
    if arguments.num_gpus > max(1, torch.cuda.device_count()):
        raise InputError(f"--num-gpus {arguments.num_gpus}: this machine has {torch.cuda.device_count()}")
    launch(
        main,
        arguments.num_gpus,
        num_machines=arguments.num_machines,
        machine_rank=arguments.machine_rank,
        dist_url=arguments.dist_url,
        args=(arguments,),
    )


if __name__ == "__main__":
    run_command(run)
