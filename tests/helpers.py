"""What several test files need: threads that answer, actions at a certain moment, interpreters of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, TypeVar

import pytest

import prefetch_generator

T = TypeVar("T")

LONG = 30.0  # seconds; an upper bound that only a hang reaches
PACKAGE = str(Path(prefetch_generator.__file__).parent)

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
EVERY = 1 if GIL else 30  # how often to collect, where that is to be anywhere: without the GIL it looks at everything

# What `-X dev` does, but for the debug mode of asyncio, which logs a step that takes 0.1 s.
STRICT = ("-X", "faulthandler", "-W", "error")

posix = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no fork(), no named pipes, and no signals to a process or a thread"
)


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test where one of these packages is missing."""
    # Not `importorskip`: what they import, and warn of, is to stay in a process of its own.
    missing = [name for name in names if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)}: not installed")


def python(
    *arguments: str,
    returncode: int = 0,
    strict: bool = True,
    stdin: int = subprocess.DEVNULL,
    folder: Path | None = None,
    **environment: str,
) -> tuple[str, str]:
    """Run an interpreter of its own, in which a warning is an error; return what it wrote to stdout and stderr."""
    done = subprocess.run(
        [sys.executable, *(STRICT if strict else ()), *arguments],
        stdin=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
        cwd=folder,
        env=os.environ | ({"PYTHONMALLOC": "debug"} if strict else {}) | environment,
    )
    assert done.returncode == returncode, done.stderr
    return done.stdout, done.stderr


def side_by_side(function: Callable[[str], T], arguments: Mapping[str, str]) -> dict[str, T]:
    """Call `function` with each of the arguments, all at once, and return what it returned, by the arguments' names."""
    with ThreadPoolExecutor(len(arguments)) as executor:
        return dict(zip(arguments, executor.map(function, arguments.values()), strict=True))


def in_thread(function: Callable[[], T]) -> SimpleQueue[T]:
    """Call `function` on a thread of its own; what it returns comes out of the queue."""
    result: SimpleQueue[T] = SimpleQueue()
    threading.Thread(target=lambda: result.put(function())).start()
    return result


def ended(closed: SimpleQueue[threading.Thread]) -> bool:
    """Wait until a source has said on which thread it was closed, and that thread is gone."""
    thread = closed.get(timeout=LONG)
    thread.join(LONG)
    return not thread.is_alive()


@contextmanager
def _at_a_wait(when: str, action: Callable[[], object]) -> Iterator[None]:
    def profile(frame: FrameType, event: str, called: Any) -> None:
        if event == when and (frame.f_code.co_name, called.__name__) == ("sleep", "acquire"):
            action()

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def when_asleep(action: Callable[[], object]) -> AbstractContextManager[None]:
    """Do `action` as soon as this thread goes to sleep on a bell: from there only a wake-up helps it."""
    return _at_a_wait("c_call", action)


def when_time_is_up(action: Callable[[], object]) -> AbstractContextManager[None]:
    """Do `action` when a wait of this thread on a bell has run out."""
    return _at_a_wait("c_return", action)


@contextmanager
def interrupted(action: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Do `action` in a signal handler on this thread, after the function that this gives has been called."""
    asleep, handled = threading.Event(), threading.Event()

    def handler(*_: object) -> None:
        if not handled.is_set():
            handled.set()
            action()

    def interrupt() -> None:
        asleep.wait(LONG)
        # A signal that comes between Python's last look and the system call does not end that call, so insist.
        while not handled.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)
            handled.wait(0.02)

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield asleep.set
    finally:
        handled.set()
        asleep.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
