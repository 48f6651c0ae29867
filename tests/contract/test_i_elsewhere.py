"""Contract, section I, where something is missing: on another system, or where one forbids what the library uses."""

from __future__ import annotations

import errno
import importlib
import itertools
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from prefetch_generator import SourceProcessError, _process_call, _process_child, _process_wire, background
from tests.helpers import LONG, needs, posix

from .child_sources import WATCHED, watched
from .process_calls import count, given
from .process_failures import be_killed, dying
from .process_support import FORK_WARNING, is_gone, pipe, start

pytestmark = [posix, pytest.mark.filterwarnings(FORK_WARNING)]


def refuse(error: OSError, *_: object) -> Any:
    """Be what this system does not have."""
    raise error


_inside = threading.Event()  # set in the child


def _pid() -> Iterator[int]:
    yield os.getpid()
    _inside.set()
    yield from itertools.count()  # it ends by being told to alone


def _asleep() -> Iterator[int]:
    _inside.set()
    time.sleep(1000)
    yield 0


def test_the_end_of_a_child_that_cannot_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """I4, I5: without pidfd_open(), as on macOS, a death is an error all the same, and `close()` ends the child."""
    monkeypatch.setattr(os, "pidfd_open", partial(refuse, OSError(errno.ENOSYS, "not here")), raising=False)
    assert list(start(count, 100)) == list(range(100))
    with pytest.raises(SourceProcessError, match="SIGKILL"):
        list(start(dying, 1, be_killed, signal.SIGKILL))
    with pipe() as (told, tell):
        numbers = start(watched, tell)
        next(numbers)
        assert numbers.close() is True
        assert [told(), told(), told()][1:] == WATCHED


def test_a_child_whose_parent_has_ended_when_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """I6: when the parent ends, the child is gone: also if the parent has ended before the child looks."""
    here = os.getpid()

    def open_there(pid: int) -> int:
        if os.getpid() != here:
            assert _inside.wait(LONG)
            raise ProcessLookupError(errno.ESRCH, "no such process")
        return int(pidfd_open(pid))

    pidfd_open = getattr(os, "pidfd_open", None) or pytest.skip("no pidfd_open")
    monkeypatch.setattr(os, "pidfd_open", open_there)
    numbers = background(process="fork", max_prefetch=0)(_pid)()
    pids = list(numbers)[:1]  # as if closed: it stops by itself
    assert all(map(is_gone, pids))
    assert "closed" in repr(numbers)
    assert list(background(process="fork")(_asleep)()) == []  # it is interrupted


def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """I1, A4: the constructor raises, and speaks of the main module only where that may be the reason."""
    process = multiprocessing.get_context("fork").Process
    for error, hint in ((OSError(errno.EAGAIN, "too many"), False), (EOFError(), True), (ConnectionResetError(), True)):
        monkeypatch.setattr(process, "start", lambda _, error=error: refuse(error))
        with pytest.raises(RuntimeError, match="cannot start a process for 'count'") as caught:
            start(count, 1)
        assert ("__main__" in str(caught.value)) is hint
        assert caught.value.__cause__ is error


def test_no_sockets_are_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """I8, A4: what is half made is let go."""
    monkeypatch.setattr(socket, "socketpair", partial(refuse, OSError(errno.EMFILE, "too many open files")))
    with pytest.raises(OSError, match="too many open files"):
        start(count, 1)


def test_a_signal_without_a_name() -> None:
    """I4: the error names the signal, by its number alone if that is all there is."""
    with pytest.raises(SourceProcessError, match=r"signal 40 \(unknown\)") as caught:
        list(start(dying, 0, be_killed, 40))
    assert caught.value.exitcode == -40


def test_no_descriptor_is_left_for_an_array() -> None:
    """I7: an array for which this process cannot open its memory is an error, and no gap."""
    there, here = socket.socketpair()
    with there, here:
        receiver = _process_wire.Receiver(here, lambda: True)
        there.sendall(_process_wire._HEAD.pack(_process_wire.SEGMENT, 0, 0, 1 << 16, 0.0))
        with pytest.raises(OSError, match="too many open files"):
            receiver.receive()


class _WithHoles:
    def __reduce_ex__(self, _: object) -> Any:
        return bytes, (pickle.PickleBuffer(memoryview(bytes(1 << 17))[::2]),)


@pytest.mark.parametrize("item", [_WithHoles(), lambda: None], ids=["a buffer with holes", "a function"])
def test_an_item_that_nothing_can_pickle(item: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """I3: such an item is an error in its place, also where there is no cloudpickle."""
    monkeypatch.setitem(sys.modules, "cloudpickle", None)  # which is how a module is missing
    with pytest.raises(Exception, match=r"non-contiguous|pickle"):
        _process_wire.dumps(item, [])
    items = background(process="fork")(given)(1, item, 2)
    assert next(items) == 1
    with pytest.raises(TypeError, match="an item of the source cannot be sent from its process"):
        next(items)
    assert list(items) == []


@needs("cloudpickle")
def test_an_item_that_only_cloudpickle_can_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """I3: where the source's process has cloudpickle, as with a function sent by value, it sends such items too."""
    monkeypatch.setitem(sys.modules, "cloudpickle", importlib.import_module("cloudpickle"))
    large = pickle.PickleBuffer(bytes(1 << 17))
    buffers: list[memoryview] = []
    pickled = _process_wire.dumps((large, lambda: "made there"), buffers)
    assert len(buffers) == 1  # the buffer has been met twice, and is sent once
    _, function = pickle.loads(pickled, buffers=buffers)
    assert function() == "made there"
    assert pickle.loads(_process_wire.dumps(lambda: "again"))() == "again"


def test_what_wraps_itself_is_not_followed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """I1: a name that leads to something else than the function is no way to find it."""

    def other() -> None: ...

    other.__wrapped__ = other  # type: ignore[attr-defined]
    original = count
    monkeypatch.setattr("tests.contract.process_calls.count", other)
    assert _process_call._by_name(original) is None


def test_a_failure_that_cannot_be_printed() -> None:
    """I3: whatever an exception's own code does, something is said of it."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise SystemExit

    assert "UnprintableError" in _process_child.in_words(UnprintableError())
