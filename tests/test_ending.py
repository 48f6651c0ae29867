"""Contract C: ending."""

from __future__ import annotations

import gc
import inspect
import itertools
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator, NotReadyError, StopEvent, current_stop_event

from .helpers import EVERY, GIL, LONG, PACKAGE, ended, in_thread, interrupted, posix, when_asleep


class Item:
    """Something that can be weakly referenced."""


class Stuck:
    """A source that gives 0, and then 1 as soon as `go` is set; it says when it is in that step, and who closed it."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.go = threading.Event()
        self.closed: SimpleQueue[threading.Thread] = SimpleQueue()
        self.line = 0  # of this file: where it is stuck

    def stick(self) -> None:
        self.line = sys._getframe(1).f_lineno
        self.inside.set()
        self.go.wait()

    def items(self) -> Iterator[int]:
        try:
            yield 0
            self.stick()
            yield 1
        finally:
            self.closed.put(threading.current_thread())


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    source = Stuck()
    yield source
    source.go.set()


class Reader:
    """An iterator that is no generator, with a close(), as a file or a cursor has."""

    def __init__(self, n: int) -> None:
        self.left = n
        self.closed = 0

    def __iter__(self) -> Reader:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return self.left

    def close(self) -> None:
        self.closed += 1


def counting(closed: SimpleQueue[threading.Thread]) -> Iterator[int]:
    """Count, until closed."""
    try:
        yield from itertools.count()
    finally:
        closed.put(threading.current_thread())


def failing_close(failure: BaseException, closed: SimpleQueue[threading.Thread]) -> Iterator[int]:
    """Count, and fail when closed."""
    try:
        yield from itertools.count()
    finally:
        closed.put(threading.current_thread())
        raise failure


def tracer(action: Callable[[], object]) -> Callable[[FrameType, str, object], Any]:
    """Return a trace function that does `action` before every line of the library."""

    def trace(frame: FrameType, event: str, _: object) -> object:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            action()
        return trace

    return trace


@contextmanager
def at_every_line(action: Callable[[], object]) -> Iterator[None]:
    """Do `action` before every line of the library that this thread executes."""
    before = sys.gettrace()
    sys.settrace(tracer(action))
    try:
        yield
    finally:
        sys.settrace(before)


def threads_of(name: str) -> list[threading.Thread]:
    """Return the workers of the generators of that name."""
    return [thread for thread in threading.enumerate() if thread.name == f"BackgroundGenerator-{name}"]


# C1


def test_close_may_be_called_from_any_thread() -> None:
    """C1: close() may be called from any thread."""
    numbers = BackgroundGenerator(itertools.count())
    assert next(numbers) == 0
    assert in_thread(numbers.close).get(timeout=LONG) is True
    assert next(numbers, "over") == "over"


def test_close_may_be_called_any_number_of_times() -> None:
    """C1: any number of times, by several threads at once too; the source is closed once."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    numbers = BackgroundGenerator(counting(closed))
    assert next(numbers) == 0
    calls = [in_thread(numbers.close) for _ in range(4)]
    assert [call.get(timeout=LONG) for call in calls] == [True] * 4
    assert [numbers.close(), numbers.close(0), numbers.close(None)] == [True] * 3
    assert ended(closed)
    assert closed.empty()


@pytest.mark.parametrize("max_prefetch", [1, 2, 0])
def test_close_may_be_called_right_after_construction(max_prefetch: int) -> None:
    """C1: at any moment: before the worker has done anything, or while it does its first steps."""
    for _ in range(20):
        source = Reader(sys.maxsize)
        assert BackgroundGenerator(source, max_prefetch).close() is True
        assert source.closed == 1


def test_close_may_be_called_while_the_worker_waits_for_room() -> None:
    """C1: at any moment: while the buffer is full and the worker asleep."""
    for _ in range(20):
        given = threading.Event()

        def source(given: threading.Event = given) -> Iterator[int]:
            given.set()
            yield 0

        numbers = BackgroundGenerator(source(), 1)
        assert given.wait(LONG)
        assert numbers.close() is True


def test_close_may_be_called_after_the_end_and_after_a_failure() -> None:
    """C1: at any moment: when the source has ended, or failed, by itself."""
    numbers = BackgroundGenerator([1, 2])
    assert list(numbers) == [1, 2]
    assert numbers.close() is True
    inverses = BackgroundGenerator(1 / n for n in [0])
    with pytest.raises(ZeroDivisionError):
        next(inverses)
    assert inverses.close() is True
    assert [next(numbers, "over"), next(inverses, "over")] == ["over", "over"]


@posix
def test_close_may_be_called_by_a_signal_handler_inside_next() -> None:
    """C1: at any moment: in the middle of the caller's own next()."""
    closed: list[bool] = []

    def source() -> Iterator[bool]:
        yield current_stop_event().wait(LONG)

    stops = BackgroundGenerator(source())
    with interrupted(lambda: closed.append(stops.close())) as asleep, when_asleep(asleep):
        assert next(stops, "over") == "over"
    assert closed == [True]


def test_close_from_the_source_itself_cannot_wait_and_returns_false() -> None:
    """C1: from the source itself too, in a step and while it is being closed: it cannot wait, and returns False."""
    answers: list[bool] = []

    def source() -> Iterator[int]:
        try:
            yield 0
            answers.append(numbers.close())
            yield 1
        finally:
            answers.append(numbers.close(None))

    numbers = BackgroundGenerator(source(), 1)
    assert list(numbers) == [0]
    assert numbers.close() is True
    assert answers == [False, False]


def test_close_sets_the_stop_event() -> None:
    """C1: it sets the stop event, which a source may be waiting for."""

    def source() -> Iterator[int]:
        yield 0
        heard.append(current_stop_event().wait(LONG))

    heard: list[bool] = []
    numbers = BackgroundGenerator(source())
    assert next(numbers) == 0
    assert not numbers.stop_event.is_set()
    assert numbers.close() is True
    assert numbers.stop_event.is_set()
    assert heard == [True]


def test_close_drops_what_is_buffered(stuck: Stuck) -> None:
    """C1: it drops what is buffered, at once, and what the unfinished step still gives."""
    items = [Item() for _ in range(4)]
    alive = weakref.WeakSet(items)

    def source() -> Iterator[Item]:
        for _ in range(3):
            yield items.pop()
        for _ in stuck.items():
            pass
        yield items.pop()

    numbers = BackgroundGenerator(source(), 8)
    assert stuck.inside.wait(LONG)
    assert (numbers.stats.buffered, len(alive)) == (3, 4)
    with pytest.warns(RuntimeWarning, match="did not stop"):
        assert numbers.close(0) is False
    assert (numbers.stats.buffered, len(alive)) == (0, 1)
    stuck.go.set()
    assert ended(stuck.closed)
    assert (numbers.stats.buffered, len(alive)) == (0, 0)


def test_close_ends_every_waiting_next_at_once(stuck: Stuck) -> None:
    """C1: it ends every waiting next() at once with StopIteration, though the source is still in its step."""
    asleep: SimpleQueue[None] = SimpleQueue()
    numbers = BackgroundGenerator(stuck.items())
    assert next(numbers) == 0

    def consume() -> object:
        with when_asleep(lambda: asleep.put(None)):
            return next(numbers, "over")

    consumers = [in_thread(consume) for _ in range(3)]
    for _ in consumers:
        asleep.get(timeout=LONG)
    closing = in_thread(lambda: numbers.close(None))
    assert [consumer.get(timeout=LONG) for consumer in consumers] == ["over"] * 3
    assert closing.empty()
    stuck.go.set()
    assert closing.get(timeout=LONG) is True


def test_close_lets_the_worker_finish_the_step_it_is_in(stuck: Stuck) -> None:
    """C1: it lets the worker finish its step; the source hears of the stop at its next yield."""
    log: list[object] = []

    def source() -> Iterator[int]:
        for number in stuck.items():
            log.append(number)
            try:
                yield number
            except GeneratorExit:
                log.append("closed")
                raise

    numbers = BackgroundGenerator(source(), 8)
    assert stuck.inside.wait(LONG)
    closing = in_thread(lambda: numbers.close(None))
    assert numbers.stop_event.wait(LONG)
    assert log == [0]
    stuck.go.set()
    assert closing.get(timeout=LONG) is True
    assert log == [0, 1, "closed"]


def test_close_closes_the_source_on_the_workers_own_thread() -> None:
    """C1: the thread that ran the source closes it, and is gone when close() returns."""
    threads: list[threading.Thread] = []

    def source() -> Iterator[int]:
        threads.append(threading.current_thread())
        try:
            yield from itertools.count()
        finally:
            threads.append(threading.current_thread())

    numbers = BackgroundGenerator(source(), 1)
    assert next(numbers) == 0
    assert numbers.close() is True
    runner, closer = threads
    assert runner is closer is not threading.current_thread()
    assert not closer.is_alive()


def test_close_waits_until_the_worker_has_ended() -> None:
    """C1: True means that the worker is gone, however slow it is on its last lines."""
    before = threading.gettrace()
    threading.settrace(tracer(lambda: time.sleep(0.001)))
    try:
        numbers = BackgroundGenerator(itertools.count(), 1, name="slow")
        [thread] = threads_of("slow")
        assert next(numbers) == 0  # by then the thread has the trace function
    finally:
        threading.settrace(before)
    assert numbers.close() is True
    assert not thread.is_alive()


def test_close_waits_until_the_source_is_closed() -> None:
    """C1: it waits for that."""
    asleep = threading.Event()
    log: list[bool] = []

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            log.append(asleep.wait(LONG))

    numbers = BackgroundGenerator(source(), 1)
    assert next(numbers) == 0
    try:
        with when_asleep(asleep.set):
            assert numbers.close() is True
        assert log == [True]
    finally:
        asleep.set()


# C2


def test_close_waits_at_most_timeout_seconds(stuck: Stuck) -> None:
    """C2: it waits at most `timeout` seconds; a worker that is still in the source then stops by itself."""
    numbers = BackgroundGenerator(stuck.items())
    assert stuck.inside.wait(LONG)
    started = time.monotonic()
    with pytest.warns(RuntimeWarning, match=r"did not stop within 0\.2 seconds"):
        assert numbers.close(0.2) is False
    assert 0.2 <= time.monotonic() - started < 4
    with pytest.warns(RuntimeWarning, match="did not stop within 0 seconds"):
        assert numbers.close(0) is False
    assert stuck.closed.empty()
    stuck.go.set()
    assert ended(stuck.closed)
    assert numbers.close(0) is True


def test_close_waits_five_seconds_unless_told_otherwise() -> None:
    """C2: the default is 5 seconds."""
    assert inspect.signature(BackgroundGenerator.close).parameters["timeout"].default == 5.0


def test_close_with_none_waits_as_long_as_it_takes(stuck: Stuck) -> None:
    """C2: with None it waits until the source comes back."""
    asleep = threading.Event()
    numbers = BackgroundGenerator(stuck.items())
    assert stuck.inside.wait(LONG)

    def close() -> bool:
        with when_asleep(asleep.set):
            return numbers.close(None)

    closing = in_thread(close)
    assert asleep.wait(LONG)
    stuck.go.set()
    assert closing.get(timeout=LONG) is True


def test_the_warning_names_the_generator_and_where_the_source_is(stuck: Stuck) -> None:
    """C2: the warning names the generator and the source's own file and line, and points to the call of close()."""
    numbers = BackgroundGenerator(stuck.items(), name="ticks")
    assert stuck.inside.wait(LONG)
    with pytest.warns(RuntimeWarning) as caught:
        assert numbers.close(0) is False
    [warning] = caught
    assert "BackgroundGenerator 'ticks'" in str(warning.message)
    assert f"{__file__}, line {stuck.line}" in str(warning.message)
    assert warning.filename == __file__


def test_the_warning_of_a_with_block_points_to_it(stuck: Stuck) -> None:
    """C2: whichever way it was closed, the warning points to the user's line."""
    numbers = BackgroundGenerator(stuck.items())
    assert stuck.inside.wait(LONG)
    numbers._worker.ended = Impatient()

    def leave() -> None:
        with numbers:
            pass

    with pytest.warns(RuntimeWarning) as caught:
        leave()
    assert (caught[0].filename, caught[0].lineno) == (__file__, leave.__code__.co_firstlineno + 1)
    assert "within 5.0 seconds" in str(caught[0].message)


class Impatient(StopEvent):
    """Whose time is always up."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(min(timeout or 0, 0))


def test_a_with_block_calls_the_close_of_a_subclass() -> None:
    """Public names: `__exit__` is close(), and so what a subclass makes of it."""
    closed = []

    class Logged(BackgroundGenerator[int]):
        def close(self, timeout: float | None = 5.0) -> bool:
            closed.append(timeout)
            return super().close(timeout)

    with Logged(range(3)):
        pass
    assert closed == [5.0]


def test_the_warning_names_the_line_of_a_source_that_does_not_close(stuck: Stuck) -> None:
    """C2: also when the source is stuck while it is being closed."""

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            stuck.stick()

    numbers = BackgroundGenerator(source(), 1)
    assert next(numbers) == 0
    numbers.stop_event.set()
    assert stuck.inside.wait(LONG)
    with pytest.warns(RuntimeWarning) as caught:
        assert numbers.close(0) is False
    assert f"{__file__}, line {stuck.line}" in str(caught[0].message)
    stuck.go.set()
    assert numbers.close() is True


def test_the_warning_names_the_generator_of_a_source_without_lines() -> None:
    """C2: a source that is not written in Python has no line; the generator is named all the same."""
    answers: SimpleQueue[int] = SimpleQueue()
    numbers = BackgroundGenerator(iter(answers.get, 0), name="answers")
    try:
        with pytest.warns(RuntimeWarning, match="'answers' did not stop"):
            assert numbers.close(0) is False
    finally:
        answers.put(1)
    assert numbers.close() is True


# C3


def test_an_iterators_close_is_called_when_the_generator_ends_early() -> None:
    """C3: if the iterator has a close(), it is called once, whichever way the generator ends early."""
    shared = StopEvent()
    readers = [Reader(sys.maxsize) for _ in range(4)]
    closed, left, dropped, stopped = (BackgroundGenerator(reader, stop_event=shared) for reader in readers)
    closed.close()
    with left:
        next(left)
    for _ in dropped:
        break
    del dropped
    shared.set()
    assert stopped.close() is True
    for thread in threads_of("Reader"):
        thread.join(LONG)
    assert [reader.closed for reader in readers] == [1, 1, 1, 1]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_close_of_the_source_is_never_called_after_it_has_ended(n: int) -> None:
    """C3: never after the source has ended by itself, even if nobody has seen the end yet."""
    seen, unseen = Reader(n), Reader(n)
    numbers = BackgroundGenerator(seen)
    assert len(list(numbers)) == n
    assert numbers.close() is True
    others = BackgroundGenerator(unseen, 0)
    for thread in threads_of("Reader"):
        thread.join(LONG)
    assert others.close() is True
    assert [seen.closed, unseen.closed] == [0, 0]


@pytest.mark.parametrize("end", [StopIteration(), KeyError("late")], ids=repr)
def test_close_of_the_source_is_not_called_if_its_last_step_ends_it(end: Exception, stuck: Stuck) -> None:
    """C3: never after the source has ended by itself: a step that was unfinished at the stop may be its last."""

    class Last(Reader):
        def __next__(self) -> int:
            stuck.stick()
            raise end

    source = Last(1)
    numbers = BackgroundGenerator(source)
    assert stuck.inside.wait(LONG)
    with pytest.warns(RuntimeWarning, match="did not stop"):
        assert numbers.close(0) is False
    stuck.go.set()
    assert numbers.close() is True
    assert source.closed == 0


def test_a_source_without_close_just_ends() -> None:
    """C3: if the iterator has no close(), there is nothing to call; its iterable's is none of our business."""

    class Table(Reader):
        def __iter__(self) -> Iterator[int]:  # type: ignore[override]  # on purpose another object
            return itertools.count()

    table = Table(0)
    numbers = BackgroundGenerator(table)
    assert next(numbers) == 0
    assert numbers.close() is True
    assert table.closed == 0


def test_close_is_looked_up_as_yield_from_does() -> None:
    """C3: what `yield from` does: an attribute of the iterator object is enough."""
    calls: list[str] = []
    source = Reader(sys.maxsize)
    source.close = lambda: calls.append("its own")  # type: ignore[method-assign]  # as a proxy does
    assert BackgroundGenerator(source).close() is True
    assert calls == ["its own"]


# C4


@pytest.mark.parametrize("failure", [KeyError("x"), SystemExit(3), KeyboardInterrupt(), StopIteration(1)], ids=repr)
def test_what_the_source_raises_while_being_closed_is_raised_once_by_close(failure: BaseException) -> None:
    """C4: close() raises it, the same object, once."""
    source = Reader(sys.maxsize)

    def close() -> None:
        raise failure

    source.close = close  # type: ignore[method-assign]  # raises what a generator could not
    numbers = BackgroundGenerator(source)
    with pytest.raises(type(failure)) as raised:
        numbers.close()
    assert raised.value is failure
    assert numbers.close() is True
    assert next(numbers, "over") == "over"


def test_a_source_that_refuses_to_close_fails() -> None:
    """C4: a generator that goes on after GeneratorExit is told off, as Python does."""

    def source() -> Iterator[int]:
        while True:
            try:
                yield 0
            except GeneratorExit:
                yield 1
                return

    numbers = BackgroundGenerator(source(), 1)
    assert next(numbers) == 0
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        numbers.close()


def test_of_several_closers_one_gets_what_the_source_raised() -> None:
    """C4: it is raised once: one of several calls at the same time gets it."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    numbers = BackgroundGenerator(failing_close(KeyError("x"), closed))
    assert next(numbers) == 0

    def close() -> str:
        try:
            return str(numbers.close())
        except KeyError:
            return "failed"

    calls = [in_thread(close) for _ in range(4)]
    assert sorted(call.get(timeout=LONG) for call in calls) == ["True", "True", "True", "failed"]


def test_exit_raises_it_with_the_bodys_own_exception_as_its_context() -> None:
    """C4: from __exit__ too, with the body's own exception as its __context__."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    body = ZeroDivisionError("the body's own")
    with (  # noqa: PT012 - it is the end of the block that raises
        pytest.raises(KeyError) as raised,
        BackgroundGenerator(failing_close(KeyError("x"), closed)) as numbers,
    ):
        assert next(numbers) == 0
        raise body
    assert type(raised.value.__context__) is GeneratorExit  # in the handling of which the source failed
    assert raised.value.__context__.__context__ is body
    with pytest.raises(KeyError), BackgroundGenerator(failing_close(KeyError("y"), closed)) as numbers:
        assert next(numbers) == 0


def test_where_nobody_calls_close_it_goes_to_the_threads_hook(hooked: SimpleQueue[threading.ExceptHookArgs]) -> None:
    """C4: where nobody calls close(), it goes to threading.excepthook, once, with the worker's thread."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    failure = KeyError("x")
    for _ in BackgroundGenerator(failing_close(failure, closed)):
        break
    thread = closed.get(timeout=LONG)
    call = hooked.get(timeout=LONG)
    thread.join(LONG)
    assert (call.exc_type, call.exc_value, call.thread) == (KeyError, failure, thread)
    assert hooked.empty()


def test_it_waits_for_a_close_that_may_still_come(hooked: SimpleQueue[threading.ExceptHookArgs]) -> None:
    """C4: a generator that was stopped by its event can still be closed; if it is dropped instead, the hook gets it."""
    for drop in (False, True):
        closed: SimpleQueue[threading.Thread] = SimpleQueue()
        numbers = BackgroundGenerator(failing_close(KeyError("x"), closed), 1)
        assert next(numbers) == 0
        numbers.stop_event.set()
        assert ended(closed)
        assert hooked.empty()
        if drop:
            del numbers
            assert hooked.get(timeout=LONG).exc_type is KeyError
        else:
            with pytest.raises(KeyError):
                numbers.close()
            del numbers
            assert hooked.empty()


def test_a_failure_that_was_buffered_is_dropped(hooked: SimpleQueue[threading.ExceptHookArgs]) -> None:
    """C4: a failure that was buffered is dropped with the items around it."""
    threads: SimpleQueue[threading.Thread] = SimpleQueue()

    def source() -> Iterator[int]:
        item = Item()
        alive.add(item)
        threads.put(threading.current_thread())
        yield 0
        raise KeyError("never seen")

    alive: weakref.WeakSet[Item] = weakref.WeakSet()
    numbers = BackgroundGenerator(source())
    assert ended(threads)
    assert len(alive) == 1  # held by the failure's traceback
    assert numbers.close() is True
    assert len(alive) == 0
    assert next(numbers, "over") == "over"
    del numbers
    assert hooked.empty()


def test_a_failure_of_the_unfinished_step_is_dropped(
    stuck: Stuck, hooked: SimpleQueue[threading.ExceptHookArgs]
) -> None:
    """C4: a failure that the unfinished step ends in after the stop is dropped too."""

    def source() -> Iterator[int]:
        for number in stuck.items():
            if number:
                raise KeyError("too late")
            yield number

    numbers = BackgroundGenerator(source())
    assert stuck.inside.wait(LONG)
    closing = in_thread(partial(numbers.close, None))
    assert numbers.stop_event.wait(LONG)
    stuck.go.set()
    assert closing.get(timeout=LONG) is True
    assert numbers.close() is True
    assert next(numbers, "over") == "over"
    del numbers, closing
    assert hooked.empty()


def test_a_failure_that_close_has_raised_is_not_kept(no_collector: None) -> None:
    """C4: raised by close(), it is freed with all its frames hold, by reference count alone."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    item = Item()
    alive = weakref.ref(item)

    def source(item: Item) -> Iterator[Item]:
        try:
            while True:
                yield item
        finally:
            closed.put(threading.current_thread())
            raise KeyError("x")

    items = BackgroundGenerator(source(item), 1)
    del item
    next(items)
    answer = None
    with suppress(KeyError):
        answer = items.close()
    assert answer is None
    assert ended(closed)
    assert alive() is None


# C5


def test_after_close_next_raises_stop_iteration() -> None:
    """C5: after close(), every kind of next() raises StopIteration, whatever was there to take."""
    numbers = BackgroundGenerator(itertools.count(), 8)
    assert next(numbers) == 0
    numbers.close()
    for _ in range(2):
        with pytest.raises(StopIteration) as raised:
            next(numbers)
        assert raised.value.value is None
        with pytest.raises(StopIteration):
            numbers.next(LONG)
    assert list(numbers) == []


def test_after_close_a_loop_over_it_ends() -> None:
    """C5: also a loop that closes what it iterates."""
    seen = []
    for number in (numbers := BackgroundGenerator(itertools.count(), 8)):
        seen.append(number)
        numbers.close()
    assert seen == [0]


def test_after_close_the_return_value_is_gone_too() -> None:
    """C5: StopIteration without the value of a source that was ready to return it."""
    threads: SimpleQueue[threading.Thread] = SimpleQueue()

    def source() -> Generator[int, None, str]:
        threads.put(threading.current_thread())
        yield 0
        return "never seen"

    numbers = BackgroundGenerator(source())
    assert ended(threads)
    numbers.close()
    with pytest.raises(StopIteration) as raised:
        next(numbers)
    assert raised.value.value is None


# C6


def test_break_stops_the_worker(no_collector: None) -> None:
    """C6: dropping the last reference by `break` stops the worker: the source is closed, the thread ends."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    for _ in BackgroundGenerator(counting(closed)):
        break
    assert ended(closed)


def test_an_exception_in_the_loop_stops_the_worker(no_collector: None) -> None:
    """C6: so does an exception that leaves the loop, as soon as it is let go."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    with suppress(KeyError):
        for _ in BackgroundGenerator(counting(closed)):
            raise KeyError
    assert ended(closed)


def test_dropping_in_a_cycle_stops_the_worker(no_collector: None) -> None:
    """C6: or in a cycle, when the collector finds it."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    numbers = BackgroundGenerator(counting(closed))
    assert next(numbers) == 0
    cycle: list[object] = [numbers]
    cycle.append(cycle)
    del numbers, cycle
    assert closed.empty()
    gc.collect()
    assert ended(closed)


def test_dropping_never_waits(stuck: Stuck, no_collector: None) -> None:
    """C6: dropping never waits for a source that is in a step; it is closed after it."""
    numbers = BackgroundGenerator(stuck.items())
    stop = numbers.stop_event
    assert stuck.inside.wait(LONG)
    slept: list[None] = []
    started = time.monotonic()
    with when_asleep(lambda: slept.append(None)):
        del numbers
    assert time.monotonic() - started < 4
    assert not slept
    assert stop.is_set()
    assert stuck.closed.empty()
    stuck.go.set()
    assert ended(stuck.closed)


def test_dropping_leaks_nothing(no_collector: None) -> None:
    """C6: nothing leaks: no thread, no item, no object of the library, nor anything in a shared stop event."""
    shared = StopEvent()
    items: weakref.WeakSet[Item] = weakref.WeakSet()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()

    def source() -> Iterator[Item]:
        try:
            while True:
                item = Item()
                items.add(item)
                yield item
        finally:
            closed.put(threading.current_thread())

    def drop(n: int) -> None:
        for _ in range(n):
            for _ in BackgroundGenerator(source(), 4, stop_event=shared):
                break
            assert ended(closed)

    def blocks() -> int:
        if not GIL:
            gc.collect()  # for what a thread that has ended leaves is given back, or counted, later
        return sys.getallocatedblocks()

    drop(5 if GIL else 300)
    threads, before, objects = threading.active_count(), blocks(), len(gc.get_objects())
    drop(300)
    assert threading.active_count() == threads
    assert len(items) == 0
    assert len(gc.get_objects()) - objects < 100
    assert blocks() - before < 300


def use_everything() -> None:
    """Run through the library: an end, a failure, a drop, a close, a stop."""
    shared = StopEvent()
    with BackgroundGenerator(range(3), 1, stop_event=shared) as numbers:
        assert list(numbers) == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(BackgroundGenerator(1 / n for n in [0]))
    for number in BackgroundGenerator(itertools.count()):
        if number == 3:
            break
    numbers = BackgroundGenerator(itertools.count(), 1, stop_event=shared)
    assert next(numbers) == 0
    with pytest.raises(NotReadyError):
        BackgroundGenerator(iter(lambda: current_stop_event().wait(LONG), True)).next(0)
    shared.set()
    assert next(numbers, "over") == "over"
    assert numbers.close() is True
    assert shared.wait(0)


def test_dropping_anywhere_in_the_library(no_collector: None) -> None:
    """C6: wherever the garbage collector happens to run, in the middle of this library's own code."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    dropped = itertools.count()

    def drop() -> None:
        numbers = BackgroundGenerator(counting(closed))
        next(numbers)
        holder: list[object] = [numbers]
        del numbers
        if next(dropped) % EVERY == 0:
            holder.append(holder)
            del holder
            gc.collect(0)

    with at_every_line(drop):
        use_everything()
    lines = next(dropped)
    assert lines > 100
    for _ in range(lines):
        assert ended(closed)


@posix
def test_dropping_in_a_signal_handler_anywhere_in_the_library(no_collector: None) -> None:
    """C6: in a signal handler, wherever that strikes."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    dropped = itertools.count()

    def drop(_signal: int, _frame: FrameType | None) -> None:
        for _ in BackgroundGenerator(counting(closed)):
            next(dropped)
            break

    before = signal.signal(signal.SIGUSR1, drop)
    try:
        with at_every_line(lambda: signal.raise_signal(signal.SIGUSR1)):
            use_everything()
    finally:
        signal.signal(signal.SIGUSR1, before)
    lines = next(dropped)
    assert lines > 100
    for _ in range(lines):
        assert ended(closed)


def test_dropping_on_the_worker_itself(no_collector: None) -> None:
    """C6: on the worker itself, by reference count and by the collector, while it is in the source."""
    for in_cycle in (False, True):
        closed: SimpleQueue[threading.Thread] = SimpleQueue()
        box: SimpleQueue[list[object]] = SimpleQueue()

        def source(
            closed: SimpleQueue[threading.Thread] = closed, box: SimpleQueue[list[object]] = box
        ) -> Iterator[int]:
            for number in counting(closed):
                box.get(timeout=LONG)
                gc.collect()
                yield number

        holder: list[object] = [BackgroundGenerator(source())]
        if in_cycle:
            holder.append(holder)
        box.put(holder)
        del holder
        assert ended(closed)


def test_dropping_on_the_worker_at_every_line_it_executes(no_collector: None) -> None:
    """C6: on the worker itself, in the middle of this library's own code; the source is closed unless it has ended."""
    for line in itertools.count():
        lines = itertools.count()
        ready = threading.Event()
        box: list[BackgroundGenerator[int]] = []
        source = Reader(3)

        def drop(
            lines: Iterator[int] = lines,
            line: int = line,
            ready: threading.Event = ready,
            box: list[BackgroundGenerator[int]] = box,
        ) -> None:
            ready.wait(LONG)
            if next(lines) == line:
                box.clear()

        before = threading.gettrace()
        threading.settrace(tracer(drop))
        try:
            box.append(BackgroundGenerator(source, 0, name="traced"))
            [thread] = threads_of("traced")
            ready.set()
            thread.join(LONG)
        finally:
            threading.settrace(before)  # not before the thread runs, which takes it up then
        assert not thread.is_alive()
        if box:  # it ended before that line
            break
    assert line > 20


# C8


def test_a_source_that_waits_for_another_generator_sees_generator_exit(stuck: Stuck) -> None:
    """C8: it sees GeneratorExit at that wait, its finally blocks run, and the inner generator is closed."""
    asleep = threading.Event()
    log: list[str] = []

    def outer() -> Iterator[int]:
        inner = BackgroundGenerator(stuck.items())
        try:
            yield next(inner)
            with when_asleep(asleep.set):
                yield next(inner, -1)
            log.append("mistook the stop for the end")
        except GeneratorExit:
            log.append("GeneratorExit")
            raise
        finally:
            log.append("finally")

    numbers = BackgroundGenerator(outer())
    assert next(numbers) == 0
    assert asleep.wait(LONG)
    assert numbers.close() is True  # though the inner source is still in its step
    assert log == ["GeneratorExit", "finally"]
    stuck.go.set()
    assert ended(stuck.closed)


def test_a_source_that_waits_with_a_timeout_sees_generator_exit(stuck: Stuck) -> None:
    """C8: also in `next(timeout)`."""
    asleep = threading.Event()
    log: list[str] = []

    def outer() -> Iterator[int]:
        inner = BackgroundGenerator(stuck.items())
        yield next(inner)
        try:
            with when_asleep(asleep.set):
                inner.next(60)
        except GeneratorExit:
            log.append("GeneratorExit")
            raise

    numbers = BackgroundGenerator(outer())
    assert next(numbers) == 0
    assert stuck.inside.wait(LONG)
    assert asleep.wait(LONG)
    assert numbers.close() is True
    assert log == ["GeneratorExit"]


def test_a_chain_stops_as_one() -> None:
    """C8: inner generators are closed, at any depth: their sources hear of the stop and run their finally."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    log: list[str] = []

    def innermost() -> Iterator[int]:
        try:
            yield 0
            if not current_stop_event().wait(LONG):
                log.append("not stopped")
        finally:
            closed.put(threading.current_thread())

    def around(numbers: BackgroundGenerator[int]) -> Iterator[int]:
        try:
            yield from numbers
            log.append("mistook the stop for the end")
        finally:
            closed.put(threading.current_thread())

    chain = innermost()
    for _ in range(3):
        chain = around(BackgroundGenerator(chain))
    numbers = BackgroundGenerator(chain)
    assert next(numbers) == 0
    del chain
    assert numbers.close() is True
    for _ in range(4):
        assert ended(closed)
    assert log == []


def test_a_chain_stops_as_one_through_iterators_of_another_kind(stuck: Stuck) -> None:
    """C8: nobody mistakes the stop for the end of the data, what lies between two generators neither."""
    log: list[str] = []

    def tail() -> Iterator[int]:
        log.append("mistook the stop for the end")
        yield 2

    inner = BackgroundGenerator(stuck.items())
    numbers = BackgroundGenerator(itertools.chain(map(abs, inner), tail()))
    del inner
    assert next(numbers) == 0
    assert stuck.inside.wait(LONG)
    assert numbers.close() is True
    assert log == []
    stuck.go.set()
    assert ended(stuck.closed)


@pytest.mark.parametrize("inner_first", [False, True])
@pytest.mark.parametrize("innermost_does", ["go on", "end", "poll and end"])
def test_a_chain_with_one_stop_event_stops_as_one(inner_first: bool, innermost_does: str) -> None:
    """C8: a stop that reaches all of a chain is no end of the data, however slowly, and in whichever order.

    D3: Nor is it if the inner source hears of the stop first, and ends by itself.
    """
    for _ in range(10):
        log: list[str] = []
        shared = StopEvent()

        def outer(
            inner: BackgroundGenerator[bool] | None, shared: StopEvent = shared, log: list[str] = log
        ) -> Iterator[bool]:
            yield False
            yield from inner or BackgroundGenerator(innermost(), stop_event=shared)
            log.append("mistook the stop for the end")

        def innermost() -> Iterator[bool]:
            yield False
            if innermost_does == "poll and end":
                while not current_stop_event().is_set():
                    time.sleep(0)  # sees the flag before anybody has acted on it
                return
            yield current_stop_event().wait(LONG)
            while innermost_does == "go on":
                yield True

        inner = BackgroundGenerator(innermost(), stop_event=shared) if inner_first else None
        stops = BackgroundGenerator(outer(inner), stop_event=shared)
        del inner
        assert [next(stops), next(stops)] == [False, False]
        with at_every_line(lambda: time.sleep(0.001)):
            shared.set()
        assert next(stops, "over") == "over"
        assert stops.close() is True
        assert log == []


def test_a_source_that_is_no_generator_is_closed_after_that(stuck: Stuck) -> None:
    """C8: it has not ended by itself when GeneratorExit comes out of its step: its close() is called."""

    class Outer(Reader):
        def __next__(self) -> int:
            return next(inner)

    inner = BackgroundGenerator(stuck.items())
    source = Outer(1)
    numbers = BackgroundGenerator(source)
    assert next(numbers) == 0
    assert stuck.inside.wait(LONG)
    assert numbers.close() is True
    assert source.closed == 1


def test_a_source_that_is_not_told_to_stop_sees_a_plain_end(stuck: Stuck) -> None:
    """C8: only its own worker's stop is GeneratorExit; if somebody closes the inner generator, that has ended."""
    inner = BackgroundGenerator(stuck.items())

    def outer() -> Iterator[int]:
        yield from inner
        yield -1

    numbers = BackgroundGenerator(outer())
    assert next(numbers) == 0
    assert stuck.inside.wait(LONG)
    inner.stop_event.set()
    assert list(numbers) == [-1]
