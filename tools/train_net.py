"""Train a model, or evaluate one with --eval-only.

Detectron2's own command line: a YAML file from configs/ and KEY VALUE pairs that win over it. Training writes
checkpoints, metrics.json, TensorBoard events, log.txt, config.yaml, run.json and results.json to OUTPUT_DIR.
SIGINT (Ctrl-C) and SIGTERM save a checkpoint and end with status 130 and 143; --resume continues an interrupted
run. --eval-only also writes the report of tools/evaluate.py to OUTPUT_DIR/evaluation.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported

# isort: split
from detectron2.data import MetadataCatalog
from detectron2.engine import default_argument_parser
from detectron2.modeling import build_model
from detectron2.utils import comm

from bccd_d2.commands import as_called, run_command
from bccd_d2.engine.launch import launch
from bccd_d2.engine.run_folder import record_run, refuse_mixing, run_folder
from bccd_d2.engine.setup import output_folder, setup_config, start_run
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.modeling.weights import load_weights
from bccd_d2.reporting.report import report_run
from bccd_d2.reporting.run_figures import draw_run

EXAMPLES = """examples:
  python tools/train_net.py --config-file configs/mask_rcnn_R_18_FPN_lite.yaml --data-root datasets/bccd --fast-dev-run
  python tools/train_net.py --config-file configs/mask_rcnn_R_18_FPN_lite.yaml --data-root datasets/bccd
  python tools/train_net.py --config-file configs/mask_rcnn_R_50_FPN.yaml --num-gpus 2 SOLVER.IMS_PER_BATCH 8
  python tools/train_net.py --config-file output/config.yaml --eval-only MODEL.WEIGHTS output/model_final.pth
"""


def argument_parser() -> ArgumentParser:
    """Detectron2's arguments and this project's."""
    parser = default_argument_parser(epilog=as_called(EXAMPLES))
    parser.description = as_called(__doc__)
    root_help = "folder that tools/convert_bccd.py wrote (default: DATASETS.ROOT, else bccd below $DETECTRON2_DATASETS "
    parser.add_argument("--data-root", metavar="DIR", help=as_called(f"{root_help}or ./datasets)"))
    process_help = "processes *per machine* without GPUs (default 1)"
    parser.add_argument("--num-processes", type=int, default=1, help=process_help)
    parser.add_argument(
        "--fast-dev-run", action="store_true",
        help="two iterations, evaluations and checkpoints on two images, into OUTPUT_DIR/fast_dev_run",
    )  # fmt: skip
    return parser


def main(arguments: Namespace) -> None:
    """Train or evaluate in one process of the launch."""
    training, fast, options = not arguments.eval_only, arguments.fast_dev_run, arguments.opts or []
    with run_folder(output_folder(arguments.config_file, options, fast=fast)) as folder:
        cfg = setup_config(arguments.config_file, options, arguments.data_root, training=training, fast=fast)
        if training:
            refuse_mixing(folder, arguments.resume)
        cfg.freeze()
        start_run(cfg, arguments)
        if not training:
            model = build_model(cfg)
            load_weights(model, cfg.MODEL.WEIGHTS)
            BCCDTrainer.test(cfg, model)
            if comm.is_main_process():
                report_run(folder)
            return
        trainer = BCCDTrainer(cfg)
        trainer.resume_or_load(resume=arguments.resume)
        if comm.is_main_process():
            files = {
                n: Path(MetadataCatalog.get(n).json_file) for n in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
            }
            record_run(folder, trainer.cfg.SEED, files, resumed=trainer.start_iter > 0)
        trainer.train()
        if fast and cfg.DATASETS.TEST and comm.is_main_process():
            print("\n".join(["figures:", *(f"  {path}" for path in draw_run(folder))]))


def run() -> int | None:
    """Parse the command line and start the processes."""
    parser = argument_parser()
    arguments = parser.parse_args()
    if not arguments.config_file:
        parser.error("--config-file is needed, for example configs/mask_rcnn_R_18_FPN_lite.yaml")
    return launch(main, arguments)


if __name__ == "__main__":
    run_command(run)
