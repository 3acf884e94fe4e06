"""Serve a page that finds, counts and lets people correct the cells of the fields of a smear."""

from __future__ import annotations

import argparse
import secrets
import tempfile
from pathlib import Path

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported

# isort: split
from bccd_d2.cell_types.typer import CellTyper, find_classifiers
from bccd_d2.commands import CommandParser, run_command
from bccd_d2.errors import InputError
from bccd_d2.inference.app.fields import LOWEST_THRESHOLD
from bccd_d2.inference.app.sessions import Limits, Sessions
from bccd_d2.inference.arguments import add_engine_argument, add_model_arguments, diameter, model_from
from bccd_d2.inference.exporting.engines import load_predictor
from bccd_d2.inference.model_files import WEIGHTS_FOLDER
from bccd_d2.inference.options import AUTO, PredictionOptions

EXAMPLES = """examples:
  python tools/app.py                       # with the shipped model, on http://127.0.0.1:7860
  python tools/app.py --types               # types of white cells and shapes of red ones too
  python tools/app.py --host 0.0.0.0 --password TEXT     # for those who can reach this machine and know it
"""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(__doc__, EXAMPLES)
    limits = Limits()
    group = parser.add_argument_group("who may use it")
    group.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: this machine only)"
    )
    group.add_argument("--port", type=int, default=7860, help="default %(default)s; 0 takes a free one")
    secret = group.add_mutually_exclusive_group()
    secret.add_argument("--password", metavar="TEXT", help="the page asks for it")
    secret.add_argument(
        "--token", nargs="?", const="", metavar="TEXT",
        help="print an address that lets in whoever opens it (default: a random token)",
    )  # fmt: skip
    secret.add_argument(
        "--no-password", action="store_true", help="let everybody in who can reach --host, without a password"
    )
    group = parser.add_argument_group("limits")
    for name, metavar, kind, field, text in (
        ("max-mb", "MB", float, "megabytes", "of an image file"),
        ("max-megapixels", "MP", float, "megapixels", "of an image"),
        ("max-fields", "N", int, "fields", "images of one visitor"),
        ("keep-minutes", "MIN", float, "minutes_kept", "delete what was not used for so long"),
    ):
        default = getattr(limits, field)
        help_text = f"{text} (default {default:g})"
        group.add_argument(f"--{name}", type=kind, metavar=metavar, default=default, help=help_text)
    group = parser.add_argument_group("prediction")
    group.add_argument(
        "--types", nargs="?", const=WEIGHTS_FOLDER, metavar="DIR",
        help="types of white cells and shapes of red ones, by the classifiers of a folder (default: weights/)",
    )  # fmt: skip
    group.add_argument(
        "--diameter", type=diameter, default=AUTO, metavar="PX",
        help="of a typical red cell in the images (default auto: estimated for each, unless its microns are known)",
    )  # fmt: skip
    group.add_argument(
        "--mpp", type=float, metavar="UM", help="microns per pixel, in place of what files say"
    )
    add_model_arguments(parser)
    add_engine_argument(parser)
    return parser.parse_args(arguments)


def secret_of(given: argparse.Namespace) -> str | None:
    """Password or token that the page asks for; ``None`` for neither.

    Raises:
        InputError: other machines could open the page, and nothing says that they may.
    """
    if given.password == "":
        raise InputError("--password: expected a text")
    if given.token is not None:
        return given.token or secrets.token_urlsafe(16)
    if given.password is None and given.host not in LOOPBACK and not given.no_password:
        raise InputError(
            f"--host {given.host}: others could open this page; give --password TEXT or --token, or --no-password if "
            "they all may"
        )
    password: str | None = given.password
    return password


def announcement(given: argparse.Namespace, port: int, secret: str | None, limits: Limits) -> str:
    """Where the page is, and who can open it."""
    host = f"[{given.host}]" if ":" in given.host else given.host
    token = f"?token={secret}" if given.token is not None else ""
    lines = [f"http://{host}:{port}/{token}", ""]
    if given.host in LOOPBACK:
        lines[1] = "for this machine only"
    elif secret is None:
        lines[1] = "WARNING: everybody who can reach this machine can use this page (--no-password)"
    else:
        lines[1] = "for all who can reach this machine and know the " + ("token" if token else "password")
        lines.append("not encrypted: beyond a network that you trust, put it behind a proxy with TLS")
    lines.append(
        f"limits: {limits.megabytes:g} MB and {limits.megapixels:g} megapixels per image, {limits.fields} images per "
        f"visitor, {limits.sessions_per_client} visitors per address, {limits.requests_per_minute} requests per "
        f"minute; deleted after {limits.minutes_kept:g} minutes without use"
    )
    return "\n".join([*lines, "Ctrl-C ends it"])


def main(arguments: list[str] | None = None) -> None:
    """Serve the page until Ctrl-C."""
    given = parse(arguments)
    limits = Limits(given.max_mb, given.max_megapixels, given.max_fields, minutes_kept=given.keep_minutes)
    secret = secret_of(given)
    try:
        from bccd_d2.inference.app.guard import listen, make_server
        from bccd_d2.inference.app.server import build_app
    except ModuleNotFoundError as error:
        raise InputError(f"the page needs {error.name}: pip install 'bccd_d2[app]'") from error
    model = model_from(given)
    options = PredictionOptions(LOWEST_THRESHOLD, diameter=given.diameter, microns_per_pixel=given.mpp)
    predictor = load_predictor(
        model, options, engine=given.engine, precision=given.precision, device=given.device
    )
    typer = None
    if given.types is not None:
        classifiers = find_classifiers(given.types, predictor.class_names)
        typer = CellTyper.load(classifiers, given.device or "cpu")
    with tempfile.TemporaryDirectory(prefix="bccd_d2-", ignore_cleanup_errors=True) as folder:
        sessions = Sessions(Path(folder), limits)
        name = Path(model.weights).stem if given.run is None else given.run.name
        app = build_app(sessions, predictor, name, secret, typer)
        try:
            socket = listen(given.host, given.port)
        except OSError as error:
            raise InputError(f"--host {given.host} --port {given.port}: {error}") from error
        with socket:
            print(announcement(given, socket.getsockname()[1], secret, limits), flush=True)
            make_server(app).run(sockets=[socket])


if __name__ == "__main__":
    run_command(main)
