"""What type checkers must refuse. Read by mypy and pyright, never run: pytest does not collect this name.

Each line is wrong, and says by which rule. An error that goes away leaves an ignore that nothing needs any more, which
both checkers are told to report.
"""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterator

from prefetch_generator import BackgroundGenerator, BackgroundIterable, SourceProcessError, Stats, StopEvent, background

# --- the class --------------------------------------------------------------------------------------------------------

BackgroundGenerator()  # type: ignore[call-arg]
BackgroundGenerator(5)  # type: ignore[arg-type]
BackgroundGenerator([1], "3")  # type: ignore[arg-type]
BackgroundGenerator([1], 1.5)  # type: ignore[arg-type]
BackgroundGenerator([1], None)  # type: ignore[arg-type]
BackgroundGenerator([1], max_size=3)  # type: ignore[call-arg]
BackgroundGenerator([1], 2, StopEvent())  # type: ignore[call-arg]
BackgroundGenerator([1], stop_event=threading.Event())  # type: ignore[arg-type]
BackgroundGenerator([1], stop_event=StopEvent)  # type: ignore[arg-type]
BackgroundGenerator([1], name=b"x")  # type: ignore[arg-type]


def methods(bg: BackgroundGenerator[int]) -> None:
    bg.next("1")  # type: ignore[arg-type]
    bg.close("1")  # type: ignore[arg-type]
    bg.send(None)  # type: ignore[attr-defined]
    len(bg)  # type: ignore[arg-type]
    bg[0]  # type: ignore[index]
    bg.stop_event = StopEvent()  # type: ignore[misc]
    bg.stats = bg.stats  # type: ignore[misc]
    bg.stats.delivered = 0  # type: ignore[misc]
    Stats(1, 2)  # type: ignore[call-arg]


async def asynchronous_methods(bg: BackgroundGenerator[int]) -> None:
    await bg.aclose("1")  # type: ignore[arg-type]
    aiter(bg).aclose()  # type: ignore[attr-defined]
    next(aiter(bg))  # type: ignore[call-overload]
    item = await anext(aiter(bg))
    text: str = item  # type: ignore[assignment]
    print(text)
    for _ in aiter(bg):  # type: ignore[attr-defined]
        pass


def covariance(ints: BackgroundGenerator[int], objects: BackgroundGenerator[object]) -> None:
    a: BackgroundGenerator[str] = ints  # type: ignore[assignment]
    b: BackgroundGenerator[int] = objects  # type: ignore[assignment]
    c: BackgroundGenerator[bool] = ints  # type: ignore[assignment]
    print(a, b, c)


# --- the decorator ----------------------------------------------------------------------------------------------------


@background
def bare(path: str, /, size: int = 1, *, strict: bool = False) -> Iterator[bytes]:
    yield b""


@background(max_prefetch=3)
def deep(path: str) -> Iterator[bytes]:
    yield b""


bare()  # type: ignore[call-arg]
bare(1)  # type: ignore[arg-type]
bare(path="a")  # type: ignore[call-arg]
bare("a", "b")  # type: ignore[arg-type]
bare("a", 1, True)  # type: ignore[call-arg]
bare("a", nope=1)  # type: ignore[call-arg]
deep(1)  # type: ignore[arg-type]
deep("a", 1)  # type: ignore[call-arg]
bare("a").send(None)  # type: ignore[attr-defined]


class Reader:
    @background
    def method(self, size: int) -> Iterator[bytes]:
        yield b""

    @classmethod
    @background
    def class_method(cls, size: int) -> Iterator[bytes]:
        yield b""

    @staticmethod
    @background
    def static_method(size: int) -> Iterator[bytes]:
        yield b""


def calls_of_methods(reader: Reader) -> None:
    reader.method()  # type: ignore[call-arg]
    reader.method("1")  # type: ignore[arg-type]
    reader.class_method("1")  # type: ignore[arg-type]
    Reader.class_method()  # type: ignore[call-arg]
    reader.static_method("1")  # type: ignore[arg-type]
    Reader.static_method(1, 2)  # type: ignore[call-arg]


async def coroutine() -> list[int]:
    return []


def no_iterable() -> int:
    return 0


background(8)  # type: ignore[call-overload]
background(no_iterable)  # type: ignore[arg-type]
background(coroutine)  # type: ignore[arg-type]
background(max_prefetch="8")  # type: ignore[call-overload]
background(max_prefetch=None)  # type: ignore[call-overload]
background(max_size=8)  # type: ignore[call-overload]
background()(no_iterable)  # type: ignore[arg-type]
background()(coroutine)  # type: ignore[arg-type]

# --- the decorator, with a process ------------------------------------------------------------------------------------


@background(process=True)
def computed(path: str, /, size: int = 1) -> Iterator[bytes]:
    yield b""


computed()  # type: ignore[call-arg]
computed(1)  # type: ignore[arg-type]
computed("a", nope=1)  # type: ignore[call-arg]
background(process="thread")  # type: ignore[call-overload]
background(process=None)  # type: ignore[call-overload]
background(process=1)  # type: ignore[call-overload]
background(no_iterable, process=True)  # type: ignore[call-overload]
background(process=True)(no_iterable)  # type: ignore[arg-type]
SourceProcessError()  # type: ignore[call-arg]
SourceProcessError("a", "b")  # type: ignore[arg-type]

# --- asynchronous sources ---------------------------------------------------------------------------------------------


@background
async def pages(url: str) -> AsyncIterator[bytes]:
    yield b""


async def gives_an_iterable() -> AsyncIterable[int]:
    raise NotImplementedError


pages()  # type: ignore[call-arg]
pages(1)  # type: ignore[arg-type]
background(gives_an_iterable)  # type: ignore[arg-type]
background(max_prefetch=2)(gives_an_iterable)  # type: ignore[arg-type]
BackgroundGenerator(coroutine())  # type: ignore[arg-type]
BackgroundGenerator(coroutine)  # type: ignore[arg-type]

# --- iterables --------------------------------------------------------------------------------------------------------

BackgroundIterable(8)  # type: ignore[arg-type]
BackgroundIterable([1], max_prefetch="8")  # type: ignore[arg-type]
BackgroundIterable([1], stop_event=StopEvent())  # type: ignore[call-arg]

# --- stop events ------------------------------------------------------------------------------------------------------

StopEvent(True)  # type: ignore[call-arg]
StopEvent().clear()  # type: ignore[attr-defined]
StopEvent().wait("1")  # type: ignore[arg-type]
StopEvent().set(True)  # type: ignore[call-arg]
StopEvent().on_set()  # type: ignore[call-arg]
StopEvent().on_set(len)  # type: ignore[arg-type]
