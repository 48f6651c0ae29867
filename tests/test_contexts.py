"""Contract B1 and C4: the `__cause__` and `__context__` of what is raised.

What plain Python makes of the same source, without this library, is the reference.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest

from prefetch_generator import BackgroundGenerator

from .helpers import LONG

Fail = Callable[[], object]
Make = Callable[[Generator[int, None, None]], Any]

# Of the base class, for an exception may have attributes of these names that raise.
context_of, cause_of, suppressed = (
    vars(BaseException)[name].__get__ for name in ("__context__", "__cause__", "__suppress_context__")
)


def chain(error: BaseException) -> list[BaseException]:
    """Return the error, its context, the context of that, and so on; there is no circle."""
    errors = [error]
    while (context := context_of(errors[-1])) is not None:
        assert not any(context is one for one in errors)
        errors.append(context)
    return errors


# What a source raises

alive: weakref.WeakSet[Held] = weakref.WeakSet()


class Held:
    """What a failing frame holds."""

    def __init__(self) -> None:
        alive.add(self)


def is_freed() -> bool:
    """Return whether nothing is held any more: at once, or, without the GIL, when the thread that made it has ended."""
    deadline = time.monotonic() + (0 if getattr(sys, "_is_gil_enabled", lambda: True)() else LONG)
    while alive and time.monotonic() < deadline:
        time.sleep(0.001)
    return not alive


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


def alone() -> None:
    held = Held()
    raise ValueError(held)


def while_handling_another() -> None:
    held = Held()
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        raise ValueError(held)  # noqa: B904 - the point of it


def while_handling_two() -> None:
    try:
        while_handling_another()
    except ValueError:
        raise TypeError  # noqa: B904 - the point of it


def from_another() -> None:
    held = Held()
    try:
        _ = 1 // 0
    except ZeroDivisionError as error:
        raise ValueError(held) from error


def from_none() -> None:
    held = Held()
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        raise ValueError(held) from None


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

# Where it reaches the caller


class Plain:
    """What a `BackgroundGenerator` is to whoever uses it, without a thread."""

    def __init__(self, source: Generator[int, None, None]) -> None:
        self.source = source
        self.close = source.close

    def __iter__(self) -> Iterator[int]:
        return self.source

    def __next__(self) -> int:
        return next(self.source)

    def __enter__(self) -> Plain:  # noqa: PYI034 - `Self` is younger than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def failing_step(fail: Fail) -> Generator[int, None, None]:
    yield 0
    fail()


def failing_clean_up(fail: Fail) -> Generator[int, None, None]:
    try:
        while True:
            yield 0
    finally:
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


def in_an_exit_stack(make: Make, fail: Fail) -> None:
    with ExitStack() as stack:
        stack.callback(alone)
        numbers = stack.enter_context(make(failing_clean_up(fail)))
        raise IndexError(next(numbers))


WAYS = [in_next, in_yield_from, in_close, in_exit, in_exit_of_a_body_that_raises]

# What the caller is handling


def nothing(call: Callable[[], object]) -> None:
    call()


def an_error(call: Callable[[], object]) -> None:
    try:
        raise KeyError
    except KeyError:
        call()


def an_error_with_a_context(call: Callable[[], object]) -> None:
    try:
        raise UnicodeError
    except UnicodeError:
        an_error(call)


def outcome(handling: Callable[[Callable[[], object]], None], call: Callable[[], object]) -> list[object]:
    """Describe what `call` raises where somebody is `handling` that: each error of the chain, its cause, and `from`."""
    try:
        handling(call)
    except BaseException as raised:
        return [(type(error), type(cause_of(error)), suppressed(error)) for error in chain(raised)]
    raise AssertionError("nothing was raised")


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
    raised = outcome(handling, lambda: way(BackgroundGenerator, fail))
    assert is_freed()
    assert raised == outcome(handling, lambda: way(Plain, fail))


@pytest.mark.parametrize("handling", [nothing, an_error, an_error_with_a_context])
@pytest.mark.parametrize("fail", [alone, while_handling_two, from_another, from_none])
def test_the_chain_in_an_exit_stack_is_that_of_plain_python(
    fail: Fail, handling: Callable[[Callable[[], object]], None]
) -> None:
    """C4: the same where an ExitStack, which mends these chains too, stands between."""
    raised = outcome(handling, lambda: in_an_exit_stack(BackgroundGenerator, fail))
    assert raised == outcome(handling, lambda: in_an_exit_stack(Plain, fail))
    gc.collect()  # an ExitStack makes a cycle through what it raises


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
    raised = outcome(handling, lambda: BackgroundGenerator([]))
    assert is_freed()
    assert raised == outcome(handling, fail)


def test_what_the_caller_handles_comes_last() -> None:
    """B1, C4: ValueError, in the handling of ZeroDivisionError, both while the caller handles KeyError; in words."""
    for way, told in [(in_next, []), (in_close, [GeneratorExit])]:
        with pytest.raises(ValueError) as raised:  # noqa: PT011 - it has no message
            an_error(lambda: way(BackgroundGenerator, while_handling_another))  # noqa: B023 - called at once
        kinds = [type(error) for error in chain(raised.value)]
        assert kinds == [ValueError, ZeroDivisionError, *told, KeyError]


def linked(*errors: BaseException) -> BaseException:
    """Make each error the context of the one before it; return the first."""
    for error, context in pairwise(errors):
        error.__context__ = context
    return errors[0]


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


class Unclosable:
    """An iterator whose close() fails, with no GeneratorExit about."""

    def __init__(self, fail: Fail) -> None:
        self.close = fail

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return 0


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
