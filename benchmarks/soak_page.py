"""Use the page from several clients at once for some minutes: its memory must stay flat, and no client see another.

    python benchmarks/soak_page.py [--minutes 30] [--clients 4] [--seed 0] [-- arguments of tools/app.py]

Starts tools/app.py on a free port. Each client draws from: open the page, ask for the state, upload an image, a zip or
no image, look at pictures and cells, delete, change and draw cells, download, ask for the report, remove a field, end
the session, ask for what belongs to another client. The status is 1 if a request was answered with 500 or not at all,
if a client saw what belongs to another, or if the memory of the last third is above that of the second by a tenth.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import HTTPCookieProcessor, ProxyHandler, Request, build_opener

import cv2
import numpy as np
import psutil
from tabulate import tabulate

from bccd_d2.synthetic import draw_smear

APP = Path(__file__).resolve().parent.parent / "tools" / "app.py"
TIMEOUT = 300
MOST_GROWTH = 1.1
ACTIONS = (
    *("upload", "upload", "zip", "none", "look", "look", "correct", "correct", "draw"),
    *("files", "report", "remove", "foreign"),
)


@dataclass
class Answer:
    """What the server said."""

    status: int
    content: bytes
    headers: Any

    @property
    def json(self) -> Any:
        """The content."""
        return json.loads(self.content)


class Client:
    """A browser without a window: keeps its cookies.

    Args:
        address: such as "http://127.0.0.1:7860".
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.cookies = CookieJar()
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self.cookies))

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request; a body that is no bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(self.address + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return Answer(answer.status, answer.read(), answer.headers)
        except HTTPError as error:
            return Answer(error.code, error.read(), error.headers)

    def get(self, path: str) -> Answer:
        """Ask with GET."""
        return self.ask("GET", path)

    def upload(self, name: str, content: bytes) -> Answer:
        """Upload a file."""
        return self.ask("POST", f"/api/files?name={quote(name)}", content)

    def fields(self, query: str = "") -> dict[str, Any]:
        """The fields of the session by number."""
        found: dict[str, Any] = self.get(f"/api/state{query}").json["fields"]
        return found

    def wait(self) -> dict[str, Any]:
        """The fields, when none is waiting or running any more."""
        while True:
            fields = self.fields()
            if all(entry["state"] in ("done", "failed") for entry in fields.values()):
                return fields
            time.sleep(0.1)


def png(image: np.ndarray) -> bytes:
    """An image (height, width, 3) as a file."""
    return cv2.imencode(".png", image)[1].tobytes()


@dataclass
class Tally:
    """What happened."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)


class Visitor(threading.Thread):
    """One client that does what comes to its mind until ``end``."""

    def __init__(
        self, name: str, address: str, seed: int, end: float, images: list[bytes], tally: Tally
    ) -> None:
        super().__init__()
        self.called, self.end, self.images, self.tally = name, end, images, tally
        self.client, self.draw, self.uploads = Client(address), random.Random(seed), 0

    def run(self) -> None:
        """Ask and ask."""
        while time.monotonic() < self.end:
            try:
                self._step()
            except (OSError, ValueError) as error:
                self.tally.faults.append(f"{self.called}: {error!r}")

    def _ask(self, what: str, method: str, path: str, body: Any = None) -> Answer:
        answer = self.client.ask(method, path, body)
        self.tally.requests[what, answer.status] += 1
        if answer.status >= 500:
            self.tally.faults.append(
                f"{self.called}: {method} {path}: {answer.status} {answer.content[:200]!r}"
            )
        return answer

    def _step(self) -> None:
        fields = self._ask("state", "GET", f"/api/state?score={self.draw.random():.2f}").json["fields"]
        for entry in fields.values():
            if not entry["name"].startswith(self.called):
                self.tally.faults.append(f"{self.called}: sees {entry['name']}")
        done = [number for number, entry in fields.items() if entry["state"] == "done"]
        kind = self.draw.choice(ACTIONS)
        if kind == "upload" and len(fields) < 6:
            self._upload("png", self.draw.choice(self.images))
        elif kind == "zip" and len(fields) < 6:
            file = BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                for index, image in enumerate(self.draw.sample(self.images, 2)):
                    archive.writestr(f"{self.called} zip {self.uploads} {index}.png", image)
            self._upload("zip", file.getvalue())
        elif kind == "none":
            self._upload("tif", self.draw.randbytes(20_000))
        elif kind == "foreign":
            number = self.draw.randint(1, 400)
            if str(number) not in fields:
                for path in ("picture", "thumbnail", "cells"):
                    if self._ask("foreign", "GET", f"/api/fields/{number}/{path}").status != 404:
                        self.tally.faults.append(
                            f"{self.called}: field {number} is no field of it and was shown"
                        )
        elif kind == "remove" and fields:
            if self.draw.random() < 0.1:
                self._ask("end", "DELETE", "/api/session")
            else:
                self._ask("remove", "DELETE", f"/api/fields/{self.draw.choice(list(fields))}")
        elif done:
            self._use(kind, self.draw.choice(done))
        time.sleep(self.draw.uniform(0, 0.4))

    def _upload(self, suffix: str, content: bytes) -> None:
        self.uploads += 1
        name = quote(f"{self.called} {self.uploads}.{suffix}")
        self._ask(f"upload {suffix}", "POST", f"/api/files?name={name}", content)

    def _use(self, kind: str, number: str) -> None:
        place = f"/api/fields/{number}"
        if kind == "look":
            self._ask("page", "GET", "/")
            self._ask("picture", "GET", f"{place}/picture")
            self._ask("thumbnail", "GET", f"{place}/thumbnail")
        elif kind == "correct":
            cells = self._ask("cells", "GET", f"{place}/cells").json["cells"]
            if cells:
                change = {"deleted": True} if self.draw.random() < 0.5 else {"class": self.draw.randint(0, 2)}
                self._ask("correct", "PATCH", f"{place}/cells/{self.draw.choice(cells)['number']}", change)
        elif kind == "draw":
            x, y, side = (self.draw.uniform(5, 200) for _ in range(3))
            outline = [x, y, x + side, y, x + side, y + side, x, y + side]
            self._ask("draw", "POST", f"{place}/cells", {"outline": outline, "class": 0})
        elif kind == "files":
            answer = self._ask(
                "download", "GET", "/api/download?formats=coco,csv,labels,geojson,roi,overlay&images=1"
            )
            if answer.status == 200:
                with zipfile.ZipFile(BytesIO(answer.content)) as archive:
                    foreign = [
                        n for n in archive.namelist() if "visitor" in n and f"/{self.called} " not in n
                    ]
                    if foreign:
                        self.tally.faults.append(f"{self.called}: got {foreign}")
        elif kind == "report":
            text = self._ask("report", "GET", "/api/report").content.decode()
            shown = set(re.findall(r"visitor-\d+", text)) - {self.called}
            if shown:
                self.tally.faults.append(f"{self.called}: the report shows {shown}")


def soak(minutes: float, clients: int, seed: int, arguments: list[str], tally: Tally) -> None:
    """Start the page, use it, end it."""
    images = [png(draw_smear([seed, k], 480, 360, cell_diameter=(40, 50)).image) for k in range(6)]
    command = [sys.executable, str(APP), "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        if not address:
            raise SystemExit("the page did not start")
        print(f"{address}: {clients} clients, {minutes:g} minutes", flush=True)
        end = time.monotonic() + 60 * minutes
        visitors = [Visitor(f"visitor-{k}", address, seed + k, end, images, tally) for k in range(clients)]
        for visitor in visitors:
            visitor.start()
        process, started = psutil.Process(server.pid), time.monotonic()
        while any(visitor.is_alive() for visitor in visitors) and server.poll() is None:
            tally.memory.append((time.monotonic() - started, process.memory_info().rss / 1e6))
            time.sleep(2)
        for visitor in visitors:
            visitor.join()
        if server.poll() is not None:
            tally.faults.append(f"the server ended with status {server.returncode}")
        server.terminate()


def main() -> int:
    """Soak and say what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30, metavar="MIN", help="default %(default)s")
    parser.add_argument("--clients", type=int, default=4, metavar="N", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of what the clients do")
    parser.add_argument("app", nargs="*", metavar="ARGUMENT", help="of tools/app.py, behind --")
    given = parser.parse_args()
    tally = Tally()
    soak(given.minutes, given.clients, given.seed, given.app, tally)
    rows = [(what, status, number) for (what, status), number in sorted(tally.requests.items())]
    print(tabulate(rows, headers=["request", "status", "number"]))
    third = len(tally.memory) // 3
    early, late = (
        max((mb for _, mb in part), default=0.0)
        for part in (tally.memory[third : 2 * third], tally.memory[2 * third :])
    )
    minute = [mb for seconds, mb in tally.memory if seconds < 60]
    print(
        f"{tally.requests.total()} requests; memory: first minute at most {max(minute, default=0.0):.0f} MB, second "
        f"third {early:.0f} MB, last third {late:.0f} MB, at the end {tally.memory[-1][1]:.0f} MB"
    )
    if late > MOST_GROWTH * early:
        tally.faults.append(f"memory grew from {early:.0f} to {late:.0f} MB")
    print("\n".join(tally.faults) or "no faults")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
