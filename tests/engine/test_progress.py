import logging
import sys

import pytest
from detectron2.utils.events import EventStorage

from bccd_d2.engine.progress import ProgressLine, quiet_console
from bccd_d2.errors import InputError


def test_the_line_can_be_read(capsys):
    line = ProgressLine(max_iter=1600)
    with EventStorage(119) as storage:
        line.write()
        for loss in (1.0, 3.0, 1.234):
            storage.put_scalar("total_loss", loss)
        storage.put_scalar("lr", 0.0005, smoothing_hint=False)
        storage.put_scalar("time", 0.45)
        line.write()
        line.write()
        # 1480 iterations of 0.45 s are 666 s.
    assert capsys.readouterr().out == "iteration 120/1600  loss 1.234  lr 0.0005  0.45 s/it  ETA 0:11:06\n"


@pytest.fixture(params=["<stdout>", "stdout"], ids=["terminal", "notebook"])
def console(request, capsys):
    """The project's logger with a handler for the console of that name, put back afterwards."""
    logger = logging.getLogger("bccd_d2")
    handler = logging.StreamHandler(sys.stdout)
    handler.stream = type(
        "Stream", (), {"name": request.param, "write": sys.stdout.write, "flush": lambda s: None}
    )()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


def record(name="detectron2", message="short", error=None):
    exc_info = (type(error), error, None) if error else None
    return logging.LogRecord(name, logging.INFO, "file", 1, message, None, exc_info)


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ({}, True),
        ({"name": "detectron2.utils.events"}, False),
        ({"message": "line\n" * 40}, False),
        ({"error": InputError("bad")}, False),
        ({"error": RuntimeError("bug")}, True),
    ],
)
def test_the_console_is_for_people(console, what, shown):
    quiet_console()
    assert bool(console.filter(record(**what))) == shown
