"""Between the network and the page: limits of requests and their bodies, headers for browsers, the server itself."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bccd_d2.errors import InputError
from bccd_d2.inference.app.sessions import LimitError

_MOST_JSON = 2**20
_MOST_CONNECTIONS = 200
_POLICY = "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


class RateLimit:
    """So many requests a minute of each address, a quarter of them at once."""

    def __init__(self, per_minute: float) -> None:
        self.per_minute, self.most = per_minute, max(1.0, per_minute / 4)
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, client: str) -> bool:
        """Whether a request is allowed; it counts then."""
        now = time.monotonic()
        left, since = self._left.get(client, (self.most, now))
        left = min(self.most, left + (now - since) * self.per_minute / 60)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    def forget(self) -> None:
        """Forget addresses that have all their requests again."""
        oldest = time.monotonic() - 60
        self._left = {client: entry for client, entry in self._left.items() if entry[1] > oldest}


class Guard:
    """Middleware: refuses too many requests, and adds the headers that keep browsers to this page."""

    def __init__(self, app: ASGIApp, rate: RateLimit) -> None:
        self.app, self.rate = app, rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                extra = {
                    b"content-security-policy": _POLICY.encode(),
                    b"x-content-type-options": b"nosniff",
                    b"referrer-policy": b"no-referrer",
                    b"cache-control": b"no-store",
                }
                message["headers"] += [entry for entry in extra.items() if entry[0] not in names]
            await send(message)

        if not self.rate.take(client_of(scope)):
            refused = JSONResponse({"error": "too many requests; wait a moment"}, 429, {"retry-after": "2"})
            await refused(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)


def client_of(scope: Mapping[str, Any]) -> str:
    """Address of the client of a request."""
    return str((scope.get("client") or ("",))[0])


async def chunks(request: Request, most: int, name: str) -> AsyncIterator[bytes]:
    """The body of a request, piece by piece; a LimitError once it is longer than ``most`` bytes."""
    size = int(request.headers.get("content-length") or 0)
    if size <= most:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                break
            yield chunk
    if size > most:
        raise LimitError(f"{name}: larger than the {most / 1e6:g} MB that this page accepts")


async def read_body(request: Request) -> bytes:
    """The body of a small request."""
    return b"".join([chunk async for chunk in chunks(request, _MOST_JSON, "request")])


async def read_json(request: Request) -> dict[str, Any]:
    """The body of a small request, a JSON object; an InputError if it is none."""
    body = await read_body(request)
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected JSON ({error})") from error
    if not isinstance(given, dict):
        raise InputError("expected a JSON object")
    return given


def listen(host: str, port: int) -> socket.socket:
    """A socket that the page is served at; port 0 takes a free one. An OSError if it is taken or not there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def make_server(app: ASGIApp) -> uvicorn.Server:
    """The server of an application; its ``run(sockets=[...])`` serves until Ctrl-C.

    Addresses that a proxy claims are not believed: limits are those of the connection's address.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=3,
        )
    )
