"""Contract A to F, sentence by sentence: what a mutant of the package could break and no other test would have seen."""

from __future__ import annotations

import contextlib
import copy
import dis
import itertools
import pickle
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from operator import length_hint
from queue import SimpleQueue
from types import FrameType, ModuleType
from typing import Any

import pytest

import prefetch_generator
from prefetch_generator import BackgroundGenerator, StopEvent, _exit, _worker, current_stop_event
from prefetch_generator._bell import Bell
from prefetch_generator._channel import Channel

from .helpers import LONG, python, when_time_is_up


def test_nothing_else_is_in_the_package() -> None:
    """Public names: what the package needed to set itself up is gone."""
    names = {name for name, value in vars(prefetch_generator).items() if not isinstance(value, ModuleType)}
    assert {name for name in names if not name.startswith("__")} == {
        name for name in prefetch_generator.__all__ if not name.startswith("__")
    }


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copying_a_stop_event_says_why_it_cannot_be(copied: Callable[[object], object]) -> None:
    """E2: copying or pickling is a TypeError that says why, for a stop event too."""
    with pytest.raises(TypeError, match="nobody would set, or hear, the copy"):
        copied(StopEvent())


def test_a_stop_events_repr_shows_its_state() -> None:
    """E5: repr shows the state."""
    event = StopEvent()
    assert repr(event) == "<StopEvent not set>"
    event.set()
    assert repr(event) == "<StopEvent set>"


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


def test_a_wait_of_a_source_for_another_generator_leaves_nothing_behind() -> None:
    """C8, A6: nor does a worker that waits for another generator, at its own event or at the other's hand-off."""
    seen: list[StopEvent] = []
    go: SimpleQueue[int] = SimpleQueue()

    def inner() -> Iterator[int]:
        yield go.get(timeout=LONG)

    numbers = BackgroundGenerator(inner())

    def outer() -> Iterator[int]:
        seen.append(current_stop_event())
        with pytest.raises(TimeoutError):
            numbers.next(0)
        assert not numbers._channel.bells
        go.put(1)
        yield from numbers

    assert list(BackgroundGenerator(outer())) == [1]
    assert not seen[0]._listeners


class Eager(SimpleQueue[object]):
    """A queue to sleep on, in which nobody has to sleep: what would sleep is an error."""

    def get(self, block: bool = True, timeout: float | None = None) -> object:
        return super().get(block=False)


class Announcing(SimpleQueue[object]):
    """A queue to sleep on, which says that somebody is about to."""

    def __init__(self) -> None:
        self.asleep: SimpleQueue[None] = SimpleQueue()

    def get(self, block: bool = True, timeout: float | None = None) -> object:
        self.asleep.put(None)
        return super().get(block, timeout)


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


def test_an_item_lost_between_two_instructions_costs_no_deadlock() -> None:
    """B4: nothing hangs, though whoever took an item was stopped before it could answer the worker's call."""
    go: SimpleQueue[None] = SimpleQueue()

    def source() -> Iterator[int]:
        go.get(timeout=LONG)
        yield from range(3)

    numbers = BackgroundGenerator(source(), max_prefetch=1)
    wake = Announcing()
    numbers._channel.wakeups = wake
    go.put(None)
    wake.asleep.get(timeout=LONG)
    assert numbers._channel.items.get() == 0
    assert [numbers.next(LONG), numbers.next(LONG)] == [1, 2]


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


def test_a_constructor_that_is_struck_after_the_start_waits_for_the_end_of_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B4: a struck constructor leaves no worker behind: the thread is gone before the exception is out."""
    start = _worker.Worker.start
    threads: list[threading.Thread | None] = []

    def start_and_strike(worker: _worker.Worker, name: str, owner: object) -> None:
        start(worker, name, owner)
        threads.append(worker.thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(_worker.Worker, "start", start_and_strike)
    with pytest.raises(KeyboardInterrupt):
        BackgroundGenerator(range(3))
    assert [thread and thread.is_alive() for thread in threads] == [False]


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


def test_the_clean_up_of_a_source_that_was_stopped_may_wait_for_other_generators() -> None:
    """C8: GeneratorExit is raised once, as `generator.close()` does: a `finally` may wait for a generator."""
    go: SimpleQueue[None] = SimpleQueue()
    seen: list[str] = []

    def other() -> Iterator[int]:
        go.get(timeout=LONG)
        yield 1

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            try:
                numbers.next(0)
            except TimeoutError:
                seen.append("waited")
            except GeneratorExit:
                seen.append("stopped")

    numbers = BackgroundGenerator(other())
    with BackgroundGenerator(source()) as stopped:
        assert next(stopped) == 0
    assert seen == ["waited"]
    go.put(None)
    assert list(numbers) == [1]


def test_nothing_can_strike_the_constructor_once_the_worker_is_allowed() -> None:
    """B4: a struck constructor leaves the source untouched: where it could be struck, the worker has no leave yet."""
    steps = {step.offset: step.opname for step in dis.get_instructions(BackgroundGenerator.__init__)}
    seen: list[tuple[bool, str]] = []
    before = ""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal before
        if frame.f_code is not BackgroundGenerator.__init__.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "call" and sys.version_info[:2] == (3, 12):
            sys.settrace(trace)  # the only place where this Python looks at f_trace_opcodes
        if event == "opcode":
            worker = frame.f_locals.get("worker")
            allowed = worker is not None and length_hint(worker.begin.__reduce__()[1][1]) == 0
            seen.append((allowed, before))
            before = steps[frame.f_lasti]
        return trace

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        numbers = BackgroundGenerator(range(3))
    finally:
        sys.settrace(earlier)
    assert list(numbers) == [0, 1, 2]
    assert any(allowed for allowed, _ in seen)
    assert any("CALL" in name for allowed, name in seen if not allowed)
    assert not [name for allowed, name in seen if allowed and ("CALL" in name or "JUMP" in name)]


def test_a_source_whose_name_cannot_be_had_is_named_after_its_type() -> None:
    """E5, A3: a name is not worth failing for."""

    class Nameless:
        @property
        def __name__(self) -> str:
            raise ValueError

        def __iter__(self) -> Iterator[int]:
            return iter(range(3))

    numbers = BackgroundGenerator(Nameless())
    assert repr(numbers).startswith("<BackgroundGenerator 'Nameless' ")
    assert list(numbers) == [0, 1, 2]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="no thread can be started any more when exit handlers run")
def test_an_exit_handler_that_runs_after_the_stop_may_still_make_a_generator() -> None:
    """C7: the exit stops the generators that there are, not those that other exit handlers still make."""
    script = """
        import atexit
        atexit.register(lambda: print(list(BackgroundGenerator(range(3)))))
        from prefetch_generator import BackgroundGenerator
    """
    assert python("-c", textwrap.dedent(script)) == ("[0, 1, 2]\n", "")


def test_a_source_that_hints_at_nothing_is_not_one_without_a_hint() -> None:
    """E4: operator.length_hint is what the source hinted at, and 0 is a hint."""
    assert length_hint(BackgroundGenerator([]), 7) == 0
    assert length_hint(BackgroundGenerator(n for n in range(3)), 7) == 7


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


def test_a_worker_that_is_about_to_sleep_cannot_wait_for_itself() -> None:
    """A10: a RuntimeError and no deadlock, also for a finalizer that runs on the worker between two steps."""
    channel = Channel[int](1, object)
    channel.worker_ident = threading.get_ident()
    with pytest.raises(RuntimeError, match="it would wait for itself"):
        channel.wait(channel.has_news, 0.0)


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
