"""The page's HTTP interface. Every request finds its session by a cookie, and sees nothing of any other."""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import date
from functools import lru_cache
from importlib.resources import files
from typing import Any, BinaryIO
from urllib.parse import parse_qs

import anyio
import cv2
import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from bccd_d2.cell_types.typer import CellTyper
from bccd_d2.drawing.overlay import class_hex
from bccd_d2.drawing.pages import render
from bccd_d2.errors import InputError
from bccd_d2.inference.app.fields import CellFilter, Field, FoundCells
from bccd_d2.inference.app.guard import Guard, RateLimit, chunks, client_of, read_body, read_json
from bccd_d2.inference.app.results import smear_report, write_zip
from bccd_d2.inference.app.sessions import LimitError, PredictionThread, Session, Sessions, safe_suffix
from bccd_d2.inference.finder import CellFinder
from bccd_d2.inference.writers import DEFAULT_FORMATS, FORMATS, parse_formats
from bccd_d2.synthetic import draw_smear

COOKIE = "bccd_d2_session"
EXAMPLES = {"synthetic smear 1": 41, "synthetic smear 2": 43, "blurred smear": 31}
"""Seeds by name."""
_TEMPLATES = "bccd_d2.inference.app"
_UPLOAD_SECONDS = 900
_HOUSEKEEPING_SECONDS = 30
_CHUNK = 2**18
_LOGINS_PER_MINUTE = 40
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"


class Page:
    """The requests of the page.

    ``model`` is the name of the model, ``class_names`` are by class index; ``secret``, a password or token, lets a
    client in, ``None`` everybody; ``typer`` gives corrected cells their types, ``None`` none.
    """

    def __init__(
        self,
        sessions: Sessions,
        model: str,
        class_names: Sequence[str],
        secret: str | None,
        typer: CellTyper | None,
    ) -> None:
        self.sessions, self.model, self.class_names = sessions, model, class_names
        self.secret, self.typer, self.limits = secret, typer, sessions.limits
        self.logins = RateLimit(_LOGINS_PER_MINUTE)
        self._heavy = threading.BoundedSemaphore(2)
        self._busy: set[str] = set()

    def routes(self) -> list[Route]:
        """Where each request goes."""
        number, cells = "/api/fields/{number:int}", "/api/fields/{number:int}/cells"
        return [
            Route("/", self.page),
            Route("/login", self.login, methods=["POST"]),
            Route("/{name:str}", self.asset),
            Route("/api/state", self.state),
            Route("/api/files", self.upload, methods=["POST"]),
            Route("/api/examples", self.examples, methods=["POST"]),
            Route("/api/session", self.end_session, methods=["DELETE"]),
            Route(number, self.remove, methods=["DELETE"]),
            Route(number + "/picture", self.picture),
            Route(number + "/thumbnail", self.picture),
            Route(cells, self.cells),
            Route(cells, self.correct, methods=["POST"]),
            Route(cells + "/{cell:int}", self.correct, methods=["PATCH"]),
            Route("/api/download", self.download),
            Route("/api/report", self.report),
        ]

    # Who asks

    def _session(self, request: Request) -> Session | None:
        """The session of a request; status 401 where a password is asked for and none was given."""
        session = self.sessions.get(request.cookies.get(COOKIE))
        if session is None and self.secret is not None:
            raise HTTPException(401, "this page needs a password: open it again")
        return session

    def _session_or_new(self, request: Request) -> Session:
        return self._session(request) or self.sessions.create(client_of(request.scope))

    def _field(self, request: Request) -> tuple[Session, Field]:
        session = self._session(request)
        field = session.fields.get(request.path_params["number"]) if session else None
        if session is None or field is None:
            raise HTTPException(404, "this field is not there any more")
        return session, field

    def _found(self, request: Request) -> tuple[Field, FoundCells]:
        _, field = self._field(request)
        if field.found is None:
            raise HTTPException(409, f"{field.name} is not finished")
        return field, field.found

    def _with_cookie(self, response: Response, request: Request, session: Session) -> Response:
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, session.key, httponly=True, samesite="strict", secure=secure)
        return response

    def page(self, request: Request) -> Response:
        """The page, or the one that asks for the password."""
        session = self.sessions.get(request.cookies.get(COOKIE))
        if self.secret is None or session is not None:
            return HTMLResponse(render(_TEMPLATES, "app.html", {}, limits=self.limits, model=self.model))
        if token := request.query_params.get("token"):
            return self._let_in(request, token)
        return HTMLResponse(render(_TEMPLATES, "login.html", {}, message=""))

    async def login(self, request: Request) -> Response:
        """Take the password."""
        given = parse_qs((await read_body(request)).decode("utf-8", "replace")).get("password", [""])[0]
        return self._let_in(request, given)

    def _let_in(self, request: Request, given: str) -> Response:
        client = client_of(request.scope)
        if not self.logins.take(client):
            message, status = "Too many attempts. Wait a minute.", 429
        elif self.secret is None or secrets.compare_digest(given.encode(), self.secret.encode()):
            return self._with_cookie(RedirectResponse("/", 303), request, self.sessions.create(client))
        else:
            message, status = "This is not the password.", 403
        return HTMLResponse(render(_TEMPLATES, "login.html", {}, message=message), status)

    def asset(self, request: Request) -> Response:
        """Style and scripts."""
        kinds = {"app.css": "text/css", "app.js": "text/javascript", "viewer.js": "text/javascript"}
        name = request.path_params["name"]
        if name not in kinds:
            raise HTTPException(404, "no such page")
        content = (files(_TEMPLATES) / "templates" / name).read_bytes()
        return Response(content, media_type=kinds[name])

    # Fields

    def state(self, request: Request) -> Response:
        """All fields of the session, and their counts together."""
        session = self._session(request)
        fields = dict(session.fields) if session else {}
        chosen = _filter(request, list(fields.values()))
        described = {str(number): field.describe(chosen) for number, field in fields.items()}
        done = [entry for entry in described.values() if entry["state"] == "done"]
        return JSONResponse(
            {
                "classes": [
                    {
                        "name": name,
                        "color": class_hex(index),
                        "types": [] if self.typer is None else list(self.typer.choices(name)),
                    }
                    for index, name in enumerate(self.class_names)
                ],
                "formats": {name: name in DEFAULT_FORMATS for name in FORMATS},
                "unit": "µm" if chosen.microns else "px",
                "fields": described,
                "total": [_total(done, name) for name in self.class_names],
            }
        )

    async def upload(self, request: Request) -> Response:
        """Take one file, an image or a zip of images, as the body; its name is in the query."""
        name = request.query_params.get("name", "image")
        session = self._session_or_new(request)
        zipped = safe_suffix(name) == ".zip"
        most = self.limits.session_megabytes if zipped else self.limits.megabytes
        file = session.new_folder() / f"image{safe_suffix(name)}"
        try:
            with anyio.fail_after(_UPLOAD_SECONDS), file.open("wb") as target:
                async for chunk in chunks(request, round(most * 1e6), name):
                    await run_in_threadpool(target.write, chunk)
        except (InputError, TimeoutError, ClientDisconnect, OSError):
            session.discard(file)
            raise
        numbers = await run_in_threadpool(session.add, file, name)
        return self._added(request, session, numbers)

    def examples(self, request: Request) -> Response:
        """Add some synthetic smears."""
        session = self._session_or_new(request)
        numbers = []
        for name in EXAMPLES:
            file = session.new_folder() / "image.png"
            file.write_bytes(example_image(name))
            numbers += session.add(file, f"{name}.png")
        return self._added(request, session, numbers)

    def _added(self, request: Request, session: Session, numbers: list[int]) -> Response:
        self.sessions.notify()
        return self._with_cookie(JSONResponse({"fields": numbers}, 201), request, session)

    def remove(self, request: Request) -> Response:
        """Remove one field."""
        session, _ = self._field(request)
        session.remove(request.path_params["number"])
        return Response(status_code=204)

    def end_session(self, request: Request) -> Response:
        """Delete all that a client has uploaded."""
        if session := self._session(request):
            self.sessions.drop(session)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE)
        return response

    def picture(self, request: Request) -> Response:
        """The image, or its thumbnail, as JPEG."""
        _, field = self._field(request)
        path = field.jpeg(request.url.path.rpartition("/")[2])
        if not path.is_file():
            raise HTTPException(404, "there is no picture yet")
        return FileResponse(path, media_type="image/jpeg")

    # Cells

    def cells(self, request: Request) -> Response:
        """All cells of a field, deleted ones too."""
        field, found = self._found(request)
        return JSONResponse(
            {"version": field.version, "cells": [found.cell(k) for k in range(len(found.cells))]}
        )

    async def correct(self, request: Request) -> Response:
        """Add a cell: ``outline`` [x0, y0, x1, y1, ...] and ``class``; or give one another ``class`` or ``type``,
        delete it or bring it back: ``deleted``. A ``type`` of ``null`` is that of the classifier, as after a new class.
        """
        field, _ = self._found(request)
        given = await read_json(request)
        return await run_in_threadpool(self._correct, field, given, request.path_params.get("cell"))

    def _correct(self, field: Field, given: dict[str, Any], number: int | None) -> Response:
        with field.lock:
            found = field.found
            assert found is not None
            if number is None:
                number = len(found.cells)
                found = found.draw(given.get("outline"), given.get("class"))
            else:
                found = found.change(number, given.get("class"), given.get("deleted"))
            if given.get("type") is not None:
                if self.typer is None:
                    raise InputError("cells have no types here; start the page with --types")
                found = found.set_type(number, given["type"], self.typer)
            elif not given.keys().isdisjoint({"class", "type"}) and self.typer is not None:
                with field.open() as source:
                    found = found.classify(number, source, self.typer)
            field.found = found
            field.version += 1
        return JSONResponse({"version": field.version, "cell": found.cell(number)})

    # Results

    @contextmanager
    def _one_at_a_time(self, session: Session) -> Iterator[None]:
        """What takes memory and time: one at a time of a session, two of all."""
        if session.key in self._busy:
            raise LimitError("the last download is still being made")
        self._busy.add(session.key)
        try:
            with self._heavy:
                yield
        finally:
            self._busy.discard(session.key)

    def _session_with_fields(self, request: Request) -> tuple[Session, list[Field], CellFilter]:
        session = self._session(request)
        if session is None or not session.fields:
            raise InputError("add images first")
        fields = list(session.fields.values())
        return session, fields, _filter(request, fields)

    def download(self, request: Request) -> Response:
        """A zip with all fields in the ``formats`` that are asked for."""
        session, fields, chosen = self._session_with_fields(request)
        formats = parse_formats(request.query_params.get("formats", ",".join(DEFAULT_FORMATS)))
        images = request.query_params.get("images") == "1"
        with self._one_at_a_time(session):
            file = tempfile.TemporaryFile(dir=self.sessions.folder)  # noqa: SIM115  the response closes it
            try:
                write_zip(fields, formats, chosen, file, images=images)
            except BaseException:
                file.close()
                raise
        size = file.tell()
        file.seek(0)
        headers = {"content-length": str(size), "content-disposition": 'attachment; filename="cells.zip"'}
        return StreamingResponse(_parts(file), media_type="application/zip", headers=headers)

    def report(self, request: Request) -> Response:
        """The smear report."""
        session, fields, chosen = self._session_with_fields(request)
        facts = {
            "date": f"{date.today():%Y-%m-%d}",
            "model": self.model,
            "score threshold": f"{chosen.score:g}",
        }
        if corrected := sum(field.found.corrections for field in fields if field.found):
            facts["corrected by hand"] = f"{corrected} cells"
        title = fields[0].name if len(fields) == 1 else f"{fields[0].name} and {len(fields) - 1} more"
        with self._one_at_a_time(session):
            text = smear_report(fields, chosen, title, facts)
        return HTMLResponse(text, headers={"content-security-policy": _REPORT_POLICY})


@lru_cache
def example_image(name: str) -> bytes:
    """PNG of one of :data:`EXAMPLES`."""
    image = draw_smear(EXAMPLES[name], 1000, 750, cell_diameter=(44, 52)).image
    if "blurred" in name:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 5), np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def build_app(
    sessions: Sessions,
    predictor: CellFinder,
    model: str,
    secret: str | None = None,
    typer: CellTyper | None = None,
) -> Starlette:
    """The application, which starts and stops the thread that predicts; the rest as :class:`Page`."""
    page = Page(sessions, model, predictor.class_names, secret, typer)
    thread = PredictionThread(sessions, predictor, typer)
    rate = RateLimit(page.limits.requests_per_minute)

    async def housekeeping() -> None:
        while True:
            await anyio.sleep(_HOUSEKEEPING_SECONDS)
            await run_in_threadpool(page.sessions.expire)
            rate.forget()
            page.logins.forget()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        thread.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(housekeeping)
            yield
            tasks.cancel_scope.cancel()
        thread.stop()

    def refused(_: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return JSONResponse({"error": error.detail}, error.status_code)
        return JSONResponse({"error": str(error)}, 413 if isinstance(error, LimitError) else 400)

    def failed(_: Request, __: Exception) -> Response:
        return JSONResponse({"error": "this failed; the server's log says why"}, 500)

    return Starlette(
        routes=page.routes(),
        middleware=[Middleware(Guard, rate=rate)],
        exception_handlers={InputError: refused, HTTPException: refused, Exception: failed},
        lifespan=lifespan,
    )


def _filter(request: Request, fields: list[Field]) -> CellFilter:
    """The cells that a request asks for, by diameters in microns where all fields know these."""
    found = [field.found for field in fields if field.found is not None]
    microns = bool(found) and all(one.result.microns_per_pixel for one in found)
    values = {}
    for name in ("score", "smallest", "largest"):
        if text := request.query_params.get(name):
            try:
                values[name] = float(text)
            except ValueError as error:
                raise InputError(f"{name}: expected a number, found {text[:20]!r}") from error
    return CellFilter(**values, microns=microns)


def _total(done: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """A class over all fields that are done."""
    numbers = np.array([entry["cells"][name] for entry in done], float)
    return {
        "name": name,
        "cells": int(numbers.sum()),
        "edge": sum(entry["edge"][name] for entry in done),
        "mean": float(numbers.mean()) if len(numbers) else None,
        "sd": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
        "types": sum((entry["types"][name] for entry in done), Counter()),
    }


def _parts(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while part := file.read(_CHUNK):
            yield part
