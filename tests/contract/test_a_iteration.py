"""Contract, section A: every item, in order, to exactly one `next()`, from one thread."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import operator
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    NotReadyError,
    StopEvent,
    _exit,
    current_stop_event,
)
from tests.helpers import LONG, in_thread
from tests.interrupts.machine import Every

from .support import (
    Held,
    HostileToLooks,
    Item,
    Touchy,
    an_error,
    chain,
    counted,
    is_freed,
)


class Hostile:
    """An item that refuses every question an item may be asked."""

    def _refuse(self, *_: object) -> bool:
        raise AssertionError("an item was looked into")

    __eq__ = __hash__ = __bool__ = __len__ = __getattr__ = _refuse


def in_threads(n: int, function: Callable[[], list[int]]) -> list[list[int]]:
    """Call `function` in n threads at once; return what they returned."""
    results: SimpleQueue[list[int]] = SimpleQueue()
    threads = [threading.Thread(target=lambda: results.put(function())) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert not [thread for thread in threads if thread.is_alive()]
    return [results.get_nowait() for _ in threads]


# A1


@pytest.mark.parametrize("max_prefetch", [-1, 0, 1, 2, 7, 1000])
def test_every_item_is_delivered_in_order(max_prefetch: int) -> None:
    """A1: every item of the source is delivered, in order."""
    assert list(BackgroundGenerator(range(500), max_prefetch)) == list(range(500))


def test_any_object_is_an_ordinary_item() -> None:
    """A1: None, exceptions, exception classes, a BackgroundGenerator and hostile objects are ordinary items."""
    inner = BackgroundGenerator([1])
    items = [None, StopIteration(3), KeyError, inner, Hostile(), False, (), NotImplemented, ..., iter(())]
    delivered = list(BackgroundGenerator(items))
    assert len(delivered) == len(items)
    assert all(got is item for got, item in zip(delivered, items, strict=True))
    assert list(inner) == [1]


def test_each_item_goes_to_exactly_one_next() -> None:
    """A1: the same object handed to several loops delivers each item to one of them."""
    numbers = BackgroundGenerator(range(6))
    firsts = [number for number, _ in zip(numbers, range(2), strict=False)]
    assert firsts + list(numbers) == [0, 1, *range(3, 6)]  # zip drops the third: that is zip, which took it


@pytest.mark.parametrize("max_prefetch", [1, 3, 0])
def test_hostile_items_are_ordinary_items(max_prefetch: int) -> None:
    """A1: any object is an ordinary item: it is never compared, hashed, shown, or asked whether it is true."""
    items = [HostileToLooks() for _ in range(5)]
    numbers = BackgroundGenerator(iter(items), max_prefetch)
    got = [next(numbers) for _ in items]
    assert [id(item) for item in got] == [id(item) for item in items]
    assert next(numbers, "over") == "over"
    several = BackgroundGenerator(iter(items), max_prefetch)
    parts = [in_thread(lambda: list(several)) for _ in range(3)]
    assert sorted(id(item) for part in parts for item in part.get(timeout=LONG)) == sorted(map(id, items))


# A4


def test_the_worker_starts_at_construction() -> None:
    """A4: the source runs before the first next()."""
    started = threading.Event()

    def source() -> Iterator[int]:
        started.set()
        yield 1

    numbers = BackgroundGenerator(source())
    assert started.wait(LONG)
    assert list(numbers) == [1]


def test_iter_is_called_by_the_caller() -> None:
    """A4: iter(iterable) runs in the constructor, on the caller's thread, and its exception is raised there."""
    threads = []

    class Source:
        def __init__(self, failure: Exception | None) -> None:
            self.failure = failure

        def __iter__(self) -> Iterator[int]:
            threads.append(threading.current_thread())
            if self.failure is not None:
                raise self.failure
            return iter([1])

    assert list(BackgroundGenerator(Source(None))) == [1]
    with pytest.raises(ZeroDivisionError):
        BackgroundGenerator(Source(ZeroDivisionError()))
    assert threads == [threading.current_thread()] * 2


def test_what_is_not_iterable_is_a_type_error_there_and_then() -> None:
    """A4: what is not iterable is a TypeError from the constructor."""
    with pytest.raises(TypeError, match="iterable must be an iterable, or an asynchronous one, got 3"):
        BackgroundGenerator(3)  # type: ignore[arg-type]  # the point of the test


def test_no_thread_no_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A4: if no thread can be started the constructor raises, and the source has not been touched."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pulled: list[int] = []
    source = counted(pulled, 3)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            BackgroundGenerator(source)
    assert pulled == []
    assert list(BackgroundGenerator(source)) == [0, 1, 2]


def test_a_thread_that_is_not_started_is_an_error_of_the_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A4, B6: a thread of another kind (tools put such in the place of `Thread`) whose `start` does nothing."""
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    with pytest.raises(RuntimeError, match="started no thread"):
        BackgroundGenerator(range(3))


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


def test_a_constructor_that_gets_no_thread_leaves_nothing_for_the_exit_to_wait_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A4, C7: no thread can be started: the exit does not wait for a worker that never was."""

    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    before = set(_exit.live)
    monkeypatch.setattr("_thread.start_new_thread", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        BackgroundGenerator(range(3))
    assert before == _exit.live


def test_a_thread_that_cannot_be_started_makes_no_cycle(monkeypatch: pytest.MonkeyPatch, no_collector: None) -> None:
    """A4, B3: what the constructor raises is freed as soon as the caller lets it go."""

    class Refusal(RuntimeError):  # noqa: N818 - with weak references, which a RuntimeError has not
        pass

    failures: list[weakref.ref[Refusal]] = []

    def refuse(_: threading.Thread) -> None:
        failure = Refusal()
        failures.append(weakref.ref(failure))
        try:
            raise failure
        finally:
            del failure

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with contextlib.suppress(RuntimeError):
        BackgroundGenerator(range(3))
    assert failures[0]() is None


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


# A5


def test_the_source_runs_on_one_thread_from_its_first_next_to_its_close() -> None:
    """A5: every step and the close of the source run on one thread, which is not the consumer's."""
    threads = []

    class Source:
        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            threads.append(threading.current_thread())
            return 1

        def close(self) -> None:
            threads.append(threading.current_thread())

    with BackgroundGenerator(Source(), 1) as ones:
        assert [next(ones), next(ones), next(ones)] == [1, 1, 1]
    assert len(threads) >= 4
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()


def test_the_source_runs_in_one_copy_of_the_constructors_context() -> None:
    """A5: the source sees the context of the constructor, keeps its own changes from step to step, and to itself."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")

    def source() -> Iterator[str]:
        try:
            yield variable.get()
            variable.set("the source's")
            yield variable.get()
            yield variable.get()
        finally:
            seen.append(variable.get())

    seen: list[str] = []
    variable.set("the caller's")
    words = BackgroundGenerator(source(), 1)
    variable.set("changed later")
    assert [next(words), next(words)] == ["the caller's", "the source's"]
    assert words.close()
    assert seen == ["the source's"]
    assert variable.get() == "changed later"


def test_the_source_may_ask_for_its_stop_event_at_any_step() -> None:
    """A5: being on one thread, the source finds the same stop event at every step."""

    def source() -> Iterator[bool]:
        first = current_stop_event()
        yield True
        yield current_stop_event() is first

    assert all(BackgroundGenerator(source()))


# A6


def test_neither_side_keeps_a_reference_to_a_delivered_item(no_collector: None) -> None:
    """A6: an item is freed as soon as the consumer lets it go, while the worker makes, or waits to make, the next."""
    making, go = threading.Event(), threading.Event()
    made = [Item(), Item(), Item()]  # here: without the GIL an object may wait for its maker's thread to be freed

    def source() -> Iterator[Item]:
        yield made.pop()
        making.set()
        assert go.wait(LONG)
        yield made.pop()
        yield made.pop()

    items = BackgroundGenerator(source(), 2)
    first = weakref.ref(next(items))
    assert making.wait(LONG)
    assert first() is None  # the worker is computing the next one
    go.set()
    second = weakref.ref(next(items))
    assert second() is None
    third = weakref.ref(next(items))
    assert third() is None
    assert list(items) == []


def test_the_worker_keeps_no_item_it_has_handed_over() -> None:
    """A6: while the worker computes the next item, only the buffer refers to the one before."""
    making, go = threading.Event(), threading.Event()
    made = [Item(), Item()]  # here, as above
    handed: list[weakref.ref[Item]] = []

    def source() -> Iterator[Item]:
        for _ in range(2):
            item = made.pop()
            handed.append(weakref.ref(item))
            yield item
            del item
            making.set()
            assert go.wait(LONG)

    items = BackgroundGenerator(source(), 2)
    assert making.wait(LONG)
    items.stop_event.set()  # drops the buffer, while the source is in its step
    assert handed[0]() is None
    go.set()
    assert items.close()


# A7


def test_a_return_value_arrives_as_stop_iteration_value() -> None:
    """A7: `result = yield from bg` gets what the source returned; as with a generator, once."""

    def source() -> Generator[int, None, str]:
        yield 1
        return "result"

    def consumer() -> Generator[int, None, None]:
        results.append((yield from BackgroundGenerator(source())))

    results: list[object] = []
    assert list(consumer()) == [1]
    assert results == ["result"]

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 1
    with pytest.raises(StopIteration) as first:
        next(numbers)
    with pytest.raises(StopIteration) as second:
        next(numbers)
    assert (first.value.value, second.value.value) == ("result", None)


def test_a_return_value_arrives_under_an_except(no_collector: None) -> None:
    """A7, B1: what the caller is handling changes nothing about the source's return value, and keeps it no longer."""

    def source() -> Generator[int, None, Held]:
        yield 0
        return Held()

    def outer() -> Generator[int, None, None]:
        result = yield from BackgroundGenerator(source())
        assert isinstance(result, Held)

    def take() -> None:
        assert list(outer()) == [0]
        numbers = BackgroundGenerator(source())
        assert next(numbers) == 0
        ends = []
        try:
            next(numbers)
        except StopIteration as end:
            ends.append((type(end.value), [type(error) for error in chain(end)]))
        assert ends == [(Held, [StopIteration, KeyError])]

    an_error(take)
    assert is_freed()


# A8


@pytest.mark.parametrize("max_prefetch", [1, 3, 0])
def test_several_threads_may_iterate_the_same_object(max_prefetch: int) -> None:
    """A8: each item goes to exactly one of the threads, each sees them in order, and all of them end."""
    numbers = BackgroundGenerator(iter(range(3000)), max_prefetch)
    taken = in_threads(5, lambda: list(numbers))
    assert sorted(number for part in taken for number in part) == list(range(3000))
    assert all(part == sorted(part) for part in taken)


def test_all_waiting_consumers_end() -> None:
    """A8: consumers that wait when the source ends, without one more item, end."""
    waiting = threading.Barrier(5)

    def source() -> Iterator[int]:
        waiting.wait(LONG)
        yield from ()

    numbers = BackgroundGenerator(source())

    def consume() -> list[int]:
        waiting.wait(LONG)
        return list(numbers)

    assert in_threads(4, consume) == [[]] * 4


def test_what_several_consumers_take_is_counted_exactly() -> None:
    """A8, E4: `Stats.delivered` and the length hint miss nothing that four threads take at once."""
    numbers = BackgroundGenerator(range(20_000), 0)
    start = threading.Barrier(4)

    def take() -> list[int]:
        start.wait(LONG)
        return [next(numbers) for _ in range(4_500)]

    taken = [in_thread(take) for _ in range(4)]
    items = {item for some in taken for item in some.get(timeout=LONG)}
    assert items == set(range(18_000))
    assert numbers.stats.delivered == 18_000
    assert operator.length_hint(numbers) == 2_000
    assert len(list(numbers)) == 2_000
    assert numbers.stats.delivered == 20_000


def test_a_consumer_may_come_before_the_worker_has_begun() -> None:
    """A4: the constructor has started the thread; when that runs its first line is another matter."""
    reached, go = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        reached.set()
        go.wait(LONG)

    with Every("line", hold).on_new_threads():
        numbers = BackgroundGenerator(range(3))
        assert reached.wait(LONG)
    try:
        with pytest.raises(NotReadyError):
            numbers.next(0)
    finally:
        go.set()
    assert list(numbers) == [0, 1, 2]


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
