"""Contract, section C, sentences 1 and 5: `close()`, and what there is after it."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from queue import SimpleQueue

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    StopEvent,
    current_stop_event,
)
from tests.helpers import LONG, ended, in_thread, interrupted, posix, when_asleep
from tests.interrupts.machine import Every

from .support import (
    HostileToLooks,
    Item,
    LookedAtError,
    Reader,
    Stuck,
    counting,
    run_program,
    threads_of,
)


@pytest.fixture
def unraisable_hook(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the names of the exceptions that finalizers raise."""
    names: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: names.append(args.exc_type.__name__))
    return names


class HostileGoodbye(HostileToLooks):
    """... and that raises when it is freed."""

    def __del__(self) -> None:
        raise LookedAtError


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
    with Every("line", lambda _: time.sleep(0.001)).on_new_threads():
        numbers = BackgroundGenerator(itertools.count(), 1, name="slow")
        [thread] = threads_of("slow")
        assert next(numbers) == 0  # by then the thread has the trace function
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


@pytest.mark.parametrize("how", ["close", "stop", "drop", "drop in a cycle"])
def test_items_that_raise_when_they_are_freed_hinder_no_ending(how: str, unraisable_hook: list[str]) -> None:
    """C1, C6: what is buffered is dropped, all of it, whatever the items do then; the source is closed."""
    full, closed = threading.Event(), threading.Event()

    def source() -> Iterator[HostileGoodbye]:
        try:
            for _ in range(4):
                yield HostileGoodbye()
            full.set()
            current_stop_event().wait(LONG)
            yield HostileGoodbye()
        finally:
            closed.set()

    items = BackgroundGenerator(source(), 8)
    assert full.wait(LONG)
    stop = items.stop_event
    if how == "close":
        assert items.close() is True
    elif how == "stop":
        stop.set()
        assert next(items, "over") == "over"
    else:
        cycle: list[object] = [items]
        if how == "drop in a cycle":
            cycle.append(cycle)
        del items, cycle
        gc.collect()
    assert closed.wait(LONG)
    for thread in threads_of("source"):
        thread.join(LONG)
    assert unraisable_hook == ["LookedAtError"] * 5


@pytest.mark.parametrize("call", ["close()", "close(None)", "next()", "stop_event.set()", "stats"])
@pytest.mark.parametrize("on", ["consumer", "worker"])
def test_items_whose_finalizer_uses_the_generator_hinder_nothing(call: str, on: str) -> None:
    """C1, C6: a finalizer may close, iterate or look; on the worker, that drops what came too late, it cannot wait."""
    answers: SimpleQueue[tuple[str, object]] = SimpleQueue()
    inside, go = threading.Event(), threading.Event()

    class Item:
        def __del__(self) -> None:
            answer: object = None
            try:
                if call == "close()":
                    answer = items.close()
                elif call == "close(None)":
                    answer = items.close(None)
                elif call == "next()":
                    answer = next(items, "over")
                elif call == "stop_event.set()":
                    items.stop_event.set()
                else:
                    repr((items, items.stats))
            except BaseException as error:
                answer = type(error).__name__
            answers.put((threading.current_thread().name, answer))

    def source() -> Iterator[Item]:
        yield Item()
        inside.set()
        go.wait()
        yield Item()

    items = BackgroundGenerator(source(), 2)
    assert inside.wait(LONG)
    if on == "consumer":
        go.set()
        del_me: list[Item] = [next(items)]
        del_me.clear()
    else:
        item = next(items)
        items.stop_event.set()
        go.set()
        name, answer = answers.get(timeout=LONG)
        assert name == "BackgroundGenerator-source"
        assert answer in (None, False, "RuntimeError")
        del item
    answers.get(timeout=LONG)
    assert items.close(LONG) is True


def test_an_item_given_after_generator_exit_is_dropped(hooked: SimpleQueue[threading.ExceptHookArgs]) -> None:
    """C1, C4: a generator that goes on after GeneratorExit is not asked again, what it gave then goes nowhere."""

    def source() -> Iterator[int]:
        while True:
            try:
                yield 0
            except GeneratorExit:
                steps.append("ignored")
                yield 1
                steps.append("asked again")
                return

    steps: list[str] = []
    numbers = BackgroundGenerator(source(), 1)
    assert next(numbers) == 0
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        numbers.close()
    assert (steps, list(numbers), numbers.stats.buffered) == (["ignored"], [], 0)
    assert hooked.empty()


@pytest.mark.parametrize("max_prefetch", [1, 2, 8])
def test_a_generator_that_is_stopped_in_a_step_does_not_wait_for_room(max_prefetch: int) -> None:
    """C1: the step's item comes after the buffer was emptied, and may fill it: the worker must not go to sleep then."""
    for way in ("close", "close in a thread", "own event", "shared event", "drop"):
        inside, go, closed = threading.Event(), threading.Event(), threading.Event()

        def source(
            inside: threading.Event = inside, go: threading.Event = go, closed: threading.Event = closed
        ) -> Iterator[int]:
            try:
                yield 0
                inside.set()
                go.wait(LONG)
                yield 1
            finally:
                closed.set()

        shared = StopEvent()
        numbers: BackgroundGenerator[int] | None = BackgroundGenerator(source(), max_prefetch, stop_event=shared)
        assert numbers is not None
        assert next(numbers) == 0
        assert inside.wait(LONG)
        closing = None
        if way == "close":
            with pytest.warns(RuntimeWarning, match="did not stop"):
                assert numbers.close(0) is False
        elif way == "close in a thread":
            stopping = numbers.stop_event
            closing = in_thread(numbers.close)
            assert stopping.wait(LONG)
            time.sleep(0.01)  # the event is set before its effect; whichever comes first is well, but not the same
        elif way == "drop":
            numbers = None
        else:
            (shared if way == "shared event" else numbers.stop_event).set()
        go.set()
        assert closed.wait(LONG)
        assert closing is None or closing.get(timeout=LONG) is True


def test_close_may_be_called_from_no_python_code_at_all() -> None:
    """C1, C2: as the interpreter calls exit handlers; here the warning is an error, which it prints."""
    script = """
        import atexit

        go = threading.Event()
        numbers = BackgroundGenerator(iter(lambda: inside.release() or go.wait(), True), name="stuck")
        inside.acquire()
        atexit.register(go.set)  # after the next one
        atexit.register(numbers.close, 0)
    """
    out, err = run_program(script)
    assert out == []
    assert "RuntimeWarning: BackgroundGenerator 'stuck' did not stop within 0 seconds" in err
    assert "ValueError" not in err


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


def test_an_item_that_came_too_late_is_dropped_by_whoever_finds_it() -> None:
    """C5: without the GIL an item may arrive after close() has emptied the buffer; next() does not deliver it."""
    numbers = BackgroundGenerator(range(3))
    assert numbers.close()
    numbers._channel.items.put(7)
    assert next(numbers, None) is None
    assert numbers.stats.buffered == 0
