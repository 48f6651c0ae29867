"""Contract A4, A10, B1, B4, C1 to C6: what goes wrong around the library: threads, memory, items, sources, clocks."""

from __future__ import annotations

import gc
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue

import pytest

from prefetch_generator import BackgroundGenerator, StopEvent, current_stop_event
from prefetch_generator._bell import Bell

from .helpers import LONG, in_thread, python


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the names of the exceptions that finalizers raise."""
    names: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: names.append(args.exc_type.__name__))
    return names


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"BackgroundGenerator-{name}"]


class Touchy:
    """An iterator that says when anybody touches it."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.steps.append("next")
        return len(self.steps)

    def close(self) -> None:
        self.steps.append("close")


# A4, no thread


@pytest.mark.skipif(sys.platform == "win32", reason="Windows reserves a stack of any size")
@pytest.mark.skipif(sys.maxsize < 2**32, reason="needs an address space in which that stack could be asked for")
def test_when_the_system_refuses_a_thread_the_source_is_untouched() -> None:
    """A4: the constructor raises, the source has not been touched, and nothing of the attempt is left."""
    source, shared = Touchy(), StopEvent()
    threads = threading.active_count()
    before = threading.stack_size(1 << 46)  # more than there are addresses
    try:
        for _ in range(20):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                BackgroundGenerator(source, stop_event=shared)
    finally:
        threading.stack_size(before)
    assert source.steps == []
    assert threading.active_count() == threads
    shared.set()
    assert source.steps == []
    with BackgroundGenerator(source) as numbers:
        assert next(numbers) == 1


def test_when_a_thread_is_refused_in_the_middle_of_a_chain_the_outer_one_fails() -> None:
    """A4, B1: a source that makes a generator of its own and cannot, fails; its consumer hears of it."""

    def source() -> Iterator[int]:
        yield 0
        raise RuntimeError("can't start new thread") from None

    numbers = BackgroundGenerator(n for n in source())
    assert next(numbers) == 0
    with pytest.raises(RuntimeError, match="can't start new thread"):
        next(numbers)
    assert list(numbers) == []


# B1 and B4, no memory


def test_an_item_that_cannot_be_made_is_a_failure_like_any_other() -> None:
    """B1: MemoryError, of a source that asks for too much, comes after the items before it, once."""
    sizes = BackgroundGenerator(bytes(size) for size in [1, 2, sys.maxsize // 2])
    assert [len(next(sizes)), len(next(sizes))] == [1, 2]
    with pytest.raises(MemoryError):
        next(sizes)
    assert list(sizes) == []


def test_an_unbounded_recursion_in_the_source_is_a_failure_like_any_other() -> None:
    """B1: so is RecursionError, and the worker comes back from its depth."""

    def source(n: int) -> Iterator[int]:
        yield n
        yield from source(n + 1)

    numbers = BackgroundGenerator(source(0), 10)
    got: list[int] = []
    with pytest.raises(RecursionError):
        got.extend(numbers)
    assert list(numbers) == []
    assert got == sorted(got)


def test_a_next_without_stack_left_loses_nothing() -> None:
    """B4: a consumer that runs out of stack in next(), at whatever depth of its own calls, can call again."""
    numbers = BackgroundGenerator(iter(range(200)), 4)
    got: list[int] = []

    def deeper() -> None:
        with suppress(RecursionError):
            deeper()
        with suppress(RecursionError, StopIteration):
            got.append(next(numbers))

    while len(got) < 200:
        deeper()
    assert got == list(range(200))


# A1, hostile items


class HostileError(Exception):
    """Raised by an item."""


class Hostile:
    """An item that nobody may look at."""

    def refuse(self, *_: object) -> bool:
        raise HostileError

    __eq__ = __ne__ = __lt__ = __bool__ = refuse
    __hash__ = __len__ = __iter__ = __repr__ = refuse  # type: ignore[assignment]
    __index__ = __call__ = __enter__ = refuse

    def __getattribute__(self, _: str) -> object:
        raise HostileError


class HostileGoodbye(Hostile):
    """... and that raises when it is freed."""

    def __del__(self) -> None:
        raise HostileError


@pytest.mark.parametrize("max_prefetch", [1, 3, 0])
def test_hostile_items_are_ordinary_items(max_prefetch: int) -> None:
    """A1: any object is an ordinary item: it is never compared, hashed, shown, or asked whether it is true."""
    items = [Hostile() for _ in range(5)]
    numbers = BackgroundGenerator(iter(items), max_prefetch)
    got = [next(numbers) for _ in items]
    assert [id(item) for item in got] == [id(item) for item in items]
    assert next(numbers, "over") == "over"
    several = BackgroundGenerator(iter(items), max_prefetch)
    parts = [in_thread(lambda: list(several)) for _ in range(3)]
    assert sorted(id(item) for part in parts for item in part.get(timeout=LONG)) == sorted(map(id, items))


@pytest.mark.parametrize("how", ["close", "stop", "drop", "drop in a cycle"])
def test_items_that_raise_when_they_are_freed_hinder_no_ending(how: str, unraisable: list[str]) -> None:
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
    assert unraisable == ["HostileError"] * 5


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


# C2 to C4, sources that do not close


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


class Unclosable:
    """Iterators whose `close` is odd; each raises what `failures` says."""

    failures = (
        ("no function", TypeError),
        ("raises when it is looked up", HostileError),
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
            raise HostileError
        return with_argument if self.oddity == "takes an argument" else fail


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a generator that is freed is closed
@pytest.mark.parametrize(("oddity", "failure"), Unclosable.failures)
@pytest.mark.parametrize("how", ["close", "with", "drop"])
def test_a_source_that_cannot_be_closed_says_so_once_and_is_left(
    oddity: str, failure: type[BaseException], how: str, hooked: SimpleQueue[threading.ExceptHookArgs]
) -> None:
    """C3, C4: whatever goes wrong in closing it is raised by close(), or goes to the threads' hook; the worker ends."""
    numbers = BackgroundGenerator(Unclosable(oddity), 1, name="unclosable")
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


# A10, C1 and C6, sources that meddle with their own generator


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


def test_a_source_that_drops_its_own_generator_is_closed() -> None:
    """C6: the last reference may be the source's own: it finishes its step, is closed, and its thread ends."""
    threads: SimpleQueue[threading.Thread] = SimpleQueue()
    given: SimpleQueue[object] = SimpleQueue()
    log: list[str] = []

    def source() -> Iterator[int]:
        try:
            threads.put(threading.current_thread())
            mine = given.get(timeout=LONG)
            assert mine is not None
            del mine
            log.append("dropped")
            yield 0
            log.append("asked again")
        finally:
            log.append("closed")

    numbers = BackgroundGenerator(source())
    thread = threads.get(timeout=LONG)
    given.put(numbers)
    del numbers
    thread.join(LONG)
    assert not thread.is_alive()
    assert log == ["dropped", "closed"]


def test_a_source_that_keeps_its_own_generator_lets_go_at_its_end() -> None:
    """C6: a source whose frame holds its own generator ends it by ending, whoever else has gone."""
    given: SimpleQueue[BackgroundGenerator[int]] = SimpleQueue()
    threads: SimpleQueue[threading.Thread] = SimpleQueue()

    def source() -> Iterator[int]:
        threads.put(threading.current_thread())
        mine = given.get(timeout=LONG)
        yield from range(3)
        assert mine.stats.delivered == 0

    numbers = BackgroundGenerator(source(), 0)
    thread = threads.get(timeout=LONG)
    given.put(numbers)
    del numbers
    thread.join(LONG)
    assert not thread.is_alive()


def test_a_source_that_meddles_while_it_is_closed() -> None:
    """A10, C1: in its finally it may close, iterate, set, look: it cannot wait for itself, and nothing hangs."""
    answers: list[object] = []

    def source() -> Iterator[int]:
        try:
            yield 0
        finally:
            answers.append(numbers.close(None))
            try:
                answers.append(next(numbers, "over"))
            except RuntimeError:
                answers.append("RuntimeError")
            numbers.stop_event.set()
            answers.append(repr(numbers))
            numbers.__exit__(None, None, None)

    numbers = BackgroundGenerator(source(), 1)
    assert next(numbers) == 0
    assert numbers.close() is True
    assert answers == [False, "RuntimeError", "<BackgroundGenerator 'source' closed, 0/1 buffered>"]


@pytest.mark.parametrize("wait", [next, lambda numbers: numbers.next(timeout=0), list])
def test_a_source_that_iterates_its_own_generator_goes_on_after_the_error(
    wait: Callable[[BackgroundGenerator[int]], object],
) -> None:
    """A10: RuntimeError, which the source may catch: it is as usable as before."""
    made = threading.Event()

    def source() -> Iterator[int]:
        made.wait(LONG)
        for number in range(3):
            with pytest.raises(RuntimeError, match="cannot iterate its own"):
                wait(numbers)
            yield number

    numbers = BackgroundGenerator(source())
    made.set()
    assert list(numbers) == [0, 1, 2]


# E3 and C2, clocks


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
        import signal, threading, time, warnings
        from prefetch_generator import BackgroundGenerator, StopEvent

        def source():
            yield 0
            threading.Event().wait()

        warnings.simplefilter("ignore")
        numbers = BackgroundGenerator(source())
        next(numbers)
        signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.4))
        for wait in (numbers.next, StopEvent().wait, numbers.close):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            try:
                print(wait(0.2))
            except TimeoutError:
                print("TimeoutError")
    """
    out, err = python("-c", textwrap.dedent(script))
    assert (out.split(), err) == (["TimeoutError", "False", "False"], "")
