"""Find the cells in images: outlines, counts and measurements in the formats of other tools.

Images that are finished are skipped when the same command is run again, so an interrupted run resumes where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported

import torch  # isort: skip

from bccd_d2.cell_types.differential import as_text
from bccd_d2.commands import CommandParser, run_command
from bccd_d2.config import check_device
from bccd_d2.errors import InputError
from bccd_d2.inference.arguments import (
    add_engine_argument,
    add_model_arguments,
    add_prediction_arguments,
    add_process_arguments,
    check_processes,
    model_from,
    options_from,
)
from bccd_d2.inference.batch import known_diameters, prepare_job, run_job
from bccd_d2.inference.collect import BatchSummary, collect
from bccd_d2.inference.model_files import WEIGHTS_FOLDER
from bccd_d2.inference.quality import FLAGS
from bccd_d2.inference.ray_engine import run_job_on_ray
from bccd_d2.inference.smear_report import REPORT, read_fields, render_report
from bccd_d2.inference.writers import DEFAULT_FORMATS, FORMATS, parse_formats
from bccd_d2.io.storage import Storage

EXAMPLES = """examples:
  python tools/predict.py --input smear.png --output predictions
  python tools/predict.py --run output/lite --input folder/ 'more/**/*.tif' --output results --formats csv,geojson,roi
  python tools/predict.py --input folder/ --output predictions --diameter 75
  python tools/predict.py --input folder/ --output predictions --types
  python tools/predict.py --input folder/ --output predictions --engine openvino --precision bfloat16
  python tools/predict.py --input slide.svs --output predictions --mpp 0.25 --formats labels,csv
  python tools/predict.py --input s3://bucket/smears --output s3://bucket/predictions --num-gpus 4
  python tools/predict.py --input s3://bucket/smears --output s3://bucket/predictions --ray --ray-address auto
"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(__doc__, EXAMPLES)
    add = parser.add_argument
    input_help = (
        "images, folders of them, quoted patterns with * or **; also addresses such as s3://bucket/folder"
    )
    add("--input", nargs="+", required=True, metavar="PATH", help=input_help)
    add("--output", required=True, metavar="DIR", help="folder of the results, or an address")
    format_help = f"some of {','.join(FORMATS)} (default %(default)s)"
    add("--formats", default=",".join(DEFAULT_FORMATS), metavar="LIST", help=format_help)
    type_help = "types of white and red cells, by the classifiers of a folder (default: the shipped ones)"
    add("--types", nargs="?", const=WEIGHTS_FOLDER, metavar="DIR", help=type_help)
    report_help = f"also write {REPORT}: the inputs as the fields of one smear, on two printed pages"
    add("--report", action="store_true", help=report_help)
    add("--overwrite", action="store_true", help="predict again what is there already")
    add_model_arguments(parser)
    add_engine_argument(parser)
    add_prediction_arguments(parser)
    add_process_arguments(parser)
    given = parser.parse_args(arguments)
    check_processes(given, parser)
    return given


def main(arguments: list[str] | None = None) -> int:
    """Predict every image; files that cannot be read are listed at the end and make the status 1."""
    given = parse(arguments)
    if given.num_gpus > max(1, torch.cuda.device_count()):
        raise InputError(f"--num-gpus {given.num_gpus}: this machine has {torch.cuda.device_count()}")
    if given.device is not None:
        check_device(given.device, "--device")
    with Storage(given.output).locked():
        job = prepare_job(
            given.input,
            given.output,
            model_from(given),
            options_from(given),
            parse_formats(given.formats + (",csv" if given.report else "")),
            overwrite=given.overwrite,
            device=given.device,
            max_pixels=given.max_pixels,
            max_detections=given.max_detections,
            types=given.types,
            engine=given.engine,
            precision=given.precision,
        )
        if finished := len(job.images) - len(job.pending):
            print(f"{finished} of {len(job.images)} files are finished already")
        if given.ray:
            run_job_on_ray(job, given.ray_address, workers=given.ray_workers, gpus_per_worker=given.ray_gpus)
        else:
            run_job(job, given.num_gpus)
        for group, found in known_diameters(job).items():
            print(f"{group}: diameter of red cells {found}")
        summary = collect(job.images, job.outputs, types=bool(job.types))
        status = report(summary, given.output)
        if given.report and summary.images:
            facts = {
                "date": f"{date.today():%Y-%m-%d}",
                "model": Path(job.model.weights).stem if given.run is None else str(given.run),
                "score threshold": f"{given.score_threshold:g}",
            }
            fields = read_fields(job.images, job.outputs, given.max_pixels)
            title = Path(given.input[0]).name or given.input[0]
            if len(given.input) > 1:
                title = f"{title} and {len(given.input) - 1} more"
            page = render_report(fields, title, facts, summary.failures)
            place = job.outputs.storage.write(REPORT, lambda path: path.write_text(page, encoding="utf-8"))
            print(f"report: {place}")
        return status


def report(summary: BatchSummary, output: str) -> int:
    """Print what was found in a batch; its exit status."""
    number = sum(summary.counts.cells.values())
    counts = "".join(f", {count} {name}" for name, count in summary.counts.cells.items())
    print(f"{number} cells in {summary.images} images{counts}: {output}")
    if summary.differential:
        print(as_text(summary.differential))
    if summary.images and not number:
        print(
            "no cells were found: is the score threshold too high (--score-threshold), or are the images magnified "
            "otherwise than those of the training (--diameter auto)?",
            file=sys.stderr,
        )
    elif summary.empty:
        print(f"no cells in {_few(summary.empty)}", file=sys.stderr)
    for flag, meaning in FLAGS.items():
        if names := [name for name, found in summary.quality.items() if flag in found.flags]:
            print(f"{flag} ({meaning}): {len(names)} of {summary.images}: {_few(names)}", file=sys.stderr)
    for line in summary.failures:
        print(f"skipped: {line}", file=sys.stderr)
    return 1 if summary.failures else 0


def _few(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


if __name__ == "__main__":
    run_command(main)
