"""Contract A: iteration."""

from __future__ import annotations

import contextvars
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from prefetch_generator import BackgroundGenerator, current_stop_event

from .helpers import LONG

TASKS = Path("/proc/self/task")

# Without the GIL the worker may pull between the moment an item leaves the buffer and the moment it is counted.
UNCOUNTED = 0 if getattr(sys, "_is_gil_enabled", lambda: True)() else 1


class Item:
    """Something that can be weakly referenced."""


class Hostile:
    """An item that refuses every question an item may be asked."""

    def _refuse(self, *_: object) -> bool:
        raise AssertionError("an item was looked into")

    __eq__ = __hash__ = __bool__ = __len__ = __getattr__ = _refuse


def counted(pulled: list[int], n: int) -> Iterator[int]:
    for i in range(n):
        pulled.append(i)
        yield i


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


# A2


@pytest.mark.parametrize("max_prefetch", [1, 2, 3, 8])
def test_the_bound_is_exact(max_prefetch: int) -> None:
    """A2: pulled - delivered reaches max_prefetch after every next(), and is never more, at any pull."""
    pulls: SimpleQueue[tuple[int, int]] = SimpleQueue()
    box: SimpleQueue[BackgroundGenerator[int]] = SimpleQueue()

    def source() -> Iterator[int]:
        numbers = weakref.ref(box.get(timeout=LONG))
        for i in range(300):
            generator = numbers()
            assert generator is not None
            pulls.put((i + 1, generator.stats.delivered))
            del generator
            yield i

    numbers = BackgroundGenerator(source(), max_prefetch)
    box.put(numbers)
    ahead = [pulls.get(timeout=LONG) for _ in range(max_prefetch)]  # without one next(): that many and,
    for delivered in range(300 - max_prefetch):
        assert next(numbers) == delivered
        ahead.append(pulls.get(timeout=LONG))  # for each one taken, one more
    assert list(numbers) == list(range(300 - max_prefetch, 300))
    assert pulls.empty()
    assert max(pulled - delivered for pulled, delivered in ahead) <= max_prefetch + UNCOUNTED


# A3


@pytest.mark.parametrize("max_prefetch", [0, -1, -100])
def test_zero_or_less_means_no_bound(max_prefetch: int) -> None:
    """A3: with max_prefetch <= 0 the source runs to its end without anybody taking an item."""
    ended = threading.Event()

    def source() -> Iterator[int]:
        yield from range(5000)
        ended.set()

    numbers = BackgroundGenerator(source(), max_prefetch)
    assert ended.wait(LONG)
    assert list(numbers) == list(range(5000))


@pytest.mark.parametrize("max_prefetch", [True, False, "3", 2.0, None, [1]])
def test_what_is_not_an_integer_is_refused(max_prefetch: object) -> None:
    """A3: anything that is not an integer is a TypeError, bool too, and the source is not touched."""
    pulled: list[int] = []
    source = counted(pulled, 3)
    with pytest.raises(TypeError, match="max_prefetch must be an integer, got"):
        BackgroundGenerator(source, max_prefetch)  # type: ignore[arg-type]  # the point of the test
    assert list(source) == [0, 1, 2]


def test_whatever_counts_as_an_integer_is_taken() -> None:
    """A3: an object with __index__, such as NumPy's integers, is an integer."""

    class Two:
        def __index__(self) -> int:
            return 2

    assert list(BackgroundGenerator(range(3), Two())) == [0, 1, 2]  # type: ignore[arg-type]  # no int, and yet one


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
    with pytest.raises(TypeError, match="iterable must be an iterable, got 3"):
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


# A9


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="needs a CPU clock for each thread")
@pytest.mark.parametrize("stalled", ["producer", "consumer"])
def test_a_stalled_side_costs_no_cpu(stalled: str) -> None:
    """A9: while the other side does nothing, a waiting one uses no CPU time: nothing polls."""
    in_source, go = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 0
        in_source.set()
        if stalled == "consumer":
            assert go.wait(LONG)
        yield 1

    numbers = BackgroundGenerator(source(), 1 if stalled == "producer" else 2)
    consumer = threading.Thread(target=lambda: all_numbers.extend(numbers), daemon=True)
    all_numbers: list[int] = []
    if stalled == "consumer":
        consumer.start()
        assert in_source.wait(LONG)
        watched = consumer.ident
    else:
        watched = next(thread.ident for thread in threading.enumerate() if thread.name == "BackgroundGenerator-source")
    assert watched is not None
    clock = time.pthread_getcpuclockid(watched)
    quiet = threading.Event()
    quiet.wait(0.2)  # into the wait
    before = time.clock_gettime(clock)
    quiet.wait(0.5)
    assert time.clock_gettime(clock) - before < 0.005  # a loop that wakes every millisecond needs far more
    go.set()
    if stalled == "consumer":
        consumer.join(LONG)
        assert all_numbers == [0, 1]
    else:
        assert list(numbers) == [0, 1]


@pytest.mark.skipif(not TASKS.is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize("stalled", ["producer", "consumer"])
def test_a_stalled_side_wakes_for_nothing(stalled: str) -> None:
    """A9: a waiting side is not scheduled even once (Linux counts the switches of each thread)."""
    in_source, go = threading.Event(), threading.Event()
    ids: SimpleQueue[int] = SimpleQueue()

    def source() -> Iterator[int]:
        if stalled == "producer":
            ids.put(threading.get_native_id())
        yield 0
        in_source.set()
        assert stalled == "producer" or go.wait(LONG)
        yield 1

    def consume() -> None:
        ids.put(threading.get_native_id())
        all_numbers.extend(numbers)

    numbers = BackgroundGenerator(source(), 1 if stalled == "producer" else 2)
    all_numbers: list[int] = []
    consumer = threading.Thread(target=consume, daemon=True)
    if stalled == "consumer":
        consumer.start()
        assert in_source.wait(LONG)
    task = TASKS / str(ids.get(timeout=LONG)) / "status"
    quiet = threading.Event()
    quiet.wait(0.2)

    def switches() -> list[str]:
        return [line for line in task.read_text().splitlines() if "ctxt_switches" in line]

    before = switches()
    quiet.wait(0.5)
    assert switches() == before
    go.set()
    if stalled == "consumer":
        consumer.join(LONG)
    else:
        all_numbers.extend(numbers)
    assert all_numbers == [0, 1]


# A10


def test_a_source_that_iterates_its_own_generator_gets_a_runtime_error() -> None:
    """A10: next() inside the generator's own source raises RuntimeError, whether or not an item is buffered."""
    box: list[BackgroundGenerator[str]] = []
    filled = threading.Event()

    def source() -> Iterator[str]:
        assert filled.wait(LONG)
        yield "first"
        try:
            next(box[0])
        except RuntimeError as error:
            yield str(error)

    strings = BackgroundGenerator(source())
    box.append(strings)
    filled.set()
    first, second = strings
    assert first == "first"
    assert "its own BackgroundGenerator" in second


def test_the_worker_is_gone_when_the_end_is_seen() -> None:
    """A10: when next() has raised StopIteration no thread is left and the source is released."""
    for _ in range(50):
        before = threading.active_count()
        source = (Item() for _ in range(3))
        reference = weakref.ref(source)
        items = BackgroundGenerator(source)
        del source
        assert len(list(items)) == 3
        assert threading.active_count() == before
        assert reference() is None


def test_the_source_is_released_when_it_has_ended() -> None:
    """A10: the generator, while it is kept, does not keep the source that has ended or failed."""

    def source() -> Iterator[int]:
        yield 1
        raise KeyError

    iterator = source()
    reference = weakref.ref(iterator)
    numbers = BackgroundGenerator(iterator)
    del iterator
    assert next(numbers) == 1
    with pytest.raises(KeyError):
        next(numbers)
    gc.disable()
    try:
        assert reference() is None
    finally:
        gc.enable()


def test_a_source_knows_its_thread_only_as_long_as_it_runs() -> None:
    """A10: a consumer on a later thread, to which the system gave the same number, is no source."""
    for _ in range(20):
        numbers = BackgroundGenerator(range(3), 0)
        assert next(numbers) == 0
        assert numbers._worker.ended.wait(LONG)
        assert in_threads(1, lambda: list(numbers)) == [[1, 2]]  # noqa: B023 - it runs at once


def test_the_source_may_ask_for_its_stop_event_at_any_step() -> None:
    """A5: being on one thread, the source finds the same stop event at every step."""

    def source() -> Iterator[bool]:
        first = current_stop_event()
        yield True
        yield current_stop_event() is first

    assert all(BackgroundGenerator(source()))
