"""Contract, section A: every item, in order, within the bound, to exactly one `next()`."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import inspect
import itertools
import operator
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    BackgroundIterable,
    NotReadyError,
    StopEvent,
    _channel,
    _exit,
    current_stop_event,
)
from prefetch_generator._bell import Bell
from prefetch_generator._channel import Channel
from prefetch_generator._stop import WorkerThread, worker_thread
from tests.helpers import GIL, LONG, ended, in_thread, when_asleep

from .support import (
    Announcing,
    Held,
    HostileToLooks,
    Item,
    Touchy,
    an_error,
    chain,
    is_freed,
)

TASKS = Path("/proc/self/task")


# Without the GIL the worker may pull between the moment an item leaves the buffer and the moment it is counted.
UNCOUNTED = 0 if GIL else 1


class Hostile:
    """An item that refuses every question an item may be asked."""

    def _refuse(self, *_: object) -> bool:
        raise AssertionError("an item was looked into")

    __eq__ = __hash__ = __bool__ = __len__ = __getattr__ = _refuse


def counted(pulled: list[int], n: int) -> Iterator[int]:
    for i in range(n):
        pulled.append(i)
        yield i


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


Numbers = Iterator[int]


CIRCLE = "waits, through others, for its own"


class Ring:
    """Generators whose sources may iterate each other; none begins before all are made."""

    def __init__(self, *sources: Callable[[], Numbers], depth: int = 1) -> None:
        self.made = threading.Event()
        self.closed: SimpleQueue[threading.Thread] = SimpleQueue()
        self.generators = [
            BackgroundGenerator(self._run(source), depth, name=f"number {n}") for n, source in enumerate(sources)
        ]

    def _run(self, source: Callable[[], Numbers]) -> Numbers:
        try:
            assert self.made.wait(LONG)
            yield from source()
        finally:
            self.closed.put(threading.current_thread())

    def __getitem__(self, n: int) -> BackgroundGenerator[int]:
        return self.generators[n % len(self.generators)]

    def outcomes(self) -> list[str]:
        """Let them begin, consume them all at once; return what each ended with, an error's text or nothing."""
        self.made.set()
        answers = [in_thread(partial(outcome, numbers)) for numbers in self.generators]
        return [answer.get(timeout=LONG) for answer in answers]

    def all_ended(self) -> bool:
        return all(ended(self.closed) for _ in self.generators)


def outcome(numbers: Numbers) -> str:
    try:
        for _ in numbers:
            pass
    except RuntimeError as error:
        return str(error)
    return ""


def await_sleeper(numbers: BackgroundGenerator[int], number: int = 1) -> None:
    """Return when so many sleep in `next(numbers)`, or are about to."""
    deadline = time.monotonic() + LONG
    while len(numbers._channel.bells) < number:  # no event tells: nothing happens any more
        assert time.monotonic() < deadline
        time.sleep(0.001)


def by_a_loop(numbers: Numbers) -> Numbers:
    for number in numbers:  # noqa: UP028 - that is the other one
        yield number


def by_yield_from(numbers: Numbers) -> Numbers:
    yield from numbers


class Eager(SimpleQueue[object]):
    """A queue to sleep on, in which nobody has to sleep: what would sleep is an error."""

    def get(self, block: bool = True, timeout: float | None = None) -> object:
        return super().get(block=False)


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


@pytest.mark.parametrize("cancelled", [False, True], ids=["room", "cancelled"])
def test_a_worker_does_not_sleep_when_there_is_something_to_do(cancelled: bool) -> None:
    """A9, C1: room that came, or a stop, between its look and its announcement: the worker sees it."""
    channel = Channel[int](1, object)
    channel.wakeups = Eager()
    if cancelled:
        channel.items.put(0)
        channel.cancelled = True
    channel._park()
    assert channel.wakeups.qsize() == 0


def test_a_consumer_is_woken_once() -> None:
    """A9: who has been woken is not woken again, for nothing."""
    rung = []

    class Counted(Bell):
        def ring(self, _: object = None) -> None:
            rung.append(self)

    channel = Channel[int](1, object)
    bell = Counted()
    channel.bells.add(bell)
    channel.ring()
    channel.ring()
    assert rung == [bell]


@pytest.mark.parametrize(("change", "awake"), [("item", True), ("end", True), ("stop", True), ("nothing", False)])
def test_a_consumer_does_not_sleep_when_there_is_something_to_do(change: str, awake: bool) -> None:
    """A9: what came between its look and its announcement, an item, the end or a stop: the consumer sees it."""
    channel = Channel[int](2, object)
    if change == "item":
        channel.items.put(1)
    elif change == "end":
        channel.over = True
    elif change == "stop":
        channel.cancelled = True
    assert channel.wait(channel.has_news, 0.0) is awake


def test_a_worker_is_woken_once_however_many_consumers_answer() -> None:
    """A9: a worker's call for help is answered by one token, so that it wakes for nothing later."""
    channel = Channel[int](1, object)
    channel.items.put(0)

    class Answered(SimpleQueue[object]):
        def get(self, block: bool = True, timeout: float | None = None) -> object:
            for _ in range(2):
                for _ in channel.wake_worker:
                    break
            return super().get(block=False)

    channel.wakeups = Answered()
    channel._park()
    assert channel.wakeups.qsize() == 0


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


@pytest.mark.parametrize("depth", [1, 2, 0])
@pytest.mark.parametrize("given", [0, 1])
@pytest.mark.parametrize("how", [by_a_loop, by_yield_from])
@pytest.mark.parametrize("size", [2, 3])
def test_a_circle_of_sources_is_an_error(size: int, how: Callable[[Numbers], Numbers], given: int, depth: int) -> None:
    """A10: sources that iterate each other's generators get a RuntimeError, not a deadlock, and all of them end."""

    def source(n: int) -> Numbers:
        yield from range(given)
        yield from how(ring[n + 1])

    ring = Ring(*(partial(source, n) for n in range(size)), depth=depth)
    told = ring.outcomes()
    assert [text for text in told if CIRCLE in text]
    assert {text for text in told if CIRCLE not in text} <= {""}
    assert ring.all_ended()


@pytest.mark.parametrize("size", [2, 4])
def test_whoever_comes_last_into_a_circle_is_told(size: int) -> None:
    """A10: all the others sleep already; the error says what happened and is one that a source may catch."""
    closing = threading.Event()

    def sleeper(n: int) -> Numbers:
        yield from ring[n + 1]

    def last() -> Numbers:
        assert closing.wait(LONG)
        with pytest.raises(RuntimeError, match=CIRCLE):
            next(ring[0])
        yield 42

    ring = Ring(*(partial(sleeper, n) for n in range(size - 1)), last)
    ring.made.set()
    for n in range(1, size):
        await_sleeper(ring[n])
    closing.set()
    assert next(ring[0]) == 42  # through all of them
    assert outcome(ring[0]) == ""
    assert ring.all_ended()


def test_a_chain_is_no_circle() -> None:
    """A10: sources that wait one for another, the last of them for something else, are not told anything."""
    gate: SimpleQueue[int] = SimpleQueue()

    def bottom() -> Numbers:
        for _ in range(3):
            yield gate.get(timeout=LONG)

    ring = Ring(lambda: ring[1], lambda: ring[2], lambda: (number for number in ring[3]), bottom)
    ring.made.set()
    for number in range(3):
        for inner in (1, 2, 3):
            await_sleeper(ring[inner])
        gate.put(number)
        assert next(ring[0]) == number
    assert outcome(ring[0]) == ""
    assert ring.all_ended()


def test_a_diamond_is_no_circle() -> None:
    """A10: two sources may wait for one generator, and a third for both."""
    gate: SimpleQueue[int] = SimpleQueue()

    def bottom() -> Numbers:
        for _ in range(4):
            yield gate.get(timeout=LONG)

    def top() -> Numbers:
        for pair in zip(ring[1], ring[2], strict=False):
            yield from pair

    ring = Ring(top, lambda: ring[3], lambda: ring[3], bottom)
    ring.made.set()
    await_sleeper(ring[1])
    await_sleeper(ring[3], 2)
    for number in range(4):
        gate.put(number)
    # Which of the two gets how many is anybody's guess; the top ends with the one that gets fewer.
    assert outcome(ring[0]) == ""
    assert [outcome(ring[1]), outcome(ring[2])] == ["", ""]
    assert ring.all_ended()


def test_a_source_that_sleeps_with_items_ready_makes_no_circle() -> None:
    """A10: what it has given can be taken, though it waits for the one that takes it."""

    def first() -> Numbers:
        await_sleeper(ring[0])
        for _ in range(3):
            yield next(ring[1]) * 10

    def second() -> Numbers:
        yield from (1, 2, 3)
        yield from ring[0]

    ring = Ring(first, second, depth=5)
    ring.made.set()
    assert ring[0]._worker.ended.wait(LONG)
    assert list(ring[1]) == [10, 20, 30]
    assert ring.all_ended()


def test_what_changes_while_a_source_looks_for_a_circle_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A10: an item that is given after the look at the buffer, by a source that sleeps then, is no circle."""
    looking = threading.Event()

    def first() -> Numbers:
        yield next(ring[1]) * 10

    def second() -> Numbers:
        assert looking.wait(LONG)
        yield 1
        yield next(ring[0])

    def slow_look(thread: int) -> WorkerThread | None:
        # 1. The first source sees that the buffer is empty, and asks what the second one waits for.
        me = threading.get_ident()
        if thread != me and me == ring[0]._channel.worker_ident and not looking.is_set():
            looking.set()  # 2. The second one gives an item, and sleeps.
            await_sleeper(ring[0])
        return worker_thread(thread)  # 3. It waits for the first.

    monkeypatch.setattr(_channel, "worker_thread", slow_look)
    ring = Ring(first, second, depth=2)
    ring.made.set()
    assert ring[0]._worker.ended.wait(LONG)
    assert list(ring[1]) == [10]
    assert looking.is_set()
    assert ring.all_ended()


@pytest.mark.parametrize("first", ["patient", "impatient"])
def test_a_wait_with_a_timeout_in_a_circle_is_no_error(first: str) -> None:
    """A10, E3: it times out with NotReadyError, and its source may go on and give what the other waits for."""

    def patient() -> Numbers:
        if first == "impatient":
            await_sleeper(ring[0])  # there, with a timeout
        yield from ring[1]

    def impatient() -> Numbers:
        if first == "patient":
            await_sleeper(ring[1])
        with pytest.raises(NotReadyError):
            ring[0].next(0.2)
        yield from (1, 2)

    ring = Ring(patient, impatient, depth=5)
    ring.made.set()
    assert ring[0]._worker.ended.wait(LONG)
    assert list(ring[0]) == [1, 2]
    assert ring.all_ended()


def test_two_sources_with_timeouts_are_no_circle() -> None:
    """A10, E3: where nobody waits for ever, all go on."""

    def source(n: int) -> Numbers:
        with pytest.raises(NotReadyError):
            ring[n + 1].next(0.01)
        both.wait(LONG)
        yield n

    both = threading.Barrier(2)
    ring = Ring(lambda: source(0), lambda: source(1))
    ring.made.set()
    assert [list(ring[0]), list(ring[1])] == [[0], [1]]
    assert ring.all_ended()


def test_ping_pong_is_no_circle() -> None:
    """A10: two sources that take turns, each next item made of the other's last, are never told that they wait."""
    turns = 200

    def ping() -> Numbers:
        for _ in range(turns):
            yield next(ring[1])

    def pong() -> Numbers:
        yield 0
        for _ in range(turns - 1):
            yield next(ring[0]) + 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for depth in (1, 2, 0) * 10:
            ring = Ring(ping, pong, depth=depth)
            ring.made.set()
            assert ring[1]._worker.ended.wait(LONG)
            assert list(ring[0]) == [turns - 1]
            assert list(ring[1]) == []
            assert ring.all_ended()
    finally:
        sys.setswitchinterval(before)


def test_a_worker_that_was_told_to_stop_is_no_part_of_a_circle() -> None:
    """A10, C8: it will see GeneratorExit at its wait, and wait no longer: no false alarm."""
    passes = itertools.count()
    inside, go, waiting = threading.Event(), threading.Event(), threading.Event()
    answers: SimpleQueue[object] = SimpleQueue()

    class Twice(Iterable[int]):
        def __iter__(self) -> Iterator[int]:
            return self.first() if next(passes) == 0 else iter([1, 2, 3])

        def first(self) -> Iterator[int]:
            inside.set()
            with when_asleep(waiting.set):
                yield next(other)

    numbers = BackgroundIterable(Twice())

    def source() -> Iterator[int]:
        go.wait(LONG)
        iteration = iter(numbers)
        assert inside.wait(LONG)
        assert waiting.wait(LONG)
        del iteration  # tells its worker, which waits for this one, to stop
        try:
            answers.put(list(numbers))
        except RuntimeError as error:
            answers.put(error)
        yield 0

    other = BackgroundGenerator(source())
    go.set()
    assert answers.get(timeout=LONG) == [1, 2, 3]
    assert other.close(LONG) is True


def test_a_source_that_is_stopped_while_it_looks_for_a_circle_sees_generator_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A10, C8: the stop that comes as the circle is found is what it hears of."""
    awaited_by = _channel._awaited_by
    log: SimpleQueue[str] = SimpleQueue()

    def stopped_at_last(thread: int) -> object:
        here = worker_thread(thread)
        if here is not None and thread == threading.get_ident():
            here.stop.set()
        return awaited_by(thread)

    monkeypatch.setattr(_channel, "_awaited_by", stopped_at_last)

    def source(n: int) -> Numbers:
        try:
            yield from ring[n + 1]
        except BaseException as error:
            log.put(type(error).__name__)
            raise

    ring = Ring(lambda: source(0), lambda: source(1))
    ring.made.set()
    assert log.get(timeout=LONG) == "GeneratorExit"
    for number in (0, 1):
        assert ring[number].close(LONG) is True
    assert ring.all_ended()


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


def test_a_source_that_iterates_its_own_generator_after_its_worker_has_slept() -> None:
    """A10: it gets a RuntimeError, and no item that is buffered, though its worker has waited for room in between."""
    go: SimpleQueue[None] = SimpleQueue()
    answer: SimpleQueue[object] = SimpleQueue()
    own: list[BackgroundGenerator[int]] = []

    def source() -> Iterator[int]:
        go.get(timeout=LONG)
        yield 0
        yield 1
        try:
            answer.put(next(own[0]))
        except RuntimeError as error:
            answer.put(str(error))

    numbers = BackgroundGenerator(source(), max_prefetch=2)
    own.append(numbers)
    wake = Announcing()
    numbers._channel.wakeups = wake
    go.put(None)
    wake.asleep.get(timeout=LONG)
    assert next(numbers) == 0
    assert answer.get(timeout=LONG) == "a source cannot iterate its own BackgroundGenerator: it would wait for itself"
    assert list(numbers) == [1]
    own.clear()


def test_the_source_is_released_before_anybody_can_see_the_end() -> None:
    """A10: when the end is seen, the source has been released."""
    go: SimpleQueue[None] = SimpleQueue()
    over: list[bool] = []

    def empty() -> Iterator[int]:
        go.get(timeout=LONG)
        yield from ()

    source = empty()
    released = weakref.ref(source, lambda _: over.append(channel.over))
    numbers = BackgroundGenerator(source)
    channel = numbers._channel
    del source
    go.put(None)
    assert list(numbers) == []
    assert released() is None
    assert over == [False]


def test_a_worker_that_is_about_to_sleep_cannot_wait_for_itself() -> None:
    """A10: a RuntimeError and no deadlock, also for a finalizer that runs on the worker between two steps."""
    channel = Channel[int](1, object)
    channel.worker_ident = threading.get_ident()
    with pytest.raises(RuntimeError, match="it would wait for itself"):
        channel.wait(channel.has_news, 0.0)


def test_a_thread_does_not_wait_for_its_own_end() -> None:
    """A10: a finalizer that runs on the worker after its last line may see the end; it cannot wait for its thread."""
    numbers = BackgroundGenerator(range(0))
    assert numbers.close()
    numbers._worker.thread = threading.current_thread()
    numbers._worker.join()
