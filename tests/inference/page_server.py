"""The page, served from a thread of the test."""

import threading
import time
from contextlib import contextmanager

from bccd_d2.inference.app.fields import LOWEST_THRESHOLD
from bccd_d2.inference.app.guard import listen, make_server
from bccd_d2.inference.app.server import build_app
from bccd_d2.inference.app.sessions import Limits, Sessions
from bccd_d2.inference.finder import PredictionOptions
from tests.inference.drawn_cells import DarkThings

LIMITS = Limits(megabytes=0.4, megapixels=0.1, fields=6, session_megabytes=1, sessions_per_client=5)


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
