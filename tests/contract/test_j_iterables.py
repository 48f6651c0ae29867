"""Contract, section J: `BackgroundIterable`."""

from __future__ import annotations

import copy
import gc
import itertools
import operator
import pickle
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    BackgroundIterable,
)
from prefetch_generator._channel import Channel
from tests.helpers import LONG, ended, in_thread, interrupted, posix, python, when_asleep
from tests.interrupts.machine import At, Strike, one_after_the_other


class Steps:
    """The numbers 0, 1, 2, again and again. It is stuck once, where it is told to be, and refuses a second thread."""

    def __init__(self, stuck_at: int | str | None) -> None:
        self.stuck_at = stuck_at
        self.number = 3
        self.inside, self.go = threading.Event(), threading.Event()
        self.guard = threading.Lock()
        self.met: list[str] = []

    def alone(self, step: Callable[[], int]) -> int:
        if not self.guard.acquire(blocking=False):
            self.met.append(threading.current_thread().name)
            raise RuntimeError("a second thread came in")
        try:
            return step()
        finally:
            self.guard.release()

    def stick(self, where: int | str) -> int:
        if where == self.stuck_at and not self.go.is_set():
            self.inside.set()
            self.go.wait(LONG)
        return 0

    def restart(self) -> int:
        self.number = -1
        return 0

    def step(self) -> int:
        self.number += 1
        self.stick(self.number)
        if self.number > 2:
            raise StopIteration
        return self.number

    def __iter__(self) -> Steps:
        return self

    def __next__(self) -> int:
        return self.alone(self.step)

    def close(self) -> None:
        self.alone(lambda: self.stick("close"))


class Loader(Iterable[int]):
    """Hands out the same iterator again, as a DataLoader with persistent workers does."""

    def __init__(self, stuck_at: int | str | None = None) -> None:
        self.steps = Steps(stuck_at)
        self.passes = 0

    def __iter__(self) -> Iterator[int]:
        self.steps.alone(self.steps.restart)
        self.passes += 1
        return self.steps


class Countless(Iterable[int]):
    """Each iteration is a new generator, which says on which thread it was closed; it has no length."""

    def __init__(self) -> None:
        self.closed: SimpleQueue[threading.Thread] = SimpleQueue()

    def __iter__(self) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            self.closed.put(threading.current_thread())


class Indexed:
    """An iterable of the old kind."""

    def __getitem__(self, index: int) -> int:
        return [0, 1, 2][index]


class Cursor(Iterable[int]):
    """Has a `__next__`, and is not an iterator: each `iter()` is a new one."""

    def __next__(self) -> int:
        raise AssertionError

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def leave_in_a_step(numbers: BackgroundIterable[int], inside: threading.Event, how: str) -> object:
    """Begin an iteration, and leave it as soon as the source is `inside` its second step; return what is held on."""
    left = [iter(numbers)]
    if how == "break":
        for _ in left.pop():
            assert inside.wait(LONG)
            break
        return None
    assert next(left[0]) == 0
    assert inside.wait(LONG)
    if how == "in a cycle":
        left.append(left)  # type: ignore[arg-type]  # a cycle
        del left
        gc.collect()
        return None
    if how == "its finalizer is struck":
        with At("poll", 1):
            left.clear()
    elif how == "stop event":
        left[0].stop_event.set()
    else:
        with pytest.warns(RuntimeWarning, match="did not stop"):
            assert left[0].close(0) is False
    return left


# J1


@pytest.mark.parametrize(
    "source", [[0, 1, 2], range(3), Indexed(), Cursor(), Loader()], ids=lambda it: type(it).__name__
)
def test_each_iteration_is_a_new_generator(source: Iterable[int]) -> None:
    """J1: iterated any number of times, each iter() gives a new BackgroundGenerator over the whole of the iterable."""
    numbers = BackgroundIterable(source)
    assert numbers.iterable is source
    assert [list(numbers) for _ in range(3)] == [[0, 1, 2]] * 3
    one, other = iter(numbers), iter(numbers)
    assert type(one) is type(other) is BackgroundGenerator
    assert one is not other


def test_each_iteration_looks_as_far_ahead_as_it_was_told() -> None:
    """J1: max_prefetch is that of each generator, and by default what it is there."""
    for numbers, bound in [
        (BackgroundIterable(range(9), 5), "/5 buffered"),
        (BackgroundIterable(range(9), max_prefetch=1), "/1 buffered"),
        (BackgroundIterable(range(9)), "/2 buffered"),
    ]:
        assert [bound in repr(iter(numbers)) for _ in range(2)] == [True, True]
    assert "/" not in repr(iter(BackgroundIterable(range(9), 0)))


def test_len_is_the_iterables_own() -> None:
    """J1: len() is the iterable's own, whenever it is asked; a TypeError where it has none."""
    items = [0, 1]
    numbers, countless = BackgroundIterable(items), BackgroundIterable(Countless())
    assert len(numbers) == 2
    items.append(2)
    assert [len(numbers), operator.length_hint(numbers)] == [3, 3]
    with pytest.raises(TypeError, match="Countless"):
        len(countless)
    assert operator.length_hint(countless, 7) == 7  # as `list` and others ask: no length is no error


@pytest.mark.parametrize("source", [[], [0], Countless()], ids=["empty", "one item", "no length"])
def test_it_is_always_true(source: Iterable[int]) -> None:
    """J1: it is always true, whatever its length."""
    assert bool(BackgroundIterable(source)) is True


@pytest.mark.parametrize("iterator", [iter([0]), (n for n in [0]), enumerate([0]), map(abs, [0])])
def test_an_iterator_is_refused(iterator: Iterator[Any]) -> None:
    """J1: an iterator has one pass only and is a TypeError that names BackgroundGenerator; it is not touched."""
    with pytest.raises(TypeError, match=r"^iterable must .* iterator .*BackgroundGenerator$"):
        BackgroundIterable(iterator)
    assert len(list(iterator)) == 1


def test_a_background_generator_is_refused_as_the_iterator_it_is() -> None:
    """J1: a BackgroundGenerator is an iterator, too."""
    with BackgroundGenerator([0]) as numbers, pytest.raises(TypeError, match=r"there is BackgroundGenerator$"):
        BackgroundIterable(numbers)


def test_a_wrong_argument_is_refused_at_once() -> None:
    """J1: the arguments are those of BackgroundGenerator: what is wrong there is so here, before any iter()."""
    for iterable in (None, 3, object()):
        with pytest.raises(TypeError, match=r"^iterable must be an iterable, got "):
            BackgroundIterable(iterable)  # type: ignore[arg-type]  # the wrong argument
    for max_prefetch in ("3", 2.0, None, True):
        with pytest.raises(TypeError, match=r"^max_prefetch must be an integer, got "):
            BackgroundIterable([0], max_prefetch)  # type: ignore[arg-type]  # the wrong argument


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_is_an_equal_iterable(again: Callable[[Any], Any]) -> None:
    """J1: it holds nothing but what it was given, so it may be copied and pickled, unlike a generator."""
    numbers = BackgroundIterable([0, 1, 2], 5)
    with iter(numbers):
        copied = again(numbers)
    assert type(copied) is BackgroundIterable
    assert copied.iterable == [0, 1, 2]
    assert repr(copied) == repr(numbers)
    assert "5" in repr(iter(copied))
    assert list(copied) == [0, 1, 2]


# J2


@pytest.mark.parametrize("how", ["break", "in a cycle", "its finalizer is struck", "stop event", "close"])
def test_iter_waits_for_the_step_of_an_iteration_that_was_left(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """J2: however it was left early, iter() waits as long as its step takes, and no longer: never two threads in it."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # where Python sends what strikes a finalizer
    loader = Loader(stuck_at=1)
    numbers = BackgroundIterable(loader, 1)
    settled: SimpleQueue[str] = SimpleQueue()

    def epoch() -> list[int]:
        with when_asleep(lambda: settled.put("asleep")):
            again = iter(numbers)
        settled.put("back")
        return list(again)

    _held = leave_in_a_step(numbers, loader.steps.inside, how)
    result = in_thread(epoch)
    try:
        assert settled.get(timeout=LONG) == "asleep"
        assert loader.passes == 1
    finally:
        loader.steps.go.set()
    assert result.get(timeout=LONG) == [0, 1, 2]
    assert loader.steps.met == []


def test_iter_waits_until_the_source_is_closed() -> None:
    """J2: the worker has ended when it is through with the source, its close() included."""
    loader = Loader(stuck_at="close")
    numbers = BackgroundIterable(loader, 1)
    for _ in numbers:
        break
    assert loader.steps.inside.wait(LONG)
    with when_asleep(loader.steps.go.set):
        assert list(numbers) == [0, 1, 2]
    assert loader.steps.go.is_set()
    assert loader.steps.met == []


def test_iter_sees_an_end_that_comes_just_before_it_would_sleep() -> None:
    """J2: the step is over, and the worker gone, between its look and its wait: nobody would wake it any more."""
    loader = Loader(stuck_at=1)
    numbers = BackgroundIterable(loader, 1)
    others = set(threading.enumerate())
    leave_in_a_step(numbers, loader.steps.inside, "break")
    [worker] = set(threading.enumerate()) - others

    def let_it_end(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is Channel.wait.__code__:
            sys.setprofile(None)
            loader.steps.go.set()
            worker.join(LONG)

    try:
        sys.setprofile(let_it_end)
        again = iter(numbers)
    finally:
        sys.setprofile(None)
    assert not worker.is_alive()
    assert list(again) == [0, 1, 2]


@posix
def test_ctrl_c_ends_the_wait() -> None:
    """J2: Ctrl-C ends the wait, long before the step is over; the next iter() waits again, and works."""

    def ctrl_c() -> None:
        raise KeyboardInterrupt

    loader = Loader(stuck_at=1)
    numbers = BackgroundIterable(loader, 1)
    leave_in_a_step(numbers, loader.steps.inside, "break")
    try:
        with interrupted(ctrl_c) as asleep, when_asleep(asleep), pytest.raises(KeyboardInterrupt):
            iter(numbers)
        assert loader.passes == 1
        assert not loader.steps.go.is_set()
    finally:
        loader.steps.go.set()
    assert list(numbers) == [0, 1, 2]
    assert loader.steps.met == []


def test_a_strike_anywhere_in_iter_never_leaves_two_threads() -> None:
    """J2: whatever strikes iter(), wherever: the next one gives everything, and meets nobody in the iterable."""

    def scenario(n: int) -> At:
        loader = Loader(stuck_at=1)
        numbers = BackgroundIterable(loader, 1)
        leave_in_a_step(numbers, loader.steps.inside, "break")
        again, struck = None, None
        with when_asleep(loader.steps.go.set), At("poll", n) as at:
            try:
                again = iter(numbers)
            except Strike as error:
                struck = error  # with its traceback, which may hold a generator
        loader.steps.go.set()
        assert (again is None) == (struck is not None)
        assert list(again or numbers) == [0, 1, 2]
        assert loader.steps.met == []
        return at

    one_after_the_other(scenario, 10)


@pytest.mark.parametrize("source", [range(2), Indexed()], ids=lambda it: type(it).__name__)
def test_nested_loops_and_zip_work_as_on_the_iterable_itself(source: Iterable[int]) -> None:
    """J2: an iteration that somebody still holds is left alone."""
    numbers = BackgroundIterable(source, 1)
    assert [(a, b) for a in numbers for b in numbers] == [(a, b) for a in source for b in source]
    assert list(zip(numbers, numbers, strict=True)) == [(a, a) for a in source]


def test_iter_does_not_wait_for_an_iteration_that_is_held() -> None:
    """J2: one that is in the middle of a step is left alone, too."""

    class Slow(Iterable[int]):
        first = True

        def __iter__(self) -> Iterator[int]:
            stuck, self.first = self.first, False
            return self.numbers(stuck)

        def numbers(self, stuck: bool) -> Iterator[int]:
            if stuck:
                inside.set()
                go.wait(LONG)
            yield from range(3)

    inside, go = threading.Event(), threading.Event()
    numbers = BackgroundIterable(Slow())
    held = iter(numbers)
    try:
        assert inside.wait(LONG)
        assert list(numbers) == [0, 1, 2]
        assert not go.is_set()
    finally:
        go.set()
    assert list(held) == [0, 1, 2]


def test_a_stopped_source_that_iterates_its_own_iterable_gets_an_error() -> None:
    """J2, A10: the worker that iter() would wait for is the very one that calls it: RuntimeError, not a deadlock."""
    errors: SimpleQueue[str] = SimpleQueue()

    class Own(Iterable[int]):
        def __iter__(self) -> Iterator[int]:
            try:
                yield from range(9)
            finally:
                try:
                    iter(numbers)
                except RuntimeError as error:
                    errors.put(str(error))

    numbers = BackgroundIterable(Own(), 1)
    one = iter(numbers)
    assert next(one) == 0
    assert one.close() is True
    assert "wait for itself" in errors.get(timeout=LONG)


def test_stopped_sources_that_iterate_each_others_iterables_get_an_error() -> None:
    """J2, A10: each would wait for the other's end: one of them gets the error, and both end."""
    errors: SimpleQueue[str] = SimpleQueue()
    both = threading.Barrier(2)

    class Other(Iterable[int]):
        def __init__(self, number: int) -> None:
            self.number = number

        def __iter__(self) -> Iterator[int]:
            try:
                yield from range(9)
            finally:
                both.wait(LONG)
                try:
                    iter(iterables[1 - self.number])
                except RuntimeError as error:
                    errors.put(str(error))

    iterables = [BackgroundIterable(Other(number), 1) for number in (0, 1)]
    iterations = [iter(iterable) for iterable in iterables]
    for iteration in iterations:
        assert next(iteration) == 0
        iteration.stop_event.set()
    assert [iteration.close(LONG) for iteration in iterations] == [True, True]
    assert "through others" in errors.get(timeout=LONG)


def test_a_clean_up_that_waits_for_who_waits_for_it_in_iter_gets_an_error() -> None:
    """J2, A10: the circle may close at either kind of wait, for an item or for an end."""
    errors: SimpleQueue[str] = SimpleQueue()
    cleaning = threading.Event()

    def first() -> Iterator[int]:
        try:
            yield from range(9)
        finally:
            cleaning.set()
            noted(lambda: next(second))

    def waiting() -> Iterator[int]:
        cleaning.wait(LONG)
        yield noted(lambda: len(list(iterable)))

    def noted(call: Callable[[], int]) -> int:
        try:
            return call()
        except RuntimeError as error:
            errors.put(str(error))
            return -1

    passes = iter([first(), iter("ab")])

    class Twice(Iterable[object]):
        def __iter__(self) -> Iterator[object]:
            return next(passes)

    iterable = BackgroundIterable(Twice(), 1)
    second = BackgroundGenerator(waiting())
    one = iter(iterable)
    assert next(one) == 0
    one.stop_event.set()
    assert one.close(LONG) is True
    assert "through others" in errors.get(timeout=LONG)
    assert second.close(LONG) is True


def test_a_worker_that_waits_in_iter_and_is_told_to_stop_sees_generator_exit() -> None:
    """J2, C8: as at every other wait for a generator: its finally blocks run, though the step goes on."""
    asleep = threading.Event()
    log: list[str] = []

    def outer() -> Iterator[int]:
        try:
            leave_in_a_step(numbers, loader.steps.inside, "break")
            with when_asleep(asleep.set):
                yield from numbers
            log.append("mistook the stop for the end")
        except GeneratorExit:
            log.append("GeneratorExit")
            raise
        finally:
            log.append("finally")

    loader = Loader(stuck_at=1)
    numbers = BackgroundIterable(loader, 1)
    generator = BackgroundGenerator(outer())
    try:
        assert asleep.wait(LONG)
        assert generator.close() is True
        assert log == ["GeneratorExit", "finally"]
        assert loader.passes == 1
    finally:
        loader.steps.go.set()
    assert list(numbers) == [0, 1, 2]


@posix
def test_a_forked_child_does_not_wait_for_the_parents_workers() -> None:
    """J2, E1: in a forked child iter() works at once: the worker that the parent waits for is not there."""
    script = """
        import os, signal, threading
        from prefetch_generator import BackgroundIterable

        class Slow:
            def __iter__(self):
                yield 0
                if os.getpid() == parent:
                    inside.set()
                    go.wait()
                yield 1

        parent = os.getpid()
        inside, go = threading.Event(), threading.Event()
        numbers = BackgroundIterable(Slow(), 1)
        for number in numbers:
            inside.wait()
            break
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            assert list(numbers) == [0, 1]
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, "the child has failed, or hung and was killed"
        go.set()
        assert list(numbers) == [0, 1]
    """
    # 3.12 and later warn at every fork() in a threaded process. That is the situation to be tested.
    assert python("-W", "ignore:This process:DeprecationWarning", "-c", textwrap.dedent(script)) == ("", "")


def test_an_iteration_that_only_a_stopped_source_holds_is_left() -> None:
    """J2, C8: the generator of a chain was left by `break`; its source, still in a step, holds the iteration inside."""
    inside, worst = 0, 0
    in_step, go, never = threading.Event(), threading.Event(), threading.Event()

    class Steps(Iterator[int]):
        def __next__(self) -> int:
            nonlocal inside, worst
            inside += 1
            worst = max(worst, inside)
            never.wait(0.01)  # long enough for a second thread to come in
            inside -= 1
            return 0

    class Loader(Iterable[int]):
        steps = Steps()

        def __iter__(self) -> Iterator[int]:
            return self.steps

    iterable = BackgroundIterable(Loader(), 1)

    def prepared() -> Iterator[int]:
        for number in iterable:
            yield number
            in_step.set()
            go.wait(LONG)  # in a step of its own

    for _ in BackgroundGenerator(prepared(), 2):
        assert in_step.wait(LONG)  # else it might be stopped before that step
        break
    second = in_thread(lambda: next(iter(iterable)))
    go.set()
    assert second.get(timeout=LONG) == 0
    assert worst == 1


# J3


def test_it_keeps_no_generator_alive(no_collector: None) -> None:
    """J3: `break` ends the worker as ever, and the generator is freed, while the iterable lives on."""
    countless = Countless()
    numbers = BackgroundIterable(countless)
    for _ in range(3):
        for number in numbers:
            assert number == 0
            break
        assert ended(countless.closed)
    generator = iter(numbers)
    assert next(generator) == 0
    alive = weakref.ref(generator)
    del generator
    assert alive() is None
    assert ended(countless.closed)


def test_an_iteration_that_has_ended_keeps_no_iterable_alive(no_collector: None) -> None:
    """J3, A10: when the end is seen the source is released, the iterable that it came from included."""
    source = Loader()
    numbers = BackgroundIterable(source)
    one = iter(numbers)
    assert list(one) == [0, 1, 2]
    alive = weakref.ref(source), weakref.ref(numbers)
    del source, numbers
    assert [reference() for reference in alive] == [None, None]
    assert list(one) == []
