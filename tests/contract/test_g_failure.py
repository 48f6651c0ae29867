"""Contract, section G, sentence 5: the end, and what the source raises, as an asynchronous consumer sees them."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Generator, Iterator
from functools import partial
from queue import SimpleQueue

import pytest

from prefetch_generator import BackgroundGenerator, NotReadyError, _worker, current_stop_event
from tests.helpers import LONG, ended

from .loops import Loop, every_loop, rest
from .support import (
    Fail,
    Held,
    alone,
    cause_of,
    chain,
    from_another,
    from_none,
    is_freed,
    suppressed,
    while_handling_another,
    while_handling_two,
)

FAILURES: list[Fail] = [alone, while_handling_another, while_handling_two, from_another, from_none]


def failing(failure: BaseException, n: int = 2) -> Iterator[int]:
    yield from range(n)
    raise failure


class Ending:
    """An iterator, no generator, whose third step raises that."""

    def __init__(self, failure: BaseException) -> None:
        self.failure, self.steps = failure, iter([0, 1])

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        for number in self.steps:
            return number
        raise self.failure


async def described(handling: int, items: AsyncIterator[int]) -> list[object]:
    """Describe what the next `anext` raises while so many errors are handled: each of its chain, its cause, `from`."""
    if handling:
        try:
            raise (KeyError if handling == 1 else UnicodeError)
        except (KeyError, UnicodeError):
            return await described(handling - 1, items)
    try:
        await anext(items)
    except BaseException as raised:
        return [(type(error), type(cause_of(error)), suppressed(error)) for error in chain(raised)]
    raise AssertionError("nothing was raised")


# G5


@every_loop
def test_the_end_is_stop_async_iteration_again_and_again(loop: Loop) -> None:
    """G5: the end is StopAsyncIteration, however often one asks; a return value is nobody's."""

    def source() -> Generator[int, None, str]:
        yield 0
        return "value"

    async def main() -> None:
        items = aiter(BackgroundGenerator(source()))
        assert await anext(items) == 0
        for _ in range(3):
            with pytest.raises(StopAsyncIteration) as raised:
                await anext(items)
            assert raised.value.args == ()
        assert await anext(items, "default") == "default"
        assert await rest(items) == []

    loop.run(main)


@pytest.mark.parametrize(
    "failure",
    [
        KeyError("x"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        TimeoutError(),
        RuntimeError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
@every_loop
def test_whatever_the_source_raises_arrives_once_in_its_place(loop: Loop, failure: BaseException) -> None:
    """G5: after the items before it, the same object, once, whatever it is; after that, the end."""

    async def main() -> None:
        items = aiter(BackgroundGenerator(failing(failure)))
        assert [await anext(items), await anext(items)] == [0, 1]
        with pytest.raises(type(failure)) as raised:
            await anext(items)
        assert raised.value is failure
        frames = [entry.name for entry in raised.traceback]
        assert frames[-1] == "failing"
        assert "produce" not in frames
        assert await rest(items) == []

    loop.run(main)
    failure.__traceback__ = None


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (StopAsyncIteration("x"), "the source raised StopAsyncIteration"),
        (NotReadyError("x"), "the source raised NotReadyError"),
    ],
)
@every_loop
def test_what_would_be_mistaken_is_a_runtime_error(loop: Loop, failure: BaseException, raised: str) -> None:
    """G5: StopAsyncIteration of the source, which would look like the end, ends in RuntimeError, as PEP 525 has it."""

    async def main() -> None:
        items = aiter(BackgroundGenerator(Ending(failure)))
        assert [await anext(items), await anext(items)] == [0, 1]
        with pytest.raises(RuntimeError, match=raised) as error:
            await anext(items)
        assert error.value.__cause__ is failure
        assert await rest(items) == []

    loop.run(main)


@every_loop
def test_a_stop_iteration_ends_an_iterator_and_fails_a_generator(loop: Loop) -> None:
    """G5: an iterator that raises StopIteration(value) has ended; one that escapes from a generator is its failure."""

    async def main() -> None:
        assert await rest(aiter(BackgroundGenerator(Ending(StopIteration(5))))) == [0, 1]
        with pytest.raises(RuntimeError, match="generator raised StopIteration"):
            await rest(aiter(BackgroundGenerator(failing(StopIteration(5)))))

    loop.run(main)


@pytest.mark.parametrize("waiting", [False, True], ids=["ready", "waited for"])
@every_loop
def test_of_many_tasks_exactly_one_gets_the_failure(loop: Loop, waiting: bool) -> None:
    """G5, B2: with ten tasks exactly one gets it; the others get the end."""
    go = threading.Event()

    def source() -> Iterator[int]:
        assert go.wait(LONG)
        yield from failing(KeyError("x"), 0)

    async def main() -> list[object]:
        numbers = BackgroundGenerator(source())

        async def consume() -> object:
            try:
                return await rest(aiter(numbers))
            except KeyError as error:
                return error.args

        async def begin() -> object:
            if waiting:
                await loop.asleep(numbers, tasks=10)
            go.set()
            return None

        if not waiting:
            go.set()
        return (await loop.together(*[consume] * 10, begin))[:-1]

    got = loop.run(main)
    assert got.count([]) == 9
    assert got.count(("x",)) == 1


@pytest.mark.parametrize("handling", [0, 1, 2])
@pytest.mark.parametrize("fail", FAILURES)
@every_loop
def test_the_chain_is_that_of_plain_python(loop: Loop, fail: Fail, handling: int, no_collector: None) -> None:
    """G5, B1, B3: with its own cause and context, what the caller handles at the end; and nothing of it is kept."""

    def source() -> Iterator[int]:
        yield 0
        fail()

    async def plain() -> AsyncIterator[int]:
        for item in source():
            yield item

    async def main() -> list[list[object]]:
        numbers = BackgroundGenerator(source())
        found = []
        for items in [aiter(numbers), aiter(plain())]:
            assert await anext(items) == 0
            found.append(await described(handling, items))
            assert is_freed() or items is not aiter(numbers)
        assert await rest(aiter(numbers)) == []  # and it is still there
        return found

    ours, python = loop.run(main)
    assert is_freed()
    assert ours == python


@every_loop
def test_no_reference_to_a_failure_is_kept(loop: Loop, no_collector: None) -> None:
    """G5, B3: what the failing frame held is freed as soon as the caller lets go, for StopAsyncIteration as well."""

    def source(kind: type[Exception]) -> Iterator[int]:
        held = Held()  # what the failing frame holds
        yield 0
        raise kind(held)

    class Odd:
        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            held = Held()
            raise StopAsyncIteration(held)

    async def main() -> None:
        failed = False
        for iterable in (make() for make in (partial(source, ValueError), Odd)):
            numbers = BackgroundGenerator(iterable)
            del iterable
            try:
                await rest(aiter(numbers))
            except (ValueError, RuntimeError):
                failed = True
            assert failed
            assert is_freed()

    loop.run(main)


@every_loop
def test_what_strikes_a_sleeper_keeps_neither_generator_nor_worker(loop: Loop, no_collector: None) -> None:
    """G5, B5: whoever keeps the traceback of a cancelled `anext` does not thereby keep generator or worker."""
    kept: list[BaseException] = []
    begun = threading.Event()
    closed: SimpleQueue[threading.Thread] = SimpleQueue()

    def source() -> Iterator[int]:
        begun.set()
        try:
            assert current_stop_event().wait(LONG)
            yield 0
        finally:
            closed.put(threading.current_thread())

    async def main() -> None:
        references: list[weakref.ref[BackgroundGenerator[int]]] = []

        def make() -> BackgroundGenerator[int]:
            numbers = BackgroundGenerator(source())
            references.append(weakref.ref(numbers))
            assert begun.wait(LONG)
            return numbers

        async def consume() -> None:
            try:
                async for _ in make():
                    pass
            except BaseException as error:
                kept.append(error)
                raise

        async with loop.tasks() as start:
            task = start(consume)
            while not references:
                await loop.turn()
            await loop.asleep(references[0]())  # type: ignore[arg-type]  # it is there
            task.cancel()
        assert task.cancelled
        assert kept
        assert references[0]() is None
        assert ended(closed)

    loop.run(main)
    kept.clear()


@every_loop
def test_what_breaks_on_the_worker_is_raised_by_anext(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """G5, B6: a failure of the library's own machinery on the worker's thread is never taken for the end."""

    def broken(*_: object) -> None:
        raise MemoryError

    async def main() -> None:
        monkeypatch.setattr(_worker, "_close_unless_ended", broken)
        items = aiter(BackgroundGenerator(range(2)))
        assert [await anext(items), await anext(items)] == [0, 1]
        with pytest.raises(MemoryError):
            await anext(items)

    loop.run(main)
