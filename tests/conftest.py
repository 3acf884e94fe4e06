"""Fixtures that several rooms share."""

import logging
import os
from pathlib import Path

import fsspec
import pytest
import torch

import bccd_d2  # noqa: F401  adapts Detectron2 before any test imports it

# isort: split
from detectron2.utils.logger import setup_logger

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="torch finds no GPU"))


@pytest.fixture(autouse=True)
def _handlers_end_with_their_test(monkeypatch):
    """A run adds handlers to the loggers of its process: those of one test would write what the next one logs."""
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "bccd_d2")]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
    setup_logger.cache_clear()


def _find_real_data(folder: str) -> Path:
    """A folder of the real data, below ``BCCD_ROOT`` or ``../shared/data``; skips the test where it is absent."""
    configured = os.environ.get("BCCD_ROOT")
    base = Path(configured) if configured else REPOSITORY.parent / "shared" / "data"
    for candidate in (base / folder, base.parent / folder if base.name != folder else base):
        if candidate.is_dir():
            return candidate
    pytest.skip(f"real data absent: no folder {folder} below {base} (set BCCD_ROOT)")


@pytest.fixture(scope="session")
def real_pairs_root() -> Path:
    """Root of the 60 real pairs of "BCCD Dataset with mask"."""
    return _find_real_data("bccd_with_mask")


@pytest.fixture(scope="session")
def real_voc_root() -> Path:
    """Root of the BCCD detection set with Pascal VOC boxes."""
    return _find_real_data("bccd_voc")


@pytest.fixture(scope="session")
def cases() -> Path:
    """Folder of small inputs as laboratories have them."""
    return _find_real_data("cases")


@pytest.fixture
def bucket():
    """fsspec's file system in memory, empty before and after."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


@pytest.fixture(scope="session")
def real_data_root():
    """Gives the folder of a real data set by its name; skips the test where it is absent."""
    return _find_real_data
