"""The page, served from a thread of the test."""

import threading
import time
from contextlib import contextmanager
from typing import ClassVar

import numpy as np

from bccd_d2.cell_types.classifier import TypeCard
from bccd_d2.cell_types.typer import CellTypes
from bccd_d2.inference.app.fields import LOWEST_THRESHOLD
from bccd_d2.inference.app.guard import listen, make_server
from bccd_d2.inference.app.server import build_app
from bccd_d2.inference.app.sessions import Limits, Sessions
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.structures.cell_kinds import kind_of
from tests.inference.drawn_cells import DarkThings

LIMITS = Limits(megabytes=0.4, megapixels=0.1, fields=6, session_megabytes=1, sessions_per_client=5)


class TypesByClass:
    """A CellTyper that says "monocyte" of white cells and "normal" of red ones."""

    cards: ClassVar = {
        "white": TypeCard(
            "white", ("monocyte", "myelocyte"), 2, 32, groups={"myelocyte": "immature granulocyte"}
        ),
        "red": TypeCard("red", ("normal", "teardrop"), 2, 32),
    }

    def choices(self, class_name):
        card = self.cards.get(kind_of(class_name))
        return card.choices if card else {}

    def __call__(self, source, cells, class_names, *, microns_per_pixel=None, diameter_px=None):
        names = [next(iter(self.choices(class_names[k])), "") for k in cells.classes]
        return CellTypes(names, np.where([bool(name) for name in names], 0.9, np.nan), [""] * len(names))


@contextmanager
def serving(folder, limits=LIMITS, secret=None, typer=None):
    """Address of a page whose model finds dark things, and its sessions."""
    predictor = DarkThings(options=PredictionOptions(LOWEST_THRESHOLD))
    sessions = Sessions(folder, limits)
    server = make_server(build_app(sessions, predictor, "dark things", secret, typer))
    with listen("127.0.0.1", 0) as socket:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{socket.getsockname()[1]}", sessions
        server.should_exit = True
        thread.join(30)
