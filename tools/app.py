"""Open a page on this machine that finds the cells of images that are dropped on it.

python tools/app.py                       # with the shipped model, on http://127.0.0.1:7860
python tools/app.py --run output/lite --port 8000
python tools/app.py --host 0.0.0.0 --password TEXT --max-mb 20     # for all who can reach this machine
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported

import cv2  # isort: skip

from bccd_d2.errors import InputError, run_command
from bccd_d2.inference.app import LOWEST_THRESHOLD, UploadLimits, build_app, import_gradio, launch_app
from bccd_d2.inference.arguments import add_engine_argument, add_model_arguments, model_from
from bccd_d2.inference.engines import load_predictor
from bccd_d2.inference.finder import PredictionOptions
from bccd_d2.synthetic import draw_smear

LOOPBACK = ("127.0.0.1", "localhost", "::1")
USER = "lab"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    limits = UploadLimits()
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: this machine only)"
    )
    parser.add_argument(
        "--password",
        metavar="TEXT",
        help=f"ask for it, with the user name {USER}; needed by --host other than this machine",
    )
    parser.add_argument(
        "--no-password", action="store_true", help="let everybody in who can reach --host, without a password"
    )
    parser.add_argument("--port", type=int, default=7860, help="default %(default)s")
    parser.add_argument(
        "--max-mb", type=float, default=limits.megabytes, help="of an uploaded file (default %(default)g)"
    )
    parser.add_argument(
        "--max-megapixels", type=float, default=limits.megapixels, help="of an image (default %(default)g)"
    )
    add_model_arguments(parser)
    add_engine_argument(parser)
    return parser.parse_args(arguments)


def login(host: str, password: str | None, no_password: bool) -> tuple[str, str] | None:
    """User name and password that the page asks for; ``None`` for neither.

    Raises:
        InputError: other machines could open the page, and nothing says that they may.
    """
    if password == "" or (password and no_password):
        raise InputError("--password: expected a text, and not together with --no-password")
    if host not in LOOPBACK and not password and not no_password:
        raise InputError(
            f"--host {host}: others could open this page; give --password TEXT, or --no-password if they all may"
        )
    return (USER, password) if password else None


def main(arguments: list[str] | None = None) -> None:
    """Serve the page until Ctrl-C."""
    given = parse(arguments)
    limits = UploadLimits(given.max_mb, given.max_megapixels)
    auth = login(given.host, given.password, given.no_password)
    import_gradio()  # before the model is read, which takes longer
    model = model_from(given)
    predictor = load_predictor(
        model, PredictionOptions(LOWEST_THRESHOLD), engine=given.engine, device=given.device
    )
    with tempfile.TemporaryDirectory(prefix="bccd_d2-") as folder:
        example = Path(folder) / "synthetic smear.png"
        cv2.imwrite(str(example), draw_smear(21, 1200, 900).image)
        try:
            launch_app(
                build_app(predictor, limits, example),
                limits,
                server_name=given.host,
                server_port=given.port,
                auth=auth,
            )
        except OSError as error:
            raise InputError(f"--port {given.port}: {error}") from error


if __name__ == "__main__":
    run_command(main)
