"""The machine that strikes: at one line, at one instruction, or at one point where CPython runs signal handlers."""

from __future__ import annotations

import dis
import functools
import gc
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import CodeType, FrameType
from typing import Any

import pytest

import prefetch_generator
from prefetch_generator._bell import Bell
from tests.helpers import EVERY, LONG, PACKAGE

NAME = "BackgroundGenerator-traced"

every_event = pytest.mark.parametrize("event", ["line", "opcode"])


class Strike(KeyboardInterrupt):
    """Raised from outside."""


class At:
    """While active: do `action` at the n-th `event`, "line" or "opcode", of this thread in the library.

    `asleep` is called whenever the thread is about to go to sleep.
    """

    def __init__(
        self, event: str, n: int, action: Callable[[], object], asleep: Callable[[], object] = lambda: None
    ) -> None:
        self.event, self.n, self.action, self.asleep = event, n, action, asleep
        self.count = 0
        self.place: tuple[CodeType, int] | None = None  # where the action was done

    def __enter__(self) -> At:  # noqa: PYI034 - `Self` is younger than Python 3.10
        self.before = sys.gettrace()
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            return None
        if event == "call":
            frame.f_trace_opcodes = self.event == "opcode"
            if code is Bell.sleep.__code__:
                self.asleep()
        elif event == self.event:
            self.count += 1
            if self.count == self.n:
                self.place = code, frame.f_lasti
                self.action()
        return self.trace

    def struck(self) -> bool:
        return self.place is not None


def strike() -> None:
    raise Strike


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
        while any(on_a_thread_of_its_own(scenario, n).struck() for _ in range(3)):
            n += 1
            if n % EVERY == 0:
                gc.collect()  # here, and not in the next scenario, which would strike a finalizer of this one
    finally:
        gc.enable()
        gc.unfreeze()
    assert n > least  # else next to nothing was tried


def join_workers() -> None:
    for thread in threading.enumerate():
        while thread.name == NAME:
            try:
                thread.join(LONG)
                break
            except RuntimeError:  # a struck constructor did not wait until it is started
                time.sleep(0.001)
        assert thread.name != NAME or not thread.is_alive()


FILES = {module.__file__ for name, module in sys.modules.items() if name.startswith(f"{prefetch_generator.__name__}.")}


POLLING = ("CALL", "RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE", "POP_JUMP_BACKWARD")


JUMPS_THAT_POLL = ("POP_JUMP", "JUMP_IF") if sys.version_info < (3, 11) else ()


class StrikeAt:
    """While active, raise Strike at the n-th point of this thread, in this library, where a signal handler can run.

    Those points are: the entry of a function, and the instruction after a call or a backward jump (3.10: after any
    jump that a condition caused).
    """

    def __init__(self, n: int) -> None:
        self.left = n

    def __enter__(self) -> StrikeAt:  # noqa: PYI034 - `Self` is younger than Python 3.10
        self.before = sys.gettrace()  # coverage's, perhaps
        sys.settrace(self.on_call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)

    def on_call(self, frame: FrameType, event: str, _: object) -> Callable[[FrameType, str, object], Any] | None:
        if frame.f_code.co_filename not in FILES or event != "call":
            return None
        self.point()
        frame.f_trace_opcodes = True
        names = instructions(frame.f_code)
        before = -2

        def on_opcode(frame: FrameType, event: str, _: object) -> Any:
            nonlocal before
            if event == "opcode":
                name = names.get(before, "")
                jumped = frame.f_lasti != before + 2
                before = frame.f_lasti
                if name.startswith(POLLING) or (name.startswith(JUMPS_THAT_POLL or "never") and jumped):
                    self.point()
            return on_opcode

        return on_opcode

    def point(self) -> None:
        self.left -= 1
        if self.left == 0:
            sys.settrace(None)
            raise Strike


@functools.cache
def instructions(code: CodeType) -> dict[int, str]:
    return {at.offset: at.opname for at in dis.get_instructions(code)}


def every_strike(scenario: Callable[[Callable[[int], StrikeAt]], None]) -> None:
    """Run `scenario` with a strike at the first point, the second, ... until it gets through without one."""
    gc.collect()
    gc.freeze()  # makes the many collections below cheap
    n = missed = 0
    while missed < 3:  # threads make the number of points differ from run to run
        n += 1
        gc.collect()  # so that the generator of the scenario before is not finalized, and struck, in this one
        strikes: list[StrikeAt] = []

        def strike_at(offset: int = 0, n: int = n, strikes: list[StrikeAt] = strikes) -> StrikeAt:
            strikes.append(StrikeAt(n + offset))
            return strikes[-1]

        scenario(strike_at)
        missed = missed + 1 if strikes[-1].left > 0 else 0
    gc.unfreeze()
    assert n > 10  # else it has struck nothing
