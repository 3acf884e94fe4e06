"""Choose a score threshold for each class, and on request mask NMS, on the validation part; write YAML.

The thresholds are those with the greatest F1, by what the run's own evaluation predicted. Include the file behind the
run's configuration, later ones winning:

    _BASE_: ["config.yaml", "thresholds.yaml"]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tabulate import tabulate

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported
from bccd_d2.commands import CommandParser, refuse_to_replace, run_command
from bccd_d2.config import load_config
from bccd_d2.engine.thresholds import MASK_SUPPRESSIONS, Tuning, read_validation, render, tune
from bccd_d2.evaluation.detectron2_evaluator import RESULTS_FILE
from bccd_d2.evaluation.options import NO_GROUND_TRUTH, EvaluationOptions
from bccd_d2.files import replacing

EXAMPLES = """examples:
  python tools/tune_thresholds.py --run output
  python tools/tune_thresholds.py --run output --mask-nms --iou 0.75 --output thresholds_75.yaml
"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(__doc__, EXAMPLES)
    add = parser.add_argument
    run_help = "OUTPUT_DIR of a training run, with its evaluation"
    add("--run", type=Path, required=True, metavar="DIR", help=run_help)
    add("--dataset", default="bccd_val", help="the validation part (default bccd_val); others are refused")
    predictions_help = f"COCO results (default: RUN/inference/DATASET/{RESULTS_FILE})"
    add("--predictions", type=Path, metavar="JSON", help=predictions_help)
    add("--iou", type=float, default=0.5, help="mask IoU that a match needs (default 0.5)")
    add("--mask-nms", action="store_true", help="choose mask NMS too: metric and threshold, or none")
    add("--output", type=Path, metavar="YAML", help="file to write (default: RUN/thresholds.yaml)")
    add("--overwrite", action="store_true", help="replace the file if it is there")
    return parser.parse_args(arguments)


def table(tuning: Tuning, class_names: list[str], score_before: float) -> str:
    """What was chosen."""
    rows = []
    for name, one in zip(class_names, tuning.classes):
        known = one.f1 is not None
        f1 = [f"{value:.3f}" for value in (one.f1_before, one.f1)] if known else ["", NO_GROUND_TRUTH]
        rows.append([name, *f1, f"{one.threshold:.4f}" if known else f"{one.threshold:.4f} (as before)"])
    return tabulate(rows, ["class", f"F1 at {score_before:g}", "best F1", "threshold"], disable_numparse=True)


def main(arguments: list[str] | None = None) -> None:
    """Read the predictions, choose, write."""
    options = parse(arguments)
    output = options.output or options.run / "thresholds.yaml"
    refuse_to_replace(output, options.overwrite)
    cfg = load_config(options.run / "config.yaml")
    dataset = read_validation(
        cfg, options.run, options.dataset, options.predictions, untouched_masks=options.mask_nms
    )
    before = EvaluationOptions.score_threshold
    suppressions = (None, *MASK_SUPPRESSIONS) if options.mask_nms else (None,)
    tuning = tune(dataset, options.iou, before, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, suppressions)
    source = f"greatest F1 at mask IoU {options.iou:g} on {len(dataset.images)} images of {options.dataset}"
    text = render(tuning, dataset.class_names, options.mask_nms, source)
    with replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{table(tuning, list(dataset.class_names), before)}\n\n{text}\nwritten to {output}")


if __name__ == "__main__":
    run_command(main)
