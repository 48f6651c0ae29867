"""What type checkers must understand. Read by mypy and pyright, never run: pytest does not collect this name."""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator

from typing_extensions import Self, assert_type

from prefetch_generator import (
    BackgroundGenerator,
    BackgroundIterable,
    NotReadyError,
    SourceProcessError,
    Stats,
    StopEvent,
    __version__,
    background,
    current_stop_event,
    prefetch,
)

# --- the class --------------------------------------------------------------------------------------------------------


class Loader(Iterable[float]):
    def __iter__(self) -> Iterator[float]:
        return BackgroundGenerator([1.0], max_prefetch=10)


class Rows(BackgroundGenerator[int]):
    pass


def construction(stop: StopEvent | None, name: str | None, generator: Iterator[bytes]) -> None:
    assert_type(BackgroundGenerator([1]), BackgroundGenerator[int])
    assert_type(BackgroundGenerator("text", 8), BackgroundGenerator[str])
    assert_type(BackgroundGenerator(generator, max_prefetch=0), BackgroundGenerator[bytes])
    assert_type(BackgroundGenerator(Loader(), stop_event=stop, name=name), BackgroundGenerator[float])
    assert_type(BackgroundGenerator(BackgroundGenerator([None])), BackgroundGenerator[None])
    assert_type(BackgroundGenerator(iterable={1: "one"}), BackgroundGenerator[int])


def iteration(bg: BackgroundGenerator[bytes], rows: Rows) -> None:
    assert_type(next(bg), bytes)
    assert_type(next(bg, None), bytes | None)
    assert_type(bg.next(), bytes)
    assert_type(bg.next(1), bytes)
    assert_type(bg.next(timeout=0.5), bytes)
    assert_type(bg.next(timeout=None), bytes)
    assert_type(list(bg), list[bytes])
    assert_type(iter(bg), BackgroundGenerator[bytes])
    assert_type(iter(rows), Rows)
    for item in bg:
        assert_type(item, bytes)


def iterables(loader: Loader) -> None:
    assert_type(BackgroundIterable(loader), BackgroundIterable[float])
    assert_type(BackgroundIterable("text", max_prefetch=8), BackgroundIterable[str])
    assert_type(iter(BackgroundIterable(loader)), BackgroundGenerator[float])
    assert_type(BackgroundIterable(loader).iterable, Iterable[float])
    assert_type(len(BackgroundIterable([1])), int)
    wider: BackgroundIterable[object] = BackgroundIterable([1])  # covariant
    print(wider)
    for item in BackgroundIterable(loader):
        assert_type(item, float)


def not_ready(bg: BackgroundGenerator[bytes]) -> None:
    try:
        bg.next(0)
    except NotReadyError as error:
        timeout: TimeoutError = error
        raise timeout from None


def closing(bg: BackgroundGenerator[bytes], rows: Rows) -> None:
    assert_type(bg.close(), bool)
    assert_type(bg.close(1), bool)
    assert_type(bg.close(timeout=None), bool)
    with bg as entered:
        assert_type(entered, BackgroundGenerator[bytes])
    with rows as entered_rows:
        assert_type(entered_rows, Rows)


def with_hides_no_exception(bg: BackgroundGenerator[int]) -> int:
    with bg:
        return next(bg)  # a __exit__ that returns bool would need another return below


async def asynchronous_iteration(bg: BackgroundGenerator[bytes], rows: Rows) -> None:
    assert_type(aiter(bg), AsyncIterator[bytes])
    assert_type(await anext(aiter(bg)), bytes)
    assert_type(await anext(aiter(bg), None), bytes | None)
    assert_type([item async for item in bg], list[bytes])
    async for item in bg:
        assert_type(item, bytes)
    async for row in rows:
        assert_type(row, int)


async def asynchronous_closing(bg: BackgroundGenerator[bytes], rows: Rows) -> None:
    assert_type(await bg.aclose(), bool)
    assert_type(await bg.aclose(1), bool)
    assert_type(await bg.aclose(timeout=None), bool)
    async with bg as entered:
        assert_type(entered, BackgroundGenerator[bytes])
    async with rows as entered_rows:
        assert_type(entered_rows, Rows)


async def async_with_hides_no_exception(bg: BackgroundGenerator[int]) -> int:
    async with bg:
        return next(bg)  # a __aexit__ that returns bool would need another return below


def properties(bg: BackgroundGenerator[bytes]) -> None:
    assert_type(bg.stop_event, StopEvent)
    assert_type(bg.stats, Stats)
    assert_type(bg.stats.delivered, int)
    assert_type(bg.stats.buffered, int)
    assert_type(bg.stats.producer_wait, float)
    assert_type(bg.stats.consumer_wait, float)


def covariance(bools: BackgroundGenerator[bool], rows: Rows) -> None:
    ints: BackgroundGenerator[int] = bools
    objects: BackgroundGenerator[object] = ints
    iterator: Iterator[float] = ints
    more_ints: BackgroundGenerator[int] = rows
    unions: list[BackgroundGenerator[int | str]] = [ints, more_ints, BackgroundGenerator("a")]
    print(objects, iterator, unions)


# --- the decorator ----------------------------------------------------------------------------------------------------


@background
def bare(path: str, /, size: int = 1, *, strict: bool = False) -> Iterator[bytes]:
    """Give no bytes."""
    yield b""


@background()
def called(*paths: str, **options: int) -> Iterable[bytes]:
    return [b""]


@background(max_prefetch=8)
def deep() -> list[int]:
    return []


@prefetch
def kept_from_version_1(path: str) -> Iterator[bytes]:
    yield b""


@background
def pairs(first: Iterable[int], second: Iterable[str] = ()) -> Iterator[tuple[int, str]]:
    yield from zip(first, second, strict=True)


def functions() -> None:
    assert_type(bare("a"), BackgroundGenerator[bytes])
    assert_type(bare("a", 2, strict=True), BackgroundGenerator[bytes])
    assert_type(bare("a", size=2), BackgroundGenerator[bytes])
    assert_type(called("a", "b", c=1), BackgroundGenerator[bytes])
    assert_type(deep(), BackgroundGenerator[int])
    assert_type(deep, Callable[[], BackgroundGenerator[int]])
    assert_type(kept_from_version_1("a"), BackgroundGenerator[bytes])
    assert_type(pairs(range(2), second="ab"), BackgroundGenerator[tuple[int, str]])
    with bare("a") as bg:
        assert_type(bg, BackgroundGenerator[bytes])


class Reader:
    @background
    def method(self, size: int, *, strict: bool = False) -> Iterator[bytes]:
        yield b""

    @background(max_prefetch=3)
    def deep_method(self) -> Iterator[Self]:
        yield self

    @classmethod
    @background
    def class_method(cls, size: int) -> Iterator[str]:
        yield cls.__name__

    @staticmethod
    @background
    def static_method(size: int = 1) -> Iterator[int]:
        yield size

    @staticmethod
    @background(max_prefetch=3)
    def deep_static_method(size: int = 1) -> Iterator[int]:
        yield size


def methods(reader: Reader) -> None:
    assert_type(reader.method(1, strict=True), BackgroundGenerator[bytes])
    assert_type(Reader.method(reader, size=1), BackgroundGenerator[bytes])
    assert_type(reader.deep_method(), BackgroundGenerator[Reader])
    assert_type(reader.class_method(1), BackgroundGenerator[str])
    assert_type(Reader.class_method(size=1), BackgroundGenerator[str])
    assert_type(reader.static_method(), BackgroundGenerator[int])
    assert_type(Reader.static_method(size=2), BackgroundGenerator[int])
    assert_type(Reader.deep_static_method(2), BackgroundGenerator[int])


# --- the decorator, with a process ------------------------------------------------------------------------------------


@background(process=True)
def computed(path: str, /, size: int = 1, *, strict: bool = False) -> Iterator[bytes]:
    """Give no bytes."""
    yield b""


@background(max_prefetch=8, process="spawn")
def spawned(*paths: str, **options: int) -> list[int]:
    return []


class Computing:
    @background(process="forkserver")
    def method(self, size: int) -> Iterator[bytes]:
        yield b""

    @classmethod
    @background(process="fork")
    def class_method(cls, size: int) -> Iterator[str]:
        yield cls.__name__

    @staticmethod
    @background(process=False)
    def static_method(size: int = 1) -> Iterator[int]:
        yield size


def processes(computing: Computing, process: bool) -> None:
    assert_type(computed("a"), BackgroundGenerator[bytes])
    assert_type(computed("a", size=2, strict=True), BackgroundGenerator[bytes])
    assert_type(spawned("a", "b", c=1), BackgroundGenerator[int])
    assert_type(computing.method(1), BackgroundGenerator[bytes])
    assert_type(Computing.method(computing, size=1), BackgroundGenerator[bytes])
    assert_type(Computing.class_method(1), BackgroundGenerator[str])
    assert_type(computing.static_method(size=2), BackgroundGenerator[int])
    assert_type(background(process=process)(computing.static_method)(1), BackgroundGenerator[int])


def died(bg: BackgroundGenerator[bytes]) -> None:
    try:
        bg.next()
    except SourceProcessError as error:
        assert_type(error.exitcode, int | None)
        failure: RuntimeError = error
        raise failure from SourceProcessError("a", -9)


# --- asynchronous sources ---------------------------------------------------------------------------------------------


@background
async def pages(url: str, *, size: int = 1) -> AsyncIterator[bytes]:
    yield b""


@background(max_prefetch=3)
async def deep_pages(url: str) -> AsyncGenerator[bytes, None]:
    yield b""


@background
def stream(url: str) -> AsyncIterable[bytes]:
    raise NotImplementedError


@background()
def either(url: str) -> Iterable[str] | AsyncIterable[str]:
    return url


class Client:
    @background
    async def pages(self, size: int) -> AsyncIterator[bytes]:
        yield b""

    @staticmethod
    @background
    async def numbers(size: int = 1) -> AsyncIterator[int]:
        yield size


def asynchronous_sources(iterator: AsyncIterator[int], iterable: AsyncIterable[str], client: Client) -> None:
    assert_type(BackgroundGenerator(iterator), BackgroundGenerator[int])
    assert_type(BackgroundGenerator(iterable, max_prefetch=0, name="n"), BackgroundGenerator[str])
    assert_type(pages("a", size=2), BackgroundGenerator[bytes])
    assert_type(deep_pages("a"), BackgroundGenerator[bytes])
    assert_type(stream("a"), BackgroundGenerator[bytes])
    assert_type(either("a"), BackgroundGenerator[str])
    assert_type(client.pages(1), BackgroundGenerator[bytes])
    assert_type(Client.numbers(size=2), BackgroundGenerator[int])
    for page in pages("a"):
        assert_type(page, bytes)


# --- stop events and the version --------------------------------------------------------------------------------------


def stop_events(event: StopEvent) -> None:
    assert_type(StopEvent(), StopEvent)
    assert_type(event.is_set(), bool)
    assert_type(event.wait(), bool)
    assert_type(event.wait(1), bool)
    assert_type(event.wait(timeout=None), bool)
    assert_type(current_stop_event(), StopEvent)
    set_: Callable[[], None] = event.set
    print(set_)
    with event.on_set(event.set) as entered:
        assert_type(entered, None)


version: str = __version__
