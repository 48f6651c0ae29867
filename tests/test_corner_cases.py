"""Contract A to D: corners in which an earlier version was found to lose, hang or leak."""

from __future__ import annotations

import inspect
import sys
import textwrap
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, StopEvent, current_stop_event
from prefetch_generator._channel import Channel
from prefetch_generator._stop import own_event

from .helpers import LONG, in_thread, python


def test_iter_is_called_once() -> None:
    """A4: iter(iterable) is called once; the iterator needs no __iter__ of its own, as in a `for` loop."""

    class Steps:
        def __init__(self) -> None:
            self.left = iter(range(3))

        def __next__(self) -> int:
            return next(self.left)

    class Source:
        calls = 0

        def __iter__(self) -> Steps:
            self.calls += 1
            return Steps()

    source = Source()
    assert list(BackgroundGenerator(source)) == [0, 1, 2]  # type: ignore[arg-type]  # an iterable as `for` takes it
    assert source.calls == 1


class SecretiveError(Exception):
    """Refuses to be looked at."""

    @property
    def __traceback__(self) -> None:  # type: ignore[override]  # the point of it
        raise AssertionError("looked at")

    @property  # type: ignore[misc]  # the point of it
    def __class__(self) -> type:
        raise AssertionError("looked at")

    def with_traceback(self, _: object) -> SecretiveError:
        raise AssertionError("looked at")


def test_a_failure_is_not_asked_for_anything() -> None:
    """B1: an exception whose attributes raise is forwarded as any other, and the worker survives it."""
    failure = SecretiveError()

    def source() -> Iterator[int]:
        yield 1
        raise failure

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 1
    seen = None
    try:
        next(numbers)
    except BaseException as error:
        seen = error
    assert seen is failure
    assert list(numbers) == []


@pytest.fixture
def struck_finalizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every finalizer of a generator interrupted before its first line."""

    def strike(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BackgroundGenerator, "__del__", strike)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # where Python sends what a finalizer raises


@pytest.mark.parametrize("source", ["parked", "unbounded", "waits", "waits for another"])
def test_a_generator_is_stopped_though_its_finalizer_was_struck(source: str, struck_finalizer: None) -> None:
    """C6: wherever the worker is, it hears that its generator is gone, without a line of Python to tell it."""
    begun = threading.Event()

    def inner() -> Iterator[int]:
        begun.set()
        current_stop_event().wait()
        yield 0

    def outer() -> Iterator[int]:
        yield 0
        if source == "waits":
            yield from inner()
        if source == "waits for another":
            yield from BackgroundGenerator(inner())
        begun.set()
        while True:
            yield 0

    numbers = BackgroundGenerator(outer(), 0 if source == "unbounded" else 2)
    assert next(numbers) == 0
    assert begun.wait(LONG)
    worker, event = numbers._worker, numbers.stop_event
    del numbers
    assert worker.ended.wait(LONG)
    assert event.is_set()


def test_what_closing_raises_is_reported_though_the_finalizer_was_struck(
    struck_finalizer: None, hooked: SimpleQueue[threading.ExceptHookArgs]
) -> None:
    """C4: where nobody calls close(), it goes to threading.excepthook, also then."""

    def source() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            raise KeyError

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 0
    del numbers
    assert hooked.get(timeout=LONG).exc_type is KeyError


def test_a_stop_that_comes_between_the_end_and_its_cause_is_no_end_of_the_data() -> None:
    """C8: an inner source has failed; while its consumer, a worker, comes to that, the stop drops the failure."""
    shared = StopEvent()
    log: list[str] = []

    class Setting(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            shared.set()

    def inner() -> Iterator[int]:
        yield 0
        raise KeyError

    def outer() -> Iterator[int]:
        numbers = BackgroundGenerator(inner(), stop_event=shared)
        numbers._worker.thread = Setting()  # joined between "the source has ended" and "how?"
        try:
            yield from numbers
        except BaseException as error:
            log.append(type(error).__name__)
            raise
        log.append("end of data")

    numbers = BackgroundGenerator(outer(), stop_event=shared)
    assert list(numbers) in ([], [0])
    assert numbers.close()
    assert log == ["GeneratorExit"]


def test_a_clean_up_may_use_other_generators() -> None:
    """C8: GeneratorExit is raised once, as generator.close() does; a `finally` may then wait for other generators."""
    begun = threading.Event()
    cleaned: list[int] = []

    def endless() -> Iterator[int]:
        begun.set()
        current_stop_event().wait()
        yield 0

    def outer() -> Iterator[int]:
        try:
            yield from BackgroundGenerator(endless())
        finally:
            cleaned.extend(BackgroundGenerator(range(3), 1))

    numbers = BackgroundGenerator(outer())
    assert begun.wait(LONG)
    assert numbers.close()
    assert cleaned == [0, 1, 2]


@pytest.mark.parametrize("told_at", ["a yield", "a wait"])
def test_what_a_finally_raises_is_raised_by_close_wherever_it_was_told(told_at: str) -> None:
    """C4 with C8: a source that is told to stop at a wait is being closed, just as one at a `yield`."""
    begun = threading.Event()

    def endless() -> Iterator[int]:
        begun.set()
        current_stop_event().wait()
        yield 0

    def outer() -> Iterator[int]:
        try:
            if told_at == "a wait":
                yield from BackgroundGenerator(endless())
            while True:
                begun.set()
                yield 0
        finally:
            raise KeyError("from the finally")

    numbers = BackgroundGenerator(outer(), 1)
    assert begun.wait(LONG)
    with pytest.raises(KeyError, match="from the finally"):
        numbers.close()
    assert numbers.close()


def test_a_source_that_swallows_the_stop_at_a_wait_has_ended() -> None:
    """C8: as in generator.close(), a source that simply returns when it is told has been closed."""
    begun = threading.Event()

    def endless() -> Iterator[int]:
        begun.set()
        current_stop_event().wait()
        yield 0

    def outer() -> Iterator[int]:
        try:
            yield from BackgroundGenerator(endless())
        except GeneratorExit:
            return

    numbers = BackgroundGenerator(outer())
    assert begun.wait(LONG)
    assert numbers.close()
    assert list(numbers) == []


def test_a_generator_over_a_generator_is_closed_without_a_time_limit() -> None:
    """C6: a chain that is dropped warns of nothing: only whoever called close() has a timeout."""
    timeouts = []

    class Inner(BackgroundGenerator[int]):
        def close(self, timeout: float | None = 5.0) -> bool:
            timeouts.append(timeout)
            return super().close(timeout)

    with BackgroundGenerator(Inner(iter(int, 1))) as numbers:
        assert next(numbers) == 0
    assert timeouts == [None]


def test_the_warning_names_the_line_that_a_chain_is_at() -> None:
    """C2: where a source is itself a generator, what names the line is the source at the bottom."""
    begun, go = threading.Event(), threading.Event()

    def stuck() -> Iterator[int]:
        begun.set()
        assert go.wait(LONG)
        yield 0

    numbers = BackgroundGenerator(BackgroundGenerator(BackgroundGenerator(stuck())), name="outer")
    assert begun.wait(LONG)
    line = stuck.__code__.co_firstlineno + 2
    with pytest.warns(RuntimeWarning, match="'outer' did not stop within 0.1 seconds: its source") as caught:
        assert numbers.close(0.1) is False
    assert str(caught[0].message).endswith(f"at {__file__}, line {line}")
    go.set()
    assert numbers.close()


def test_close_may_be_called_from_no_python_code_at_all() -> None:
    """C1, C2: as the interpreter calls exit handlers; here the warning is an error, which it prints."""
    script = """
        import atexit, threading
        from prefetch_generator import BackgroundGenerator

        inside = threading.Event()
        numbers = BackgroundGenerator(iter(lambda: inside.set() or threading.Event().wait(), True), name="stuck")
        inside.wait()
        atexit.register(numbers.close, 0)
    """
    out, err = python("-c", textwrap.dedent(script))
    assert out == ""
    assert "RuntimeWarning: BackgroundGenerator 'stuck' did not stop within 0 seconds" in err
    assert "ValueError" not in err


def test_a_thread_that_is_no_worker_any_more_is_nowhere() -> None:
    """C2: the number of a worker that has just ended may already be that of another thread."""
    numbers = BackgroundGenerator(range(3))
    assert numbers.close()
    numbers._channel.worker_ident = threading.get_ident()
    assert numbers._worker.where() == "in code that is not Python"
    numbers._channel.worker_ident = 0


def test_a_long_chain_of_stop_events_is_no_recursion() -> None:
    """D2: stop events may be handed on from generator to generator as often as one likes."""
    first = StopEvent()
    last = first
    channels = [Channel[int](1, object) for _ in range(sys.getrecursionlimit() + 100)]
    for channel in channels:  # as so many generators would make them
        last = own_event(channel, last)
    assert not last.is_set()
    first.set()
    assert last.is_set()
    assert last._flag


def test_an_item_that_came_too_late_is_dropped_by_whoever_finds_it() -> None:
    """C5: without the GIL an item may arrive after close() has emptied the buffer; next() does not deliver it."""
    numbers = BackgroundGenerator(range(3))
    assert numbers.close()
    numbers._channel.items.put(7)
    assert next(numbers, None) is None
    assert numbers.stats.buffered == 0


def test_a_thread_does_not_wait_for_its_own_end() -> None:
    """A10: a finalizer that runs on the worker after its last line may see the end; it cannot wait for its thread."""
    numbers = BackgroundGenerator(range(0))
    assert numbers.close()
    numbers._worker.thread = threading.current_thread()
    numbers._worker.join()


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Thread.join was written anew")
def test_two_that_see_the_end_at_once_both_see_it() -> None:
    """A8: two threads in `Thread.join` may find each other's lock, and each get an error that is none of the data."""
    numbers = BackgroundGenerator(range(0))
    assert numbers._worker.ended.wait(LONG)
    code = threading.Thread._wait_for_tstate_lock.__code__  # type: ignore[attr-defined]
    lines, first = inspect.getsourcelines(code)
    released, acquired, failed = threading.Event(), threading.Event(), threading.Event()

    def see_the_end(before: str, reached: threading.Event, go_on: threading.Event) -> list[int]:
        number = first + [line.strip() for line in lines].index(before)

        def trace(frame: FrameType, event: str, _: object) -> Any:
            if frame.f_code is not code:
                return None
            if event == "line" and frame.f_lineno == number and not reached.is_set():
                reached.set()
                assert go_on.wait(LONG)
            return trace

        before_that = sys.gettrace()
        sys.settrace(trace)
        try:
            return list(numbers)
        finally:
            sys.settrace(before_that)

    one = in_thread(lambda: see_the_end("self._stop()", released, acquired))
    assert released.wait(LONG)
    other = in_thread(lambda: see_the_end("lock.release()", acquired, failed))
    assert one.get(timeout=LONG) == []
    failed.set()
    assert other.get(timeout=LONG) == []


@pytest.mark.parametrize(("where", "heard"), [({}, True), (vars(threading), False)], ids=["elsewhere", "in threading"])
def test_what_a_signal_handler_raises_where_the_end_is_seen_is_heard(
    where: dict[str, Any], heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B4: what it raises is its own, of whatever type; what `threading` raises there is no end of the data.

    In a frozen application as well, whose code has no files, or calls them otherwise.
    """
    numbers = BackgroundGenerator(range(0))
    assert numbers._worker.ended.wait(LONG)
    thread = threading.Thread()
    names: dict[str, Any] = {}
    exec(compile("def act(): raise RuntimeError('by the handler')", "frozen", "exec"), where, names)
    exec(compile("def join(timeout): act()", "frozen", "exec"), vars(threading), names)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "act", names["act"], raising=False)
        patch.setattr(thread, "join", names["join"])
        patch.setattr(numbers._worker, "thread", thread)
        with pytest.raises(RuntimeError if heard else StopIteration):
            next(numbers)
    assert next(numbers, "over") == "over"


EXIT = """
    import sys, threading, time
    from prefetch_generator import BackgroundGenerator, current_stop_event

    def failing():
        try:
            while True:
                yield 0
        finally:
            raise KeyError("while closing")

    def polling():
        yield 0
        stop = current_stop_event()
        while not stop.is_set():
            time.sleep(0)

    def outer():
        yield from BackgroundGenerator(polling(), 1)
        print("mistook the stop for the end of the data")
"""


def test_at_exit_what_closing_raised_is_reported_if_nobody_has_asked() -> None:
    """C4 and C7: stopped by its event, still referred to, and never closed: it is reported at exit."""
    script = """
        numbers = sys.kept_for_ever = BackgroundGenerator(failing())
        next(numbers)
        numbers.stop_event.set()
        numbers._worker.ended.wait()
    """
    _, err = python("-c", textwrap.dedent(EXIT) + textwrap.dedent(script))
    assert "KeyError: 'while closing'" in err


def test_at_exit_a_source_that_polls_is_no_end_of_the_data() -> None:
    """C8 and C7: all workers hear of the exit in one step, so an inner one cannot end before the outer one hears."""
    script = """
        kept = [BackgroundGenerator(outer()) for _ in range(20)]
        for numbers in kept:
            next(numbers)
    """
    assert python("-c", textwrap.dedent(EXIT) + textwrap.dedent(script)) == ("", "")
