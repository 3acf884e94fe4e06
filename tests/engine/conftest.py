import logging

import pytest

from tests.engine.tiny import write_data


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """The tiny data set."""
    return write_data(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def quiet_detectron2():
    """Detectron2's trainer sets its logger up where nobody has; here pytest shows what is logged."""
    logging.getLogger("detectron2").setLevel(logging.INFO)
