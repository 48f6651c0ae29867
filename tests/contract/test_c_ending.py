"""Contract, section C, sentences 1 to 5: `close()`, its timeout, and what closing raises."""

from __future__ import annotations

import gc
import inspect
import itertools
import re
import signal
import sys
import textwrap
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from queue import SimpleQueue

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    StopEvent,
    _exit,
    current_stop_event,
)
from prefetch_generator._bell import Bell
from tests.helpers import LONG, ended, in_thread, interrupted, posix, python, when_asleep
from tests.interrupts.machine import Every

from .support import (
    Fail,
    HostileToLooks,
    Item,
    LookedAtError,
    Make,
    Plain,
    Reader,
    Stuck,
    Touchy,
    alone,
    an_error,
    an_error_with_a_context,
    counting,
    endless,
    failing_clean_up,
    from_another,
    from_none,
    nothing,
    raised_by,
    run_program,
    threads_of,
    while_handling_two,
)


def failing_close(failure: BaseException, closed: SimpleQueue[threading.Thread]) -> Iterator[int]:
    """Count, and fail when closed."""
    try:
        yield from itertools.count()
    finally:
        closed.put(threading.current_thread())
        raise failure


class Impatient(StopEvent):
    """Whose time is always up."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(min(timeout or 0, 0))


def in_an_exit_stack(make: Make, fail: Fail) -> None:
    with ExitStack() as stack:
        stack.callback(alone)
        numbers = stack.enter_context(make(failing_clean_up(fail)))
        raise IndexError(next(numbers))


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


class NeverClosing:
    """Iterators whose `close` is odd; each raises what `failures` says."""

    failures = (
        ("no function", TypeError),
        ("raises when it is looked up", LookedAtError),
        ("takes an argument", TypeError),
        ("ignores GeneratorExit", RuntimeError),
        ("raises GeneratorExit", GeneratorExit),
        ("raises SystemExit", SystemExit),
        ("asks for memory", MemoryError),
    )

    def __init__(self, oddity: str) -> None:
        self.oddity = oddity

    def __iter__(self) -> Iterator[int]:
        return self.generator() if self.oddity == "ignores GeneratorExit" else self

    def generator(self) -> Iterator[int]:
        while True:
            with suppress(GeneratorExit):
                yield 1

    def __next__(self) -> int:
        return 1

    @property
    def close(self) -> object:
        def with_argument(_: object) -> None:
            pass

        def fail() -> None:
            if self.oddity == "asks for memory":
                bytes(sys.maxsize // 2)
            raise SystemExit if self.oddity == "raises SystemExit" else GeneratorExit

        if self.oddity == "no function":
            return 5
        if self.oddity == "raises when it is looked up":
            raise LookedAtError
        return with_argument if self.oddity == "takes an argument" else fail


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
    assert stuck.place in str(warning.message)
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
    assert stuck.place in str(caught[0].message)
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


def test_the_warning_names_the_line_of_a_source_that_runs_meanwhile() -> None:
    """C2: a look at a busy thread may miss its way out; the warning names the source's line all the same."""
    begun, enough = threading.Event(), threading.Event()

    def descend(depth: int) -> Iterator[int]:  # frames that come and go, which is what a look stumbles over
        yield depth
        if depth:
            yield from descend(depth - 1)

    def source() -> Iterator[int]:
        begun.set()
        while not enough.is_set():
            list(descend(5))
        yield 0

    numbers = BackgroundGenerator(source())
    assert begun.wait(LONG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [numbers.close(0) for _ in range(200)] == [False] * 200
    enough.set()
    assert numbers.close(LONG) is True
    first = source.__code__.co_firstlineno
    places = {re.sub(r"^.*its source is still ", "", str(warning.message)) for warning in caught}
    assert len(caught) == 200
    assert places <= {f"at {__file__}, line {first + line}" for line in (1, 2, 3)}


def test_a_with_block_left_by_an_exception_keeps_it_though_the_source_does_not_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C2: a source whose close() hangs costs the block its 5 seconds, a warning, and nothing else."""
    go = threading.Event()

    class Hangs(Touchy):
        def close(self) -> None:
            go.wait()
            super().close()

    source = Hangs()
    numbers = BackgroundGenerator(source, name="hangs")
    asked: list[float | None] = []

    def impatient(timeout: float | None = None) -> bool:
        asked.append(timeout)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(StopEvent, "wait", lambda self, timeout=None: impatient(timeout))
        with (
            pytest.warns(RuntimeWarning, match="'hangs' did not stop within 5"),
            pytest.raises(KeyError, match="the body's own"),
            numbers,
        ):
            raise KeyError("the body's own")
    assert asked == [5.0]
    go.set()
    assert numbers.close() is True
    assert source.steps[-1] == "close"


def test_the_clock_on_the_wall_is_never_asked() -> None:
    """C2, E3: a system clock that jumps, or cannot be read, changes no timeout: only monotonic clocks are used."""
    script = """
        import time

        def broken(*_):
            raise OSError("the clock on the wall has stopped")

        # Before anything is imported, so that nobody has the real ones.
        monotonic = time.monotonic
        time.time = time.time_ns = time.localtime = time.gmtime = broken

        import warnings
        from prefetch_generator import BackgroundGenerator, StopEvent, current_stop_event

        def source():
            yield 0
            current_stop_event().wait()

        numbers = BackgroundGenerator(source())
        print(next(numbers))
        started = monotonic()
        for wait in (lambda: numbers.next(0.05), lambda: StopEvent().wait(0.05)):
            try:
                print(wait())
            except TimeoutError:
                print("timeout")
        print(0.1 <= monotonic() - started < 10)
        print(numbers.close(10), numbers.stats.consumer_wait > 0)
    """
    out, err = python("-c", textwrap.dedent(script))
    assert (out.split(), err) == (["0", "timeout", "False", "True", "True", "True"], "")


def test_a_wait_that_ends_too_early_goes_on() -> None:
    """C2, E3: where the system's own wait follows the clock on the wall, and that jumps, the wait is taken up again."""
    asked: list[float] = []

    class Jumpy:
        def acquire(self, timeout: float) -> bool:
            asked.append(timeout)
            return len(asked) == 4

    bell = Bell()
    bell._lock = Jumpy()  # type: ignore[assignment]  # a lock as far as is needed here
    assert bell.sleep(time.monotonic() + LONG) is True
    assert len(asked) == 4
    assert all(LONG - 5 < timeout <= LONG for timeout in asked)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_a_signal_handler_that_takes_longer_than_the_timeout_does_not_prolong_it() -> None:
    """C2, D1, E3: a wait that is interrupted by a handler, and whose time is over when that returns, is over."""
    script = """
        import warnings

        def source():
            yield 0
            go.wait()

        warnings.simplefilter("ignore")
        go = threading.Event()
        numbers = BackgroundGenerator(source())
        next(numbers)
        signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.2))
        for wait in (numbers.next, StopEvent().wait, numbers.close):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            try:
                say(wait(0.1))
            except TimeoutError:
                say("TimeoutError")
        go.set()
    """
    assert run_program(script) == (["TimeoutError", "False", "False"], "")


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


def test_a_thread_that_is_no_worker_any_more_is_nowhere() -> None:
    """C2: the number of a worker that has just ended may already be that of another thread."""
    numbers = BackgroundGenerator(range(3))
    assert numbers.close()
    numbers._channel.worker_ident = threading.get_ident()
    assert numbers._worker.where() == "in code that is not Python"
    numbers._channel.worker_ident = 0


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a generator that is freed is closed
@pytest.mark.parametrize(("oddity", "failure"), NeverClosing.failures)
@pytest.mark.parametrize("how", ["close", "with", "drop"])
def test_a_source_that_cannot_be_closed_says_so_once_and_is_left(
    oddity: str, failure: type[BaseException], how: str, hooked: SimpleQueue[threading.ExceptHookArgs]
) -> None:
    """C3, C4: whatever goes wrong in closing it is raised by close(), or goes to the threads' hook; the worker ends."""
    numbers = BackgroundGenerator(NeverClosing(oddity), 1, name="unclosable")
    assert next(numbers) == 1
    if how == "drop":
        del numbers
        assert issubclass(hooked.get(timeout=LONG).exc_type, failure)
    elif how == "close":
        with pytest.raises(failure):
            numbers.close()
        assert numbers.close() is True
    else:
        with pytest.raises(failure), numbers:
            pass
        assert numbers.close() is True
    for thread in threads_of("unclosable"):
        thread.join(LONG)
    assert not threads_of("unclosable")
    assert hooked.empty()


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


@pytest.mark.parametrize("handling", [nothing, an_error, an_error_with_a_context])
@pytest.mark.parametrize("fail", [alone, while_handling_two, from_another, from_none])
def test_the_chain_in_an_exit_stack_is_that_of_plain_python(
    fail: Fail, handling: Callable[[Callable[[], object]], None]
) -> None:
    """C4: the same where an ExitStack, which mends these chains too, stands between."""
    raised = raised_by(handling, lambda: in_an_exit_stack(BackgroundGenerator, fail))
    assert raised == raised_by(handling, lambda: in_an_exit_stack(Plain, fail))
    gc.collect()  # an ExitStack makes a cycle through what it raises


def test_a_failure_that_the_unfinished_step_ends_in_is_dropped_and_not_kept(no_collector: None) -> None:
    """C4, B3: it is freed when the worker has ended, though the closed generator lives on."""

    class Failure(Exception):  # noqa: N818 - nobody handles it
        pass

    entered: SimpleQueue[None] = SimpleQueue()
    go: SimpleQueue[None] = SimpleQueue()
    failures: list[weakref.ref[Failure]] = []

    def source() -> Iterator[int]:
        yield 0
        entered.put(None)
        go.get(timeout=LONG)
        failure = Failure()
        failures.append(weakref.ref(failure))
        try:
            raise failure
        finally:
            del failure

    numbers = BackgroundGenerator(source())
    entered.get(timeout=LONG)
    with pytest.warns(RuntimeWarning, match="did not stop"):
        assert numbers.close(0) is False
    go.put(None)
    assert numbers.close(LONG) is True
    assert failures[0]() is None
    assert repr(numbers).endswith("closed, 0/2 buffered>")


def test_a_worker_that_ends_while_the_finalizer_runs_reports_what_closing_raised(
    hooked: SimpleQueue[threading.ExceptHookArgs],
) -> None:
    """C4: where nobody calls close() it goes to the excepthook, also while the generator is being finalized."""
    entered: SimpleQueue[None] = SimpleQueue()
    go: SimpleQueue[None] = SimpleQueue()

    def source() -> Iterator[int]:
        try:
            entered.put(None)
            go.get(timeout=LONG)
            yield 0
        finally:
            raise KeyError

    numbers = BackgroundGenerator(source())
    worker = numbers._worker
    thread = worker.thread
    assert thread is not None
    entered.get(timeout=LONG)
    worker.abandon()  # as the finalizer does, during which weak references to the generator still find it
    go.put(None)
    thread.join(LONG)
    assert hooked.get(block=False).exc_type is KeyError
    assert hooked.empty()
    assert worker not in _exit.live


def test_a_close_that_raised_leaves_nothing_for_the_exit_to_report() -> None:
    """C4: what closing raised is raised once, by close(): the worker is forgotten with it."""

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            raise KeyError

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 0
    with pytest.raises(KeyError):
        numbers.close(LONG)
    assert numbers._worker not in _exit.live


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


@pytest.mark.parametrize("told_at", ["a yield", "a wait"])
def test_what_a_finally_raises_is_raised_by_close_wherever_it_was_told(told_at: str) -> None:
    """C4 with C8: a source that is told to stop at a wait is being closed, just as one at a `yield`."""
    begun = threading.Event()

    def outer() -> Iterator[int]:
        try:
            if told_at == "a wait":
                yield from BackgroundGenerator(endless(begun))
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


def test_at_exit_what_closing_raised_is_reported_if_nobody_has_asked() -> None:
    """C4 and C7: stopped by its event, still referred to, and never closed: it is reported at exit."""
    script = """
        def failing():
            try:
                while True:
                    yield 0
            finally:
                raise KeyError("while closing")

        numbers = sys.kept_for_ever = BackgroundGenerator(failing())
        next(numbers)
        numbers.stop_event.set()
        numbers._worker.ended.wait()
    """
    _, err = run_program(script)
    assert "KeyError: 'while closing'" in err


def test_at_exit_what_a_source_raises_while_being_closed_is_shown() -> None:
    """C4, C7: nobody calls close() any more, so it goes to threading.excepthook, which prints it; once."""
    script = """
        def source():
            try:
                yield from itertools.count()
            finally:
                raise KeyError("while closing")

        def keep(numbers):
            threading.Event().wait()

        numbers = BackgroundGenerator(source(), 1)
        next(numbers)
        threading.Thread(target=keep, args=(numbers,), daemon=True).start()
    """
    out, err = run_program(script)
    assert out == []
    assert err.startswith("Exception in thread BackgroundGenerator-source:\nTraceback")
    assert err.count("KeyError: 'while closing'") == 1


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
