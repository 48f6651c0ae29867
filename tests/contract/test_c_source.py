"""Contract, section C, sentences 3 and 4: how the source is closed, and what that raises."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from queue import SimpleQueue

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    StopEvent,
    _exit,
)
from tests.helpers import LONG, ended, in_thread

from .support import (
    Fail,
    Item,
    LookedAtError,
    Make,
    Plain,
    Reader,
    Stuck,
    alone,
    an_error,
    an_error_with_a_context,
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


def in_an_exit_stack(make: Make, fail: Fail) -> None:
    with ExitStack() as stack:
        stack.callback(alone)
        numbers = stack.enter_context(make(failing_clean_up(fail)))
        raise IndexError(next(numbers))


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
