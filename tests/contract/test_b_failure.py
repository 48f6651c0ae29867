"""Contract, section B: what the source raises, and what strikes from outside."""

from __future__ import annotations

import _thread
import contextlib
import dataclasses
import dis
import itertools
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from operator import length_hint
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    NotReadyError,
    _channel,
    _generator,
    _worker,
    current_stop_event,
)
from prefetch_generator._channel import Channel
from tests.helpers import LONG, PACKAGE, ended, interrupted, posix, when_asleep
from tests.interrupts.machine import (
    NAME,
    At,
    Strike,
    join_workers,
    one_after_the_other,
    strike,
)

from .support import (
    Announcing,
    Fail,
    Held,
    Make,
    Plain,
    alone,
    an_error,
    an_error_with_a_context,
    chain,
    failing_clean_up,
    from_another,
    from_none,
    is_freed,
    nothing,
    raised_by,
    run_program,
    while_handling_another,
    while_handling_two,
)


class OddError(BaseException):
    """No Exception, and no exception that Python knows."""


def failing(failure: BaseException, n: int = 2) -> Iterator[int]:
    yield from range(n)
    raise failure


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """An exception whose attributes cannot be set."""

    code: int


class HostileError(Exception):
    """An exception that has attributes of its own where every exception has them, and these refuse everything."""

    def _refuse(self, *_: object) -> Any:
        raise AssertionError("an exception was looked into")

    __context__ = __cause__ = __suppress_context__ = __traceback__ = property(_refuse, _refuse)
    __setattr__ = with_traceback = add_note = _refuse


def frozen() -> None:
    held = Held()
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        raise FrozenError(id(held))  # noqa: B904 - the point of it


def hostile() -> None:
    held = Held()
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        raise HostileError(held)  # noqa: B904 - the point of it


FAILURES: list[Fail] = [alone, while_handling_another, while_handling_two, from_another, from_none, frozen, hostile]


def failing_step(fail: Fail) -> Generator[int, None, None]:
    yield 0
    fail()


def in_next(make: Make, fail: Fail) -> None:
    numbers = make(failing_step(fail))
    assert next(numbers) == 0
    next(numbers)


def in_yield_from(make: Make, fail: Fail) -> None:
    def outer() -> Iterator[int]:
        yield from make(failing_step(fail))

    list(outer())


def in_close(make: Make, fail: Fail) -> None:
    numbers = make(failing_clean_up(fail))
    assert next(numbers) == 0
    numbers.close()


def in_exit(make: Make, fail: Fail) -> None:
    with make(failing_clean_up(fail)) as numbers:
        assert next(numbers) == 0


def in_exit_of_a_body_that_raises(make: Make, fail: Fail) -> None:
    with make(failing_clean_up(fail)) as numbers:
        raise IndexError(next(numbers))


WAYS = [in_next, in_yield_from, in_close, in_exit, in_exit_of_a_body_that_raises]


def linked(*errors: BaseException) -> BaseException:
    """Make each error the context of the one before it; return the first."""
    for error, context in pairwise(errors):
        error.__context__ = context
    return errors[0]


class Unclosable:
    """An iterator whose close() fails, with no GeneratorExit about."""

    def __init__(self, fail: Fail) -> None:
        self.close = fail

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return 0


MakeSource = Callable[[], BackgroundGenerator[int]]


def in_a_loop(make: MakeSource) -> None:
    for _ in make():
        pass


def by_next(make: MakeSource) -> None:
    next(make())


def by_next_with_a_timeout(make: MakeSource) -> None:
    make().next(LONG)


def by_next_with_a_short_timeout(make: MakeSource) -> None:
    make().next(0.01)


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


# B1


@pytest.mark.parametrize("max_prefetch", [1, 2, 5, 0])
@pytest.mark.parametrize(
    "failure",
    [
        KeyError("x"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        OddError(),
        Empty(),
        IndexError(),
        TimeoutError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_any_exception_reaches_the_consumer_in_its_place(failure: BaseException, max_prefetch: int) -> None:
    """B1: whatever the source raises reaches the consumer after the items before it: the same object, once."""
    numbers = BackgroundGenerator(failing(failure), max_prefetch)
    assert [next(numbers), next(numbers)] == [0, 1]
    with pytest.raises(type(failure)) as raised:
        next(numbers)
    assert raised.value is failure
    assert list(numbers) == []
    assert next(numbers, "over") == "over"


def test_the_traceback_ends_in_the_sources_own_frame() -> None:
    """B1: the last frame of the traceback is where the source raised; the worker's own frames are not in it."""

    def deeper() -> int:
        raise KeyError("here")

    def source() -> Iterator[int]:
        yield deeper()

    with pytest.raises(KeyError) as raised:
        next(BackgroundGenerator(source()))
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert [frame.name for frame in frames[-2:]] == ["source", "deeper"]
    assert not [frame for frame in frames if frame.filename.endswith("_worker.py")]


def test_a_stop_iteration_that_a_step_raises_is_the_end() -> None:
    """B1: an iterator that ends does not fail; a generator out of which a StopIteration escapes does (PEP 479)."""

    def source() -> Iterator[int]:
        yield 1
        next(iter(()))

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 1
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(numbers)
    assert list(BackgroundGenerator(iter([1, 2]))) == [1, 2]


def test_a_failure_before_the_first_item_is_raised_too() -> None:
    """B1: also where there are no items before it."""
    with pytest.raises(ZeroDivisionError):
        list(BackgroundGenerator(1 // n for n in [0]))


@pytest.mark.parametrize("handling", [nothing, an_error, an_error_with_a_context])
@pytest.mark.parametrize("fail", FAILURES)
@pytest.mark.parametrize("way", WAYS)
def test_the_chain_is_that_of_plain_python(
    way: Callable[[Make, Fail], None],
    fail: Fail,
    handling: Callable[[Callable[[], object]], None],
    no_collector: None,
) -> None:
    """B1, C4: with its own cause and context, what the caller handles at the end; and nothing of it is kept."""
    raised = raised_by(handling, lambda: way(BackgroundGenerator, fail))
    assert is_freed()
    assert raised == raised_by(handling, lambda: way(Plain, fail))


@pytest.mark.parametrize("handling", [nothing, an_error, an_error_with_a_context])
@pytest.mark.parametrize("fail", FAILURES)
def test_the_chain_of_a_thread_that_cannot_be_started_is_that_of_plain_python(
    fail: Fail,
    handling: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
    no_collector: None,
) -> None:
    """B1, A4: the same for what the constructor raises."""
    monkeypatch.setattr(threading.Thread, "start", lambda _: fail())
    raised = raised_by(handling, lambda: BackgroundGenerator([]))
    assert is_freed()
    assert raised == raised_by(handling, fail)


def test_what_the_caller_handles_comes_last() -> None:
    """B1, C4: ValueError, in the handling of ZeroDivisionError, both while the caller handles KeyError; in words."""
    for way, told in [(in_next, []), (in_close, [GeneratorExit])]:
        with pytest.raises(ValueError) as raised:  # noqa: PT011 - it has no message
            an_error(lambda: way(BackgroundGenerator, while_handling_another))  # noqa: B023 - called at once
        kinds = [type(error) for error in chain(raised.value)]
        assert kinds == [ValueError, ZeroDivisionError, *told, KeyError]


@pytest.mark.parametrize("step", [True, False], ids=["next", "close"])
@pytest.mark.parametrize(
    ("failure", "handled", "raised"),
    [
        ("A", "A", "A"),
        ("AB", "A", "AB"),
        ("AB", "B", "AB"),
        ("ABC", "B", "ABC"),
        ("ABC", "BC", "ABC"),
        ("ABC", "C", "ABC"),
        ("A", "BA", "AB"),  # as `raise` has it
        ("AB", "CA", "AB"),
        ("B", "ABC", "BC"),
        ("ABC", "DBC", "ABC"),
        ("AC", "BC", "AC"),
    ],
)
def test_errors_that_come_from_each_other_make_no_circle(failure: str, handled: str, raised: str, step: bool) -> None:
    """B1, C4: where both have something in their chains, the failure keeps the chain that it had."""
    errors = {name: RuntimeError(name) for name in "ABCD"}
    linked(*map(errors.get, handled))  # type: ignore[arg-type]
    linked(*map(errors.get, failure))  # type: ignore[arg-type]

    def fail() -> int:
        raise errors[failure[0]]

    def take() -> None:
        if step:
            next(BackgroundGenerator(fail() for _ in [0]))
        else:
            numbers = BackgroundGenerator(Unclosable(fail))
            next(numbers)
            numbers.close()

    try:
        raise errors[handled[0]]
    except RuntimeError:
        with pytest.raises(RuntimeError) as caught:
            take()
    assert chain(caught.value) == [errors[name] for name in raised]
    chain(errors[handled[0]])


def test_a_long_chain_is_walked_once() -> None:
    """B1: a chain of a hundred thousand contexts costs a walk for each link, not a walk of the chain for each."""
    first = failure = ValueError()
    for _ in range(100_000):
        context, failure = failure, ValueError()
        failure.__context__ = context

    def source() -> Iterator[int]:
        yield from ()
        raise failure

    handled = KeyError()
    with pytest.raises(ValueError) as raised:  # noqa: PT011, PT012 - it says nothing; it is raised under an `except`
        try:
            raise handled
        except KeyError:
            next(BackgroundGenerator(source()))
    assert raised.value is failure
    assert first.__context__ is handled
    while failure is not None:  # not by recursion
        failure.__context__, failure = None, failure.__context__  # type: ignore[assignment]


def test_a_circle_in_the_chain_is_walked_once() -> None:
    """B1: causes that somebody has made each other's causes do not keep the consumer from the failure."""
    failure = linked(*map(ValueError, "ABC"))
    inner = failure.__context__
    assert inner is not None
    assert inner.__context__ is not None
    inner.__context__.__context__ = inner

    def source() -> Iterator[int]:
        yield from ()
        raise failure

    try:
        raise KeyError
    except KeyError:
        with pytest.raises(ValueError, match="A") as raised:
            next(BackgroundGenerator(source()))
    assert raised.value is failure
    assert failure.__context__ is inner


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


# B2


@pytest.mark.parametrize("max_prefetch", [1, 4])
def test_with_several_consumers_exactly_one_gets_the_failure(max_prefetch: int) -> None:
    """B2: one of several consumers gets what the source raised, the others end."""
    for _ in range(20):
        numbers = BackgroundGenerator(failing(KeyError("once"), 10), max_prefetch)
        ends: SimpleQueue[str] = SimpleQueue()

        def consume(numbers: BackgroundGenerator[int] = numbers, ends: SimpleQueue[str] = ends) -> None:
            try:
                for _ in numbers:
                    pass
            except KeyError:
                ends.put("failed")
            else:
                ends.put("ended")

        threads = [threading.Thread(target=consume) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert sorted(ends.get(timeout=LONG) for _ in threads) == ["ended", "ended", "ended", "failed"]
        for thread in threads:
            thread.join(LONG)


# B3


def test_a_failure_is_freed_as_soon_as_the_caller_lets_it_go(no_collector: None) -> None:
    """B3: with the collector off, what the failing frame held is freed with the exception: no reference, no cycle."""

    class Held:
        pass

    references = []

    def source() -> Iterator[int]:
        held = Held()
        references.append(weakref.ref(held))
        yield 1
        raise KeyError(references)

    numbers = BackgroundGenerator(source())
    assert next(numbers) == 1
    try:
        next(numbers)
    except KeyError as error:
        references.append(weakref.ref(error.__traceback__.tb_frame.f_code))  # type: ignore[arg-type,union-attr]
        assert references[0]() is not None
    assert references[0]() is None
    assert list(numbers) == []


def test_a_failure_nobody_asks_for_goes_with_its_generator(no_collector: None) -> None:
    """B3: a buffered failure is freed with the generator, without the collector."""

    class Held:
        pass

    references = []
    failed = threading.Event()

    def source() -> Iterator[int]:
        held = Held()
        references.append(weakref.ref(held))
        yield 1
        failed.set()
        raise KeyError

    numbers = BackgroundGenerator(source())
    worker = numbers._worker
    assert failed.wait(LONG)
    assert worker.ended.wait(LONG)
    assert references[0]() is not None
    del numbers, worker
    assert references[0]() is None


# B4


@pytest.mark.parametrize("timeout", [None, LONG], ids=["no timeout", "timeout"])
@pytest.mark.parametrize("max_prefetch", [1, 2, 0])
def test_a_strike_anywhere_in_next_loses_nothing(max_prefetch: int, timeout: float | None) -> None:
    """B4: next() struck at any point, and called again: no item is lost or repeated, order is kept, nothing hangs."""

    def scenario(n: int) -> At:
        def source() -> Generator[int, None, str]:
            yield from range(4)
            return "value"

        numbers = BackgroundGenerator(source(), max_prefetch)
        got: list[object] = []
        with At("poll", n) as at:
            while len(got) < 5:
                try:
                    got.append(numbers.next(timeout))
                except Strike:
                    pass
                except StopIteration as end:
                    got.append(end.value)
        assert got == [0, 1, 2, 3, "value"]
        return at

    one_after_the_other(scenario, 10)


def test_a_strike_anywhere_in_next_does_not_lose_the_failure() -> None:
    """B4: the source's own failure is raised once, whatever strikes on the way to it."""

    def scenario(n: int) -> At:
        numbers = BackgroundGenerator(failing(KeyError(), 1))
        seen: list[str] = []
        with At("poll", n) as at:
            while "StopIteration" not in seen:
                try:
                    next(numbers)
                except BaseException as error:
                    seen.append(type(error).__name__)
        assert sorted(seen) in (["KeyError", "StopIteration"], ["KeyError", "StopIteration", "Strike"])
        return at

    one_after_the_other(scenario, 10)


def test_a_strike_anywhere_in_the_constructor_leaves_no_worker_and_an_untouched_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B4: a struck constructor leaves no worker behind; the same source, given to another, still has every item."""
    launched: SimpleQueue[threading.Thread] = SimpleQueue()
    start = _worker._start

    def start_and_tell(worker: _worker.Worker, *others: Any) -> None:
        start(worker, *others)
        assert worker.thread is not None
        launched.put(worker.thread)

    real = _thread.start_new_thread
    launches: list[object] = []

    def launch(function: Callable[..., object], args: tuple[Any, ...]) -> None:
        launches.append(real(function, args))

    monkeypatch.setattr(_worker, "_start", start_and_tell)
    monkeypatch.setattr(_thread, "start_new_thread", launch)

    def scenario(n: int) -> At:
        source = (n for n in range(3))
        numbers, struck = None, None
        with At("poll", n) as at:
            try:
                numbers = BackgroundGenerator(source)
            except Strike as error:
                struck = error  # with its traceback, which holds the half-made generator
        for _ in launches:
            launched.get(timeout=LONG).join(0 if numbers else LONG)
        launches.clear()
        if numbers is None:
            assert struck is not None
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("BackgroundGenerator")]
            numbers = BackgroundGenerator(source)
        assert list(numbers) == [0, 1, 2]
        return at

    one_after_the_other(scenario, 10)


def test_a_strike_anywhere_in_close_leaves_a_generator_that_can_be_closed() -> None:
    """B4: close() struck at any point, and called again, closes: the source once, and no thread is left."""

    def scenario(n: int) -> At:
        closed = []

        def source() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                closed.append(True)

        numbers = BackgroundGenerator(source(), 2)
        assert next(numbers) == 1
        with At("poll", n) as at:
            while True:
                try:
                    assert numbers.close() is True
                    break
                except Strike:
                    pass
        assert closed == [True]
        assert list(numbers) == []
        return at

    one_after_the_other(scenario, 10)


def test_a_strike_in_close_does_not_lose_what_closing_raised() -> None:
    """B4 and C4: what the source raises while being closed is raised once, by the close() that is called again."""

    def scenario(n: int) -> At:
        def source() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                raise KeyError

        numbers = BackgroundGenerator(source())
        assert next(numbers) == 1
        raised = 0
        with At("poll", n) as at:
            while not raised:
                try:
                    numbers.close()
                except Strike:
                    pass
                except KeyError:
                    raised += 1
        assert numbers.close() is True
        return at

    one_after_the_other(scenario, 10)


def test_a_strike_anywhere_in_a_finalizer_does_not_keep_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """B4 and C6: a generator that is dropped stops, even if a signal handler raises in the middle of its finalizer."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # where Python itself sends what a finalizer raises

    def scenario(n: int) -> At:
        numbers = BackgroundGenerator(iter(int, 1), 2)
        assert next(numbers) == 0
        worker = numbers._worker
        with At("poll", n) as at:
            del numbers
        assert worker.ended.wait(LONG)
        return at

    one_after_the_other(scenario, 10)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
@pytest.mark.parametrize("max_prefetch", [1, 3, 64])
def test_a_storm_of_interrupts_loses_nothing(max_prefetch: int) -> None:
    """B4: real signals, as fast as they come, with a handler that raises: every item arrives once and in order."""
    strikes = 0

    def handler(_: int, frame: FrameType | None) -> None:
        nonlocal strikes
        if frame is not None and frame.f_code.co_filename.startswith(
            PACKAGE
        ):  # else it would strike this test's own retrying
            strikes += 1
            raise Strike

    got: list[int] = []
    numbers = BackgroundGenerator(itertools.count(), max_prefetch)
    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        while strikes < 30 or len(got) < 100:
            with contextlib.suppress(Strike):
                got.append(next(numbers))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert numbers.close()
    assert got == list(range(len(got)))


@posix
def test_ctrl_c_ends_the_wait_for_an_item_at_once_and_loses_nothing() -> None:
    """B4, A9: SIGINT ends next() while it sleeps; next() can be called again and gets the item that comes then."""
    script = """
        def waits():
            yield 0
            go.wait()
            yield 1

        def handler(*_):
            if not handled.is_set():
                handled.set()
                raise KeyboardInterrupt

        go = threading.Event()
        signal.signal(signal.SIGINT, handler)
        numbers = BackgroundGenerator(waits())
        say(next(numbers))
        try:
            with when_asleep(lambda: kill(signal.SIGINT)):
                next(numbers)
        except KeyboardInterrupt:
            say("interrupted", numbers.stats[:2])
        go.set()
        say(list(numbers))
    """
    assert run_program(script) == (["0", "interrupted (1, 0)", "[1]"], "")


@posix
def test_ctrl_c_ends_the_wait_of_close_at_once() -> None:
    """B4, C1: SIGINT ends close(None) while it sleeps; it can be called again and waits until the worker has ended."""
    script = """
        def stays():
            try:
                yield 0
                inside.set()
                go.wait()
            finally:
                say("closed")

        def handler(*_):
            if not handled.is_set():
                handled.set()
                raise KeyboardInterrupt

        go, inside = threading.Event(), threading.Event()
        signal.signal(signal.SIGINT, handler)
        numbers = BackgroundGenerator(stays())
        say(next(numbers))
        inside.wait()
        try:
            with when_asleep(lambda: kill(signal.SIGINT)):
                numbers.close(None)
        except KeyboardInterrupt:
            say("interrupted", numbers.stop_event.is_set())
        go.set()
        say(numbers.close(None))
    """
    assert run_program(script) == (["0", "interrupted True", "closed", "True"], "")


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


# B5


@pytest.mark.parametrize(
    ("take", "kind"),
    [
        pytest.param(in_a_loop, Strike, marks=posix),
        pytest.param(by_next, Strike, marks=posix),
        pytest.param(by_next_with_a_timeout, Strike, marks=posix),
        (by_next_with_a_short_timeout, NotReadyError),
    ],
)
def test_what_strikes_a_sleeper_keeps_neither_generator_nor_worker(
    take: Callable[[MakeSource], None], kind: type[BaseException], no_collector: None
) -> None:
    """B5: whoever keeps its traceback, as a notebook does, does not thereby keep the generator, nor its worker."""
    begun = threading.Event()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()
    references: list[weakref.ref[object]] = []

    def source() -> Iterator[int]:
        begun.set()
        try:
            assert current_stop_event().wait(LONG)
            yield 0
        finally:
            closed.put(threading.current_thread())

    def make() -> BackgroundGenerator[int]:
        numbers = BackgroundGenerator(source())
        references.append(weakref.ref(numbers))
        assert begun.wait(LONG)
        return numbers

    kept: BaseException | None = None
    try:
        with ExitStack() as stack:
            if kind is Strike:
                stack.enter_context(when_asleep(stack.enter_context(interrupted(strike))))
            take(make)
    except kind as error:
        kept = error
    assert kept is not None
    assert references[0]() is None
    assert ended(closed)


# B6


@pytest.mark.parametrize("how", ["end", "failure", "left early"])
def test_an_error_anywhere_on_the_worker_never_makes_a_shorter_result(
    how: str, hooked: SimpleQueue[threading.ExceptHookArgs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B6: raised between any two instructions: all items and then the end, or some of them and then an error.

    It never hangs, close() works afterwards, and the thread is gone.
    """
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # where it strikes the last look at an ended thread
    outcomes: set[type[BaseException] | None] = set()

    def source() -> Iterator[int]:
        yield from range(3)
        if how == "failure":
            raise KeyError

    def scenario(n: int) -> At:
        at = At("opcode", n)
        with at.on_new_threads():
            numbers = BackgroundGenerator(source(), 1, name="traced")
        got: list[int] = []
        outcome: type[BaseException] | None = None
        try:
            while how != "left early" or len(got) < 2:
                got.append(numbers.next(LONG))
        except BaseException as error:
            outcome = type(error)
        outcomes.add(outcome)
        assert got == list(range(len(got)))
        if outcome in {StopIteration, KeyError}:
            assert outcome is (KeyError if how == "failure" else StopIteration)
            assert len(got) == 3
        elif outcome is not None:
            assert outcome in {Strike, RuntimeError}
            with pytest.raises(StopIteration):
                numbers.next(LONG)
        try:
            assert numbers.close(LONG) is True
        except Strike:
            assert numbers.close(LONG) is True
        join_workers()
        while not hooked.empty():
            hooked.get()
        return at

    one_after_the_other(scenario, 40)
    assert outcomes >= {Strike, {"end": StopIteration, "failure": KeyError}.get(how)}


@pytest.mark.parametrize(
    ("where", "name", "depth"),
    [
        (_worker, "enter_source_context", 0),
        (_worker, "_run_source", 0),
        (_generator, "produce", 0),
        (_worker, "_close_unless_ended", 0),
        (Channel, "room", 0),
        (Channel, "finish", 0),
        (Channel, "_park", 1),
        (_channel, "repeat", 0),
        (_channel, "perf_counter", 1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_breaks_on_the_worker_is_raised_by_next(
    where: Any,
    name: str,
    depth: int,
    hooked: SimpleQueue[threading.ExceptHookArgs],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B6: what the library stands on fails once, as it does without memory: an error, never the end of the data."""
    works = getattr(where, name)
    broke = threading.Event()

    def breaks(*arguments: Any) -> Any:
        if threading.current_thread().name == NAME and not broke.is_set():
            broke.set()
            raise MemoryError
        return works(*arguments)

    monkeypatch.setattr(where, name, breaks)
    numbers = BackgroundGenerator(range(3), depth, name="traced")
    assert broke.wait(LONG)
    got: list[int] = []
    with pytest.raises((MemoryError, RuntimeError)):  # noqa: PT012 - the items before it
        while True:
            got.append(numbers.next(LONG))
    assert got == list(range(len(got)))
    with pytest.raises(StopIteration):
        numbers.next(LONG)
    assert numbers.close(LONG) is True
    join_workers()


def test_a_breakdown_that_no_outcome_tells_of_shows_as_failed() -> None:
    """B6, E5: a worker that came to its end without a word has not finished, and nobody has closed it."""
    channel = Channel[int](1, object)
    states = [channel.state]
    channel.finish(None)
    assert [*states, channel.state] == ["running", "failed"]


def test_what_breaks_outside_of_the_source_has_it_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """B6, C3: what failed was not the source, so it has not ended, and ends early."""
    closed: SimpleQueue[threading.Thread] = SimpleQueue()

    class Source(Iterator[int]):
        def __next__(self) -> int:
            return 0

        def close(self) -> None:
            closed.put(threading.current_thread())

    def breaks(_: Channel[int]) -> Iterator[None]:
        raise MemoryError

    monkeypatch.setattr(Channel, "room", breaks)
    numbers = BackgroundGenerator(Source())
    with pytest.raises(MemoryError):
        next(numbers)
    assert ended(closed)
