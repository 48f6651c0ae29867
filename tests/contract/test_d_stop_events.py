"""Contract, section D: stop events, and what is called when they are set."""

from __future__ import annotations

import _thread
import gc
import itertools
import signal
import socket
import sys
import textwrap
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    StopEvent,
    background,
    current_stop_event,
)
from prefetch_generator._channel import Channel
from prefetch_generator._stop import own_event
from tests.helpers import (
    LONG,
    PACKAGE,
    ended,
    in_thread,
    interrupted,
    posix,
    python,
    when_asleep,
    when_time_is_up,
)
from tests.interrupts.machine import At, Strike, one_after_the_other

from .support import run_program


@contextmanager
def at_line(number: int, action: Callable[[], object]) -> Iterator[None]:
    """Do `action` before the line `number` (counted from 0) of the library that this thread executes."""
    lines = itertools.count()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line" and next(lines) == number:
            action()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


class SetsWhenFreed:
    """Sets an event in its finalizer, as whatever holds a generator may."""

    def __init__(self, event: StopEvent) -> None:
        self.event = event

    def __del__(self) -> None:
        self.event.set()


def until_stopped(closed: SimpleQueue[threading.Thread]) -> Iterator[int]:
    """Give 0, wait for the stop, and go on counting until closed."""
    try:
        yield 0
        current_stop_event().wait(LONG)
        yield from itertools.count(1)
    finally:
        closed.put(threading.current_thread())


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the types of what goes to `sys.unraisablehook`, and where it was raised."""
    calls: list[str] = []

    def note(args: Any) -> None:
        frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(args.exc_traceback)]
        calls.append(f"{args.exc_type.__name__} in {frames[-1]}")

    monkeypatch.setattr(sys, "unraisablehook", note)
    return calls


# D1


def test_a_stop_event_is_one_shot() -> None:
    """D1: once set it stays set, and can be set again; there is no clear()."""
    event = StopEvent()
    assert event.is_set() is False
    for _ in range(2):
        event.set()
        assert event.is_set() is True
    assert not hasattr(event, "clear")


def test_wait_tells_whether_the_event_was_set() -> None:
    """D1: wait(timeout=None) -> bool: at once when it is set, False when the time ran out."""
    event = StopEvent()
    assert event.wait(0) is False
    started = time.monotonic()
    assert event.wait(timeout=0.05) is False
    assert time.monotonic() - started >= 0.05
    event.set()
    assert [event.wait(), event.wait(0), event.wait(LONG), event.wait(timeout=None)] == [True] * 4


@pytest.mark.parametrize("timeout", [None, 60, 60.0])
def test_set_wakes_every_waiter(timeout: float | None) -> None:
    """D1: as threading.Event: set() wakes all who wait."""
    event = StopEvent()
    asleep: SimpleQueue[None] = SimpleQueue()

    def wait() -> bool:
        with when_asleep(lambda: asleep.put(None)):
            return event.wait(timeout)

    waiters = [in_thread(wait) for _ in range(4)]
    for _ in waiters:
        asleep.get(timeout=LONG)
    event.set()
    assert [waiter.get(timeout=LONG) for waiter in waiters] == [True] * 4


@pytest.mark.parametrize("timeout", [None, 60])
def test_set_is_safe_in_a_finalizer(timeout: float | None) -> None:
    """D1: set() and is_set() are safe in a finalizer, which may run in the middle of the same event's wait()."""
    for line in itertools.count():
        event = StopEvent()
        box = [SetsWhenFreed(event)]
        late: list[bool] = []

        def wake(box: list[SetsWhenFreed] = box, late: list[bool] = late) -> None:
            late.extend(map(bool, box))
            box.clear()

        with at_line(line, box.clear), when_asleep(wake):
            assert event.wait(timeout) is True
        if late:  # that line comes after the sleep
            break
    assert line > 5


def test_set_is_safe_in_a_finalizer_inside_set_and_is_set() -> None:
    """D1: ... or in the middle of its set() and is_set(), on whatever thread; everybody is told all the same."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    for line in itertools.count():
        event = StopEvent()
        numbers = BackgroundGenerator(until_stopped(closed), stop_event=event)
        assert next(numbers) == 0
        box = [SetsWhenFreed(event)]
        with at_line(line, box.clear):
            event.is_set()
            event.set()
            assert event.is_set()
        assert event.wait(0) is True
        assert next(numbers, "over") == "over"
        assert ended(closed)
        if box:
            break
    assert line > 5


def test_set_wakes_a_waiter_that_comes_while_it_is_at_work() -> None:
    """D1: whatever line set() is at when somebody begins to wait, and falls asleep."""
    for line in itertools.count():
        event = StopEvent()
        settled: SimpleQueue[None] = SimpleQueue()  # the waiter is asleep, or back
        waiters: list[SimpleQueue[bool]] = []

        def wait(event: StopEvent = event, settled: SimpleQueue[None] = settled) -> bool:
            with when_asleep(lambda: settled.put(None)):
                answer = event.wait()
            settled.put(None)
            return answer

        def begin(
            wait: Callable[[], bool] = wait,
            settled: SimpleQueue[None] = settled,
            waiters: list[SimpleQueue[bool]] = waiters,
        ) -> None:
            waiters.append(in_thread(wait))
            settled.get(timeout=LONG)

        with at_line(line, begin):
            event.set()
        if not waiters:
            break
        assert waiters[0].get(timeout=LONG) is True
    assert line > 2


@posix
def test_set_is_safe_in_a_signal_handler() -> None:
    """D1: ... and in a signal handler, which may run in the middle of the same event's set() and wait()."""
    handled: list[bool] = []
    event = StopEvent()

    def handler(*_: object) -> None:
        handled.append(event.is_set())
        event.set()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        for line in itertools.count():
            event = StopEvent()
            handled.clear()
            with at_line(line, lambda: signal.raise_signal(signal.SIGUSR1)):
                event.wait(0)
                event.set()
                assert event.wait() is True
            if not handled:
                break
        assert line > 10
    finally:
        signal.signal(signal.SIGUSR1, before)


@posix
def test_set_in_a_signal_handler_wakes_the_wait_it_interrupts() -> None:
    """D1: ... a wait() that is asleep too."""
    event = StopEvent()
    with interrupted(event.set) as asleep, when_asleep(asleep):
        assert event.wait() is True


@posix
@pytest.mark.parametrize("action", ["shared.set()", "numbers.stop_event.set()", "numbers.close()"])
def test_sigterm_whose_handler_stops_ends_the_loop(action: str) -> None:
    """D1, D2: a handler that sets an event, or closes, ends the loop it interrupts as if the data had ended."""
    script = f"""
        def handler(*_):
            handled.set()
            {action}

        shared = StopEvent()
        signal.signal(signal.SIGTERM, handler)
        numbers = BackgroundGenerator(waiting(), stop_event=shared)
        with when_asleep(lambda: kill(signal.SIGTERM)):
            say(list(numbers))
        say(numbers.close())
    """
    out, err = run_program(script)
    assert (sorted(out), err) == (["True", "[0]", "source closed"], "")


def test_a_wait_whose_time_is_up_as_the_event_is_set_says_that_it_is_set() -> None:
    """D1: wait() -> bool, as `threading.Event` has it: what it returns is the state of the event at its end."""
    event = StopEvent()
    with when_time_is_up(event.set):
        assert event.wait(0) is True


def test_a_wait_leaves_nothing_behind_at_the_event() -> None:
    """D1, A6: an event that is waited for again and again holds nothing of the waits that are over."""
    event = StopEvent()
    assert event.wait(0) is False
    assert not event._listeners


# D2


def test_every_generator_that_was_given_the_event_ends_at_once() -> None:
    """D2: set by anybody, it ends every generator that was given it: waiting next() too, sources in a step or not."""
    event, go = StopEvent(), threading.Event()
    asleep: SimpleQueue[None] = SimpleQueue()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()

    def source() -> Iterator[int]:
        try:
            yield 0
            go.wait()
            yield 1
        finally:
            closed.put(threading.current_thread())

    def consume(numbers: BackgroundGenerator[int]) -> list[int]:
        with when_asleep(lambda: asleep.put(None)):
            return list(numbers)

    generators = [BackgroundGenerator(source(), stop_event=event) for _ in range(3)]
    try:
        assert [next(numbers) for numbers in generators] == [0, 0, 0]
        consumers = [in_thread(partial(consume, numbers)) for numbers in generators]
        for _ in consumers:
            asleep.get(timeout=LONG)
        in_thread(event.set).get(timeout=LONG)
        assert [consumer.get(timeout=LONG) for consumer in consumers] == [[], [], []]
        assert closed.empty()
    finally:
        go.set()
    assert all(ended(closed) for _ in generators)


def test_it_ends_them_as_if_closed() -> None:
    """D2: as if closed: nothing buffered is delivered, its own event is set, the source is closed by its worker."""
    event = StopEvent()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    numbers = BackgroundGenerator(until_stopped(closed), 8, stop_event=event)
    assert next(numbers) == 0
    assert not numbers.stop_event.is_set()
    event.set()
    assert numbers.stop_event.is_set()
    assert numbers.stats.buffered == 0
    assert list(numbers) == []
    thread = closed.get(timeout=LONG)
    assert thread.name == "BackgroundGenerator-until_stopped"
    thread.join(LONG)
    assert numbers.close() is True


def test_an_event_that_is_already_set_ends_it_from_the_start() -> None:
    """D2: also one that was set before: nothing is delivered."""
    event = StopEvent()
    event.set()
    for _ in range(20):
        numbers = BackgroundGenerator(itertools.count(), stop_event=event)
        assert list(numbers) == []
        assert numbers.stop_event.is_set()
        assert numbers.close() is True


def test_closing_one_does_not_set_the_shared_event() -> None:
    """D2: closing one of them, or dropping it, leaves the event and the others alone."""
    event = StopEvent()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    one, other, dropped = (BackgroundGenerator(until_stopped(closed), stop_event=event) for _ in range(3))
    assert [next(one), next(other), next(dropped)] == [0, 0, 0]
    assert one.close() is True
    del dropped
    assert ended(closed)
    assert ended(closed)
    assert [event.is_set(), one.stop_event.is_set(), other.stop_event.is_set()] == [False, True, False]
    event.set()
    assert other.close() is True
    assert ended(closed)


def test_a_generators_own_event_can_be_shared_and_set() -> None:
    """D2: a generator's own stop event is one to set, or to hand in to others, too."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    first = BackgroundGenerator(until_stopped(closed))
    second = BackgroundGenerator(until_stopped(closed), stop_event=first.stop_event)
    third = BackgroundGenerator(until_stopped(closed), stop_event=second.stop_event)
    assert [next(first), next(second), next(third)] == [0, 0, 0]
    second.stop_event.set()
    assert [list(second), list(third)] == [[], []]
    assert not first.stop_event.is_set()
    assert ended(closed)
    assert ended(closed)
    fourth = BackgroundGenerator(until_stopped(closed), stop_event=first.stop_event)
    assert next(fourth) == 0
    assert first.close() is True
    assert list(fourth) == []
    assert ended(closed)
    assert ended(closed)


def test_a_source_may_set_the_event() -> None:
    """D2: others may set it: a source of one of them is among those others."""
    event = StopEvent()

    def source() -> Iterator[int]:
        yield 0
        event.set()
        yield 1

    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    other = BackgroundGenerator(until_stopped(closed), stop_event=event)
    assert next(other) == 0
    numbers = BackgroundGenerator(source(), 1, stop_event=event)
    assert list(numbers) == [0]
    assert list(other) == []
    assert ended(closed)


def test_a_shared_event_keeps_no_generator_alive() -> None:
    """D2: an event only ends generators: one that is dropped is freed and stopped though the event lives on."""
    event = StopEvent()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    numbers = BackgroundGenerator(until_stopped(closed), stop_event=event)
    assert next(numbers) == 0
    own = weakref.ref(numbers.stop_event)
    del numbers
    assert ended(closed)
    gc.collect()
    assert own() is None
    assert not event.is_set()


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


# D3


def test_inside_a_source_it_is_the_workers_stop_event() -> None:
    """D3: inside a source, in its steps and while it is being closed, it is its own generator's stop event."""
    seen: list[StopEvent] = []

    def source() -> Iterator[int]:
        try:
            seen.append(current_stop_event())
            yield from itertools.count()
        finally:
            seen.append(current_stop_event())

    first, second = BackgroundGenerator(source(), 1), BackgroundGenerator(source(), 1)
    assert [next(first), next(second)] == [0, 0]
    own = [first.stop_event, second.stop_event]
    assert [first.close(), second.close()] == [True, True]
    assert own[0] is not own[1]
    assert [sum(event is mine for event in seen) for mine in own] == [2, 2]


def test_inside_a_source_of_a_source_it_is_the_inner_workers() -> None:
    """D3: in a chain, each source sees the event of its own worker."""
    seen: list[bool] = []

    def inner(around: StopEvent) -> Iterator[int]:
        seen.append(current_stop_event() is around)
        yield 0

    def outer() -> Iterator[int]:
        around = current_stop_event()
        yield from BackgroundGenerator(inner(around))
        seen.append(current_stop_event() is around)

    assert list(BackgroundGenerator(outer())) == [0]
    assert seen == [False, True]


def test_elsewhere_it_is_one_that_is_never_set() -> None:
    """D3: elsewhere, in a helper thread of a stopped source too, it is one that is never set, whoever tries."""
    seen: list[bool] = []

    def source() -> Iterator[int]:
        yield 0
        seen.append(current_stop_event().wait(LONG))
        seen.append(in_thread(lambda: current_stop_event().is_set()).get(timeout=LONG))

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 0
    assert numbers.close() is True
    assert seen == [True, False]
    current_stop_event().set()
    assert current_stop_event().is_set() is False
    assert current_stop_event().wait(0) is False


def test_a_source_that_waits_with_it_is_cancelled_at_once() -> None:
    """D3: the contract's own example: it stops in the middle of its wait."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    asleep = threading.Event()

    @background
    def poll(url: str) -> Iterator[str]:
        stop = current_stop_event()
        try:
            yield url
            with when_asleep(asleep.set):
                while not stop.wait(3600):
                    yield "too late"
        finally:
            closed.put(threading.current_thread())

    pages = poll("address")
    assert next(pages) == "address"
    assert asleep.wait(LONG)
    assert pages.close() is True
    assert ended(closed)


# D4


def test_a_callback_is_called_once_on_the_thread_that_sets_the_event() -> None:
    """D4: it is called once when the event is set within the block, on whichever thread sets it, however often."""
    event = StopEvent()
    calls: list[tuple[int, bool]] = []

    def set_and_tell() -> int:
        event.set()
        event.set()
        return threading.get_ident()

    with event.on_set(lambda: calls.append((threading.get_ident(), event.is_set()))):
        assert calls == []
        setter = in_thread(set_and_tell).get(timeout=LONG)
        event.set()
        assert calls == [(setter, True)]
    assert calls == [(setter, True)]


def test_a_callback_is_called_at_once_if_the_event_is_set_already() -> None:
    """D4: at once, if it is set already, by itself or by another that it listens to; set again, not again."""
    shared = StopEvent()
    numbers = BackgroundGenerator(itertools.count(), 1, stop_event=shared)
    shared.set()
    for event in (shared, numbers.stop_event):
        calls: list[int] = []
        with event.on_set(lambda calls=calls: calls.append(threading.get_ident())):  # type: ignore[misc]  # a default
            assert calls == [threading.get_ident()]
            event.set()
        assert len(calls) == 1
    assert numbers.close() is True


@pytest.mark.parametrize("how", ["its end", "an exception", "closing the source"])
def test_a_callback_is_never_begun_after_the_block_has_been_left(how: str) -> None:
    """D4: whichever way the block was left, the event that is set afterwards does not call it."""
    event = StopEvent()
    calls: list[None] = []

    def source() -> Iterator[None]:
        with event.on_set(lambda: calls.append(None)):
            yield None
            if how == "an exception":
                raise KeyError

    steps = source()
    next(steps)
    if how == "closing the source":
        del steps
    else:
        with pytest.raises(KeyError if how == "an exception" else StopIteration):
            next(steps)
    event.set()
    assert calls == []


def test_a_callback_is_not_begun_by_a_set_that_was_at_work_when_the_block_was_left() -> None:
    """D4: nor does set() call what it found hung, once that block has been left: of two that end each other's, one."""
    event = StopEvent()
    calls: list[int] = []

    def callback(number: int) -> None:
        calls.append(number)
        blocks[1 - number].__exit__(None, None, None)

    blocks = [event.on_set(partial(callback, number)) for number in (0, 1)]
    for block in blocks:
        block.__enter__()
    event.set()
    assert len(calls) == 1
    blocks[calls[0]].__exit__(None, None, None)


def test_a_callback_is_not_begun_if_the_block_is_left_at_any_line_of_set() -> None:
    """D4: what another thread has left, between two steps of the one that sets, is not begun any more."""
    for number in itertools.count():
        event = StopEvent()
        calls: list[str] = []
        block = event.on_set(partial(calls.append, "begun"))
        block.__enter__()

        def leave(calls: list[str] = calls, block: AbstractContextManager[None] = block) -> None:
            calls.append("left")
            block.__exit__(None, None, None)

        with at_line(number, leave):
            event.set()
        assert calls in (["left"], ["begun", "left"], ["begun"])
        if "left" not in calls:
            break
    assert number > 10


def test_a_callback_that_is_running_is_not_waited_for() -> None:
    """D4: one that is running when the block is left is not waited for."""
    event = StopEvent()
    begun, go, over = threading.Event(), threading.Event(), threading.Event()

    def callback() -> None:
        begun.set()
        if go.wait(LONG):
            over.set()

    with event.on_set(callback):
        setter = in_thread(event.set)
        assert begun.wait(LONG)
    assert not over.is_set()
    go.set()
    setter.get(timeout=LONG)
    assert over.is_set()


def test_several_that_set_the_event_call_it_once() -> None:
    """D4: called once, also if another thread sets the event while set() is at any line; and nobody waits for it."""
    for line in itertools.count():
        event = StopEvent()
        calls: list[None] = []
        others: list[None] = []

        def set_too(event: StopEvent = event, others: list[None] = others) -> None:
            others.append(in_thread(event.set).get(timeout=LONG))

        def callback(calls: list[None] = calls, set_too: Callable[[], None] = set_too) -> None:
            calls.append(None)
            set_too()

        with event.on_set(callback):
            with at_line(line, set_too):
                event.set()
            assert len(calls) == 1
        if len(others) == 1:  # that line comes after all
            break
    assert line > 5


@posix
def test_a_signal_handler_that_sets_the_event_calls_it_once() -> None:
    """D4: set in a signal handler, at whatever line on_set() is; the end of the block may come before or after that."""
    event = StopEvent()
    places: list[str] = []
    place = ""

    def handler(*_: object) -> None:
        places.append(place)
        event.set()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        for line in itertools.count():
            event = StopEvent()
            calls: list[None] = []
            place = "entering"
            with at_line(line, lambda: signal.raise_signal(signal.SIGUSR1)):
                with event.on_set(partial(calls.append, None)):
                    place = "inside"
                    event.is_set()
                    place = "leaving"
                called = len(calls)
            event.set()
            assert len(calls) == called
            if len(places) == line:  # that line comes after all
                break
            assert called == 1 or places[-1] == "leaving"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert {*places} == {"entering", "inside", "leaving"}


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit, StopIteration, GeneratorExit])
@pytest.mark.parametrize("already", [False, True], ids=["set within", "set already"])
def test_what_a_callback_raises_goes_to_the_hook(
    failure: type[BaseException], already: bool, unraisable: list[str]
) -> None:
    """D4: what it raises, any exception, goes to sys.unraisablehook, and stops neither the others nor the ending."""
    event = StopEvent()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    calls: list[None] = []

    def broken() -> None:
        calls.append(None)
        raise failure

    numbers = BackgroundGenerator(until_stopped(closed), stop_event=event)
    assert next(numbers) == 0
    if already:
        event.set()
    with event.on_set(broken), numbers.stop_event.on_set(broken), event.on_set(broken):
        event.set()
        assert list(numbers) == []
    assert ended(closed)  # first, for the worker sets its own event too, and may be the one that calls
    assert numbers.close() is True
    assert len(calls) == 3
    assert unraisable == [f"{failure.__name__} in broken"] * 3


def test_what_a_callback_raised_is_not_kept(no_collector: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """D4: nor does the library keep that, or make a cycle through it: it is freed when the hook has returned."""
    raised: list[weakref.ref[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: raised.append(weakref.ref(args.exc_value)))
    event = StopEvent()

    class OwnError(Exception):
        """Unlike the built-in ones it can be weakly referenced."""

    def broken() -> None:
        raise OwnError

    with event.on_set(broken):
        event.set()
        assert [reference() for reference in raised] == [None]


@pytest.mark.parametrize("callback", [None, 3, "close"])
def test_what_cannot_be_called_is_refused_at_the_call(callback: Any) -> None:
    """D4: a callback that is not callable is a TypeError at the call of on_set(), before there is a block."""
    with pytest.raises(TypeError, match=f"^callback must be callable, got {callback!r}$"):
        StopEvent().on_set(callback)


def test_a_callback_that_is_hung_twice_is_called_twice() -> None:
    """D4: each block has its own call, of the same callback too; leaving the inner one takes only that away."""
    event = StopEvent()
    calls: list[None] = []
    callback = partial(calls.append, None)
    with event.on_set(callback):
        with event.on_set(callback), event.on_set(callback):
            pass
        with event.on_set(callback):
            event.set()
            assert len(calls) == 2
    assert len(calls) == 2


@pytest.mark.parametrize("when", ["never", "within", "before"])
def test_nothing_keeps_the_callback_after_the_block(when: str, no_collector: None) -> None:
    """D4: after the block neither the event nor anything else refers to the callback, though the event lives on."""
    event = BackgroundGenerator(until_stopped(SimpleQueue()), 1).stop_event if when == "before" else StopEvent()

    def block() -> weakref.ref[Callable[[], None]]:
        def callback() -> None:
            pass

        with event.on_set(callback):
            if when == "within":
                event.set()
        return weakref.ref(callback)

    assert event.is_set() == (when == "before")  # set by the end of its generator
    assert block()() is None
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(50):
        block()
    assert len(gc.get_objects()) - before < 25


@pytest.mark.parametrize(
    "how", ["close", "with block", "break", "in a cycle", "its finalizer is struck", "own event", "shared event"]
)
def test_every_ending_ends_a_blocked_read_at_once(how: str, unraisable: list[str]) -> None:
    """D4: close(), dropping by `break` and a shared event all end it at once; close() returns True, and warns not."""
    shared = StopEvent()
    inside = threading.Event()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    theirs, ours = socket.socketpair()

    def source() -> Iterator[bytes]:
        try:
            # What a client's cancel() comes to: the other side hangs up.
            with current_stop_event().on_set(partial(theirs.shutdown, socket.SHUT_WR)):
                yield b"first"
                inside.set()
                yield ours.recv(1)
        finally:
            closed.put(threading.current_thread())

    with theirs, ours:
        box = [BackgroundGenerator(source(), 1, stop_event=shared)]
        if how == "break":
            for _ in box.pop():
                assert inside.wait(LONG)
                break
        elif how == "with block":
            with box[0] as numbers:
                assert next(numbers) == b"first"
                assert inside.wait(LONG)
            assert numbers.close(0) is True
        else:
            assert next(box[0]) == b"first"
            assert inside.wait(LONG)
            if how == "close":
                assert box[0].close() is True
            elif how == "in a cycle":
                cycle: list[object] = [box.pop()]
                cycle.append(cycle)
                del cycle
                gc.collect()
            elif how == "its finalizer is struck":
                with At("poll", 1):
                    box.clear()
            else:
                (box[0].stop_event if how == "own event" else shared).set()
        assert ended(closed)
    assert unraisable == (["Strike in strike"] if how == "its finalizer is struck" else [])


def test_exit_ends_a_blocked_read_at_once() -> None:
    """D4: ... and so does interpreter exit: the source, which would be frozen in its read, runs its finally."""
    script = """
        import os, socket, threading
        from functools import partial
        from prefetch_generator import BackgroundGenerator, current_stop_event

        def source():
            try:
                with current_stop_event().on_set(partial(theirs.shutdown, socket.SHUT_WR)):
                    yield b"first"
                    inside.set()
                    yield ours.recv(1)
            finally:
                os.write(1, b"closed")

        inside = threading.Event()
        theirs, ours = socket.socketpair()
        numbers = BackgroundGenerator(source(), 1)
        next(numbers)
        inside.wait()
    """
    assert python("-W", "ignore::ResourceWarning", "-c", textwrap.dedent(script)) == ("closed", "")


@posix
@pytest.mark.parametrize("how", ["shared.set()", "numbers.stop_event.set()", "numbers.close()", "del numbers"])
def test_a_forked_child_does_not_call_the_parents_callback(how: str) -> None:
    """D4, E1: the parent is untouched by what its child does to its copy of the event and of the generator."""
    script = f"""
        import os, signal, threading
        from prefetch_generator import BackgroundGenerator, StopEvent, current_stop_event

        def cancel():
            calls.append(os.getpid())
            go.set()

        def source():
            with current_stop_event().on_set(cancel):
                yield 0
                inside.set()
                go.wait()

        calls, shared, inside, go = [], StopEvent(), threading.Event(), threading.Event()
        numbers = BackgroundGenerator(source(), 1, stop_event=shared)
        next(numbers)
        inside.wait()
        with shared.on_set(lambda: calls.append(os.getpid())):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                {how}
                shared.set()
                assert calls == [], calls
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0, "the child has failed, or hung and was killed"
            assert calls == []
            shared.set()
            assert calls == [os.getpid()] * 2
    """
    # 3.12 and later warn at every fork() in a threaded process. That is the situation to be tested.
    assert python("-W", "ignore:This process:DeprecationWarning", "-c", textwrap.dedent(script)) == ("", "")


def test_a_strike_anywhere_in_set_is_heard_and_the_callback_called_by_the_next_set() -> None:
    """D4, B4: what strikes the one that sets is not taken for what the callback raises, and loses no call."""

    def scenario(n: int) -> At:
        event = StopEvent()
        calls: list[str] = []
        struck = 0
        numbers = BackgroundGenerator(itertools.count(), stop_event=event)
        with event.on_set(partial(calls.append, "called")):
            with At("poll", n) as at:
                try:
                    event.set()
                    assert event.is_set()
                except Strike:
                    struck += 1
            assert struck == at.struck()
            event.set()
        assert calls == ["called"]
        assert numbers.close() is True
        return at

    one_after_the_other(scenario, 10)


def test_a_strike_anywhere_in_a_block_that_is_entered_and_left_leaves_nothing_hung() -> None:
    """D4, B4: what no `with` statement refers to any more, wherever that was struck, has been left."""

    def scenario(n: int) -> At:
        event = StopEvent()
        calls: list[str] = []
        with At("poll", n) as at, suppress(Strike), event.on_set(partial(calls.append, "late")):
            pass
        event.set()
        assert calls == []
        return at

    one_after_the_other(scenario, 10)


@posix
def test_what_strikes_after_the_callback_is_not_taken_for_what_it_raises(unraisable: list[str]) -> None:
    """D4, B4: a signal that comes as the callback returns goes to whoever sets the event, who may set it again."""

    def handler(*_: object) -> None:
        raise Strike

    before = signal.signal(signal.SIGUSR1, handler)
    event = StopEvent()
    try:
        with event.on_set(partial(_thread.interrupt_main, signal.SIGUSR1)), pytest.raises(Strike):
            event.set()
    finally:
        signal.signal(signal.SIGUSR1, before)
    event.set()
    assert unraisable == []
