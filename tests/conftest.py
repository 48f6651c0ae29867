"""What holds for every test."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_thread_outlives_a_test() -> Iterator[None]:
    """Fail a test that leaves a thread behind."""
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    if left:
        gc.collect()  # a failed test's traceback, or a cycle that it made on purpose, may still hold a generator
    for thread in left:
        thread.join(10)
    assert not [thread for thread in left if thread.is_alive()]
