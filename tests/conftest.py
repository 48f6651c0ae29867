"""What holds for every test."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest


def pytest_configure() -> None:
    """Have Ctrl-C work, here and in every process that a test starts, though a shell starts `pytest &` without it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_thread_outlives_a_test() -> Iterator[None]:
    """Fail a test that leaves a thread behind, or a trace function for the threads of the tests that follow."""
    before, trace = set(threading.enumerate()), threading.gettrace()
    yield
    assert threading.gettrace() is trace
    left = set(threading.enumerate()) - before
    if left:
        gc.collect()  # a failed test's traceback, or a cycle that it made on purpose, may still hold a generator
    for thread in left:
        thread.join(10)
    assert not [thread for thread in left if thread.is_alive()]


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> SimpleQueue[threading.ExceptHookArgs]:
    """Collect what `threading.excepthook` is called with."""
    calls: SimpleQueue[threading.ExceptHookArgs] = SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", calls.put)
    return calls


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Switch the garbage collector off: what is freed, is freed by its reference count, or where the test says."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
