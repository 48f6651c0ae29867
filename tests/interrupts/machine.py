"""One machine that acts between two lines or two instructions of the library, or where CPython runs signal handlers.

A trace function takes the place of whatever may come there: the garbage collector, a signal handler, an exception.
"""

from __future__ import annotations

import dis
import functools
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import CodeType, FrameType
from typing import Any, Literal

from prefetch_generator import BackgroundGenerator
from prefetch_generator._bell import ThreadBell
from tests.helpers import EVERY, GIL, LONG, PACKAGE

# "poll" is every point at which CPython may run a signal handler: the entry of a function, and the instruction after a
# call or a backward jump (3.10: after any jump that a condition caused).
Event = Literal["line", "opcode", "poll"]

POLLING = ("CALL", "RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE", "POP_JUMP_BACKWARD")
JUMPS_THAT_POLL = ("POP_JUMP", "JUMP_IF") if sys.version_info < (3, 11) else ()

TRIES = 3 if GIL else 20  # of the same event, before it counts as one that does not come any more

NAME = "BackgroundGenerator-traced"  # the threads of generators with the name "traced"

if sys.version_info[:2] == (3, 12):
    sys._getframe().f_trace_opcodes = True  # this Python looks only in `settrace` whether there ever was such a frame


class Strike(KeyboardInterrupt):
    """Raised from outside."""


def strike() -> None:
    """Raise it."""
    raise Strike


class Every:
    """While active: call `action` with the frame at every `event` of this thread in the library.

    `asleep` is called whenever the thread is about to go to sleep. With `codes`, only these functions are looked at.
    """

    def __init__(
        self,
        event: Event,
        action: Callable[[FrameType], object],
        asleep: Callable[[], object] = lambda: None,
        codes: frozenset[CodeType] | None = None,
    ) -> None:
        self.event = event
        self.reported = "line" if event == "line" else "opcode"
        self.action, self.asleep, self.codes = action, asleep, codes

    def __enter__(self) -> Every:  # noqa: PYI034 - `Self` is younger than Python 3.10
        self.before = sys.gettrace()  # coverage's, perhaps
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)

    @contextmanager
    def on_new_threads(self, but: str = "") -> Iterator[None]:
        """Act on the threads that start in the block, in place of this one. They have to run before its end.

        Those with the name `but` are left alone: with a hundred threads that are traced, 3.12.1 crashes.
        """

        def begin(frame: FrameType, event: str, arg: object) -> Any:
            wanted = threading.current_thread().name != but
            sys.settrace(self.trace if wanted else None)
            return self.trace(frame, event, arg) if wanted else None

        before = threading.gettrace()
        threading.settrace(begin)
        try:
            yield
        finally:
            threading.settrace(before)

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        """Be a trace function."""
        code = frame.f_code
        if not (code.co_filename.startswith(PACKAGE) if self.codes is None else code in self.codes):
            return None
        if self.reported == "opcode" and event != "opcode":
            frame.f_trace_opcodes = True  # not only at a call: 3.13 looks at it later, the first time
        if event == "call":
            if code is ThreadBell.sleep.__code__:
                self.asleep()
            if self.event == "poll":
                self.act(frame)
                return self.polls(code)
        elif event == self.reported:
            self.act(frame)
        return self.trace

    def polls(self, code: CodeType) -> Callable[[FrameType, str, object], Any]:
        """Return a trace function that acts where this frame polls for signals."""
        names = instructions(code)
        before = -2

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal before
            if event == "line":
                frame.f_trace_opcodes = True
            if event == "opcode":
                name = names.get(before, "")
                jumped = frame.f_lasti != before + 2
                before = frame.f_lasti
                if name.startswith(POLLING) or (name.startswith(JUMPS_THAT_POLL or "never") and jumped):
                    self.act(frame)
            return trace

        return trace

    def act(self, frame: FrameType) -> None:
        """Come to an event."""
        self.action(frame)


class At(Every):
    """While active: call `action` at the n-th `event` alone."""

    def __init__(
        self, event: Event, n: int, action: Callable[[], object] = strike, asleep: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__(event, lambda _: action(), asleep)
        self.n = n
        self.pid = os.getpid()
        self.count = 0
        self.place: tuple[CodeType, int] | None = None  # where the action was done

    def __enter__(self) -> At:  # noqa: PYI034 - `Self` is younger than Python 3.10
        super().__enter__()
        return self

    def act(self, frame: FrameType) -> None:
        """Count."""
        self.count += 1
        if self.count == self.n and os.getpid() == self.pid:  # a fork brings the trace function along
            self.place = frame.f_code, frame.f_lasti
            self.action(frame)

    def struck(self) -> bool:
        """Return whether it came to the n-th."""
        return self.place is not None


@functools.cache
def instructions(code: CodeType) -> dict[int, str]:
    """Return the names of the instructions, by their places."""
    return {at.offset: at.opname for at in dis.get_instructions(code)}


def on_a_thread_of_its_own(scenario: Callable[[int], At], n: int) -> At:
    """Run the scenario; raise what it raises."""
    # An exception that is raised between two instructions of an `except` block leaves one entry too many on CPython's
    # stack of exceptions that are being handled, and with it all that they hold. It goes with the thread.
    result: SimpleQueue[At | BaseException] = SimpleQueue()

    def run() -> None:
        try:
            result.put(scenario(n))
        except BaseException as error:
            result.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    at = result.get()
    if isinstance(at, BaseException):
        raise at
    return at


def one_after_the_other(scenario: Callable[[int], At], least: int) -> None:
    """Run the scenario with n = 1, 2, ... until its n-th event does not come any more."""
    gc.collect()
    gc.freeze()  # what is here now need not be looked at again, two thousand times
    gc.disable()
    try:
        # Threads make the number of events differ from run to run, and CPython reports fewer of them after a run that
        # was struck: so one miss is not the end.
        n = 1
        while any(on_a_thread_of_its_own(scenario, n).struck() for _ in range(TRIES)):
            n += 1
            if n % EVERY == 0:
                gc.collect()  # here, and not in the next scenario, which would strike a finalizer of this one
    finally:
        gc.enable()
        gc.unfreeze()
    assert n > least  # else next to nothing was tried


def missing_under(at: At, numbers: BackgroundGenerator[Any], expected: list[object]) -> list[object]:
    """Take what is expected, the return value last, and call again after a strike; return what did not come.

    Nothing is repeated, and order is kept.
    """
    got: list[object] = []
    with at:
        while len(got) < len(expected) and None not in got:
            try:
                got.append(numbers.next(LONG))
            except Strike:
                pass
            except StopIteration as end:
                got.append(end.value)
    missing = [item for item in expected if item not in got]
    assert [item for item in got if item is not None] == [item for item in expected if item not in missing]
    return missing


def join_workers() -> None:
    """Wait for the threads of all generators with the name "traced"."""
    for thread in threading.enumerate():
        while thread.name == NAME:
            try:
                thread.join(LONG)
                break
            except RuntimeError:  # a struck constructor did not wait until it is started
                time.sleep(0.001)
        assert thread.name != NAME or not thread.is_alive()
