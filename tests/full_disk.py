"""A disk without room, for tests."""

import resource
from contextlib import contextmanager


@contextmanager
def files_no_larger_than(size):
    """As on a disk with no more room than ``size`` bytes: a longer file ends in an OSError that names nothing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
