"""Contract B: failure."""

from __future__ import annotations

import _thread
import contextlib
import dis
import functools
import gc
import itertools
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator
from queue import Empty, SimpleQueue
from types import CodeType, FrameType
from typing import Any

import pytest

import prefetch_generator
from prefetch_generator import BackgroundGenerator, _worker

from .helpers import LONG


class OddError(BaseException):
    """No Exception, and no exception that Python knows."""


def failing(failure: BaseException, n: int = 2) -> Iterator[int]:
    yield from range(n)
    raise failure


# B1


@pytest.mark.parametrize("max_prefetch", [1, 2, 5, 0])
@pytest.mark.parametrize(
    "failure",
    [
        KeyError("x"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        OddError(),
        Empty(),
        IndexError(),
        TimeoutError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_any_exception_reaches_the_consumer_in_its_place(failure: BaseException, max_prefetch: int) -> None:
    """B1: whatever the source raises reaches the consumer after the items before it: the same object, once."""
    numbers = BackgroundGenerator(failing(failure), max_prefetch)
    assert [next(numbers), next(numbers)] == [0, 1]
    with pytest.raises(type(failure)) as raised:
        next(numbers)
    assert raised.value is failure
    assert list(numbers) == []
    assert next(numbers, "over") == "over"


def test_the_traceback_ends_in_the_sources_own_frame() -> None:
    """B1: the last frame of the traceback is where the source raised; the worker's own frames are not in it."""

    def deeper() -> int:
        raise KeyError("here")

    def source() -> Iterator[int]:
        yield deeper()

    with pytest.raises(KeyError) as raised:
        next(BackgroundGenerator(source()))
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert [frame.name for frame in frames[-2:]] == ["source", "deeper"]
    assert not [frame for frame in frames if frame.filename.endswith("_worker.py")]


def test_a_stop_iteration_that_a_step_raises_is_the_end() -> None:
    """B1: an iterator that ends does not fail; a generator out of which a StopIteration escapes does (PEP 479)."""

    def source() -> Iterator[int]:
        yield 1
        next(iter(()))

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 1
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(numbers)
    assert list(BackgroundGenerator(iter([1, 2]))) == [1, 2]


def test_a_failure_before_the_first_item_is_raised_too() -> None:
    """B1: also where there are no items before it."""
    with pytest.raises(ZeroDivisionError):
        list(BackgroundGenerator(1 // n for n in [0]))


# B2


@pytest.mark.parametrize("max_prefetch", [1, 4])
def test_with_several_consumers_exactly_one_gets_the_failure(max_prefetch: int) -> None:
    """B2: one of several consumers gets what the source raised, the others end."""
    for _ in range(20):
        numbers = BackgroundGenerator(failing(KeyError("once"), 10), max_prefetch)
        ends: SimpleQueue[str] = SimpleQueue()

        def consume(numbers: BackgroundGenerator[int] = numbers, ends: SimpleQueue[str] = ends) -> None:
            try:
                for _ in numbers:
                    pass
            except KeyError:
                ends.put("failed")
            else:
                ends.put("ended")

        threads = [threading.Thread(target=consume) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert sorted(ends.get(timeout=LONG) for _ in threads) == ["ended", "ended", "ended", "failed"]
        for thread in threads:
            thread.join(LONG)


# B3


def test_a_failure_is_freed_as_soon_as_the_caller_lets_it_go(no_collector: None) -> None:
    """B3: with the collector off, what the failing frame held is freed with the exception: no reference, no cycle."""

    class Held:
        pass

    references = []

    def source() -> Iterator[int]:
        held = Held()
        references.append(weakref.ref(held))
        yield 1
        raise KeyError(references)

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 1
    try:
        next(numbers)
    except KeyError as error:
        references.append(weakref.ref(error.__traceback__.tb_frame.f_code))  # type: ignore[arg-type,union-attr]
        assert references[0]() is not None
    assert references[0]() is None
    assert list(numbers) == []


def test_a_failure_nobody_asks_for_goes_with_its_generator(no_collector: None) -> None:
    """B3: a buffered failure is freed with the generator, without the collector."""

    class Held:
        pass

    references = []
    failed = threading.Event()

    def source() -> Iterator[int]:
        held = Held()
        references.append(weakref.ref(held))
        yield 1
        failed.set()
        raise KeyError

    numbers = BackgroundGenerator(source())
    worker = numbers._worker
    assert failed.wait(LONG)
    assert worker.ended.wait(LONG)
    assert references[0]() is not None
    del numbers, worker
    assert references[0]() is None


# B4: every point at which CPython runs signal handlers, one after the other


class Strike(KeyboardInterrupt):
    """Raised from outside."""


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


@pytest.mark.parametrize("timeout", [None, LONG], ids=["no timeout", "timeout"])
@pytest.mark.parametrize("max_prefetch", [1, 2, 0])
def test_a_strike_anywhere_in_next_loses_nothing(max_prefetch: int, timeout: float | None) -> None:
    """B4: next() struck at any point, and called again: no item is lost or repeated, order is kept, nothing hangs."""

    def scenario(strike: Callable[[int], StrikeAt]) -> None:
        def source() -> Generator[int, None, str]:
            yield from range(4)
            return "value"

        numbers = BackgroundGenerator(source(), max_prefetch)
        got: list[object] = []
        with strike(0):
            while len(got) < 5:
                try:
                    got.append(numbers.next(timeout))
                except Strike:
                    pass
                except StopIteration as end:
                    got.append(end.value)
        assert got == [0, 1, 2, 3, "value"]

    every_strike(scenario)


def test_a_strike_anywhere_in_next_does_not_lose_the_failure() -> None:
    """B4: the source's own failure is raised once, whatever strikes on the way to it."""

    def scenario(strike: Callable[[int], StrikeAt]) -> None:
        numbers = BackgroundGenerator(failing(KeyError(), 1))
        seen: list[str] = []
        with strike(0):
            while "StopIteration" not in seen:
                try:
                    next(numbers)
                except BaseException as error:
                    seen.append(type(error).__name__)
        assert sorted(seen) in (["KeyError", "StopIteration"], ["KeyError", "StopIteration", "Strike"])

    every_strike(scenario)


def test_a_strike_anywhere_in_the_constructor_leaves_no_worker_and_an_untouched_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B4: a struck constructor leaves no worker behind; the same source, given to another, still has every item."""
    launched: SimpleQueue[threading.Thread] = SimpleQueue()
    start = _worker._start

    def start_and_tell(worker: _worker.Worker, *others: Any) -> None:
        start(worker, *others)
        assert worker.thread is not None
        launched.put(worker.thread)

    real = _thread.start_new_thread
    launches: list[object] = []

    def launch(function: Callable[..., object], args: tuple[Any, ...]) -> None:
        launches.append(real(function, args))

    monkeypatch.setattr(_worker, "_start", start_and_tell)
    monkeypatch.setattr(_thread, "start_new_thread", launch)

    def scenario(strike: Callable[[int], StrikeAt]) -> None:
        source = (n for n in range(3))
        numbers, struck = None, None
        with strike(0):
            try:
                numbers = BackgroundGenerator(source)
            except Strike as error:
                struck = error  # with its traceback, which holds the half-made generator
        for _ in launches:
            launched.get(timeout=LONG).join(0 if numbers else LONG)
        launches.clear()
        if numbers is None:
            assert struck is not None
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("BackgroundGenerator")]
            numbers = BackgroundGenerator(source)
        assert list(numbers) == [0, 1, 2]

    every_strike(scenario)


def test_a_strike_anywhere_in_close_leaves_a_generator_that_can_be_closed() -> None:
    """B4: close() struck at any point, and called again, closes: the source once, and no thread is left."""

    def scenario(strike: Callable[[int], StrikeAt]) -> None:
        closed = []

        def source() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                closed.append(True)

        numbers = BackgroundGenerator(source(), 2)
        assert next(numbers) == 1
        with strike(0):
            while True:
                try:
                    assert numbers.close() is True
                    break
                except Strike:
                    pass
        assert closed == [True]
        assert list(numbers) == []

    every_strike(scenario)


def test_a_strike_in_close_does_not_lose_what_closing_raised() -> None:
    """B4 and C4: what the source raises while being closed is raised once, by the close() that is called again."""

    def scenario(strike: Callable[[int], StrikeAt]) -> None:
        def source() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                raise KeyError

        numbers = BackgroundGenerator(source())
        assert next(numbers) == 1
        raised = 0
        with strike(0):
            while not raised:
                try:
                    numbers.close()
                except Strike:
                    pass
                except KeyError:
                    raised += 1
        assert numbers.close() is True

    every_strike(scenario)


def test_a_strike_anywhere_in_a_finalizer_does_not_keep_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """B4 and C6: a generator that is dropped stops, even if a signal handler raises in the middle of its finalizer."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # where Python itself sends what a finalizer raises

    def scenario(strike: Callable[[int], StrikeAt]) -> None:
        numbers = BackgroundGenerator(iter(int, 1), 2)
        assert next(numbers) == 0
        worker = numbers._worker
        with strike(0):
            del numbers
        assert worker.ended.wait(LONG)

    every_strike(scenario)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
@pytest.mark.parametrize("max_prefetch", [1, 3, 64])
def test_a_storm_of_interrupts_loses_nothing(max_prefetch: int) -> None:
    """B4: real signals, as fast as they come, with a handler that raises: every item arrives once and in order."""
    strikes = 0

    def handler(_: int, frame: FrameType | None) -> None:
        nonlocal strikes
        if frame is not None and frame.f_code.co_filename in FILES:  # else it would strike this test's own retrying
            strikes += 1
            raise Strike

    got: list[int] = []
    numbers = BackgroundGenerator(itertools.count(), max_prefetch)
    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        while strikes < 30 or len(got) < 100:
            with contextlib.suppress(Strike):
                got.append(next(numbers))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert numbers.close()
    assert got == list(range(len(got)))
