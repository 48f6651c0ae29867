"""Contract, section "Public names"."""

from __future__ import annotations

import inspect
import pickle
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from types import ModuleType

import pytest

import prefetch_generator
from prefetch_generator import BackgroundGenerator, Stats, StopEvent, background, current_stop_event, prefetch
from tests.helpers import LONG

NAMES = {
    "BackgroundGenerator",
    "BackgroundIterable",
    "NotReadyError",
    "SourceProcessError",
    "background",
    "prefetch",
    "StopEvent",
    "current_stop_event",
    "Stats",
    "__version__",
}


def test_nothing_else_is_public() -> None:
    """Public names: these names. Nothing else is public."""
    assert sorted(prefetch_generator.__all__) == sorted(NAMES)
    visible = {name for name in vars(prefetch_generator) if not name.startswith("_")}
    assert visible == NAMES - {"__version__"}
    modules = [value for value in vars(prefetch_generator).values() if isinstance(value, ModuleType)]
    assert all(module.__name__.rpartition(".")[2].startswith("_") for module in modules)


def test_all_report_the_package_as_their_module() -> None:
    """Public names: all report `__module__ == "prefetch_generator"`."""
    for name in NAMES - {"__version__"}:
        assert getattr(prefetch_generator, name).__module__ == "prefetch_generator"


def test_prefetch_is_background() -> None:
    """Public names: `prefetch` (the same object as `background`, kept from version 1)."""
    assert prefetch is background


def test_version_is_that_of_the_distribution() -> None:
    """Public names: `__version__` is what the installed distribution says, too."""
    assert prefetch_generator.__version__ == version("prefetch-generator")


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (BackgroundGenerator, "(iterable, max_prefetch=2, *, stop_event=None, name=None)"),
        (BackgroundGenerator.next, "(self, timeout=None)"),
        (BackgroundGenerator.close, "(self, timeout=5.0)"),
        (BackgroundGenerator.__enter__, "(self)"),
        (BackgroundGenerator.__exit__, "(self, *exc)"),
        (BackgroundGenerator.__length_hint__, "(self)"),
        (background, "(*function, max_prefetch=2, process=False)"),
        (StopEvent, "()"),
        (StopEvent.set, "(self)"),
        (StopEvent.is_set, "(self)"),
        (StopEvent.wait, "(self, timeout=None)"),
        (current_stop_event, "()"),
    ],
)
def test_signatures(function: object, signature: str) -> None:
    """Public names: arguments, their defaults, and which are keyword-only."""
    assert callable(function)
    found = inspect.signature(function)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in found.parameters.values()]
    assert str(inspect.Signature(bare)) == signature


def test_iterator_of_itself() -> None:
    """Public names: `class BackgroundGenerator(Iterator[T_co])`: generic; iter(bg) is bg."""
    with BackgroundGenerator([1]) as bg:
        assert isinstance(bg, Iterator)
        assert iter(bg) is bg
        assert next(bg) == 1
    assert BackgroundGenerator[int].__origin__ is BackgroundGenerator  # type: ignore[attr-defined]


def test_enter_gives_itself_and_exit_closes() -> None:
    """Public names: `__enter__` gives the generator, `__exit__` is close(), and hides no exception."""
    bg = BackgroundGenerator(range(9))
    assert bg.__enter__() is bg
    with pytest.raises(ZeroDivisionError), bg:
        raise ZeroDivisionError
    assert bg.stop_event.is_set()
    assert list(bg) == []


def test_properties_are_read_only() -> None:
    """Public names: `stop_event` and `stats` are properties."""
    with BackgroundGenerator([1]) as bg:
        assert type(bg.stop_event) is StopEvent
        assert bg.stop_event is bg.stop_event
        assert type(bg.stats) is Stats
        with pytest.raises(AttributeError):
            bg.stop_event = StopEvent()  # type: ignore[misc]
        with pytest.raises(AttributeError):
            bg.stats = bg.stats  # type: ignore[misc]


def test_stop_event_is_this_generators_own() -> None:
    """Public names: `stop_event` is this generator's own: set by close(), by dropping it."""
    first, second = BackgroundGenerator([1]), BackgroundGenerator([1])
    assert first.stop_event is not second.stop_event
    first.close()
    assert (first.stop_event.is_set(), second.stop_event.is_set()) == (True, False)
    event = second.stop_event
    del second
    assert event.wait(LONG)


def test_stats_are_an_immutable_record() -> None:
    """Public names: `Stats` is an immutable record: `delivered` and `buffered`, `producer_wait` and `consumer_wait`."""
    stats = Stats(delivered=3, buffered=2, producer_wait=0.5, consumer_wait=0.25)
    assert repr(stats) == "Stats(delivered=3, buffered=2, producer_wait=0.5, consumer_wait=0.25)"
    for field in ("delivered", "buffered", "producer_wait", "consumer_wait", "another"):
        with pytest.raises(AttributeError):
            setattr(stats, field, 0)
    assert pickle.loads(pickle.dumps(stats)) == stats == (3, 2, 0.5, 0.25)
    assert hash(stats) == hash((3, 2, 0.5, 0.25))


def test_stats_count_items() -> None:
    """Public names: `delivered` and `buffered` (items), as they are now and not when the record was taken."""
    at_the_third = threading.Event()

    def source() -> Iterator[int]:
        yield from range(2)
        at_the_third.set()  # the first two are in the buffer
        bg.stop_event.wait(LONG)
        yield 2

    with BackgroundGenerator(source(), max_prefetch=3) as bg:
        assert at_the_third.wait(LONG)
        before = bg.stats
        next(bg)
        assert before[:2] == (0, 2)
        assert bg.stats[:2] == (1, 1)
    assert bg.stats[:2] == (1, 0)


def test_producer_wait_is_the_seconds_the_worker_waited_for_room() -> None:
    """Public names: `producer_wait`: seconds the worker waited for room."""
    asked = [threading.Event() for _ in range(3)]

    def source() -> Iterator[int]:
        for number, event in enumerate(asked):
            event.set()
            yield number
        bg.stop_event.wait(LONG)

    started = time.perf_counter()
    with BackgroundGenerator(source(), max_prefetch=2) as bg:
        assert asked[1].wait(LONG)  # the first item is ready; the worker makes the second and then has no room
        time.sleep(0.1)  # what is to be measured
        next(bg)
        assert asked[2].wait(LONG)
        stats = bg.stats
    assert stats.consumer_wait == 0.0 < stats.producer_wait < time.perf_counter() - started


def test_consumer_wait_is_the_seconds_consumers_waited_for_items() -> None:
    """Public names: `consumer_wait`: seconds consumers waited for items, also where they waited in vain."""
    go = threading.Event()

    def source() -> Iterator[int]:
        assert go.wait(LONG)
        yield 0

    with BackgroundGenerator(source(), max_prefetch=0) as bg:
        started = time.perf_counter()
        with pytest.raises(TimeoutError):
            bg.next(timeout=0.05)
        first = bg.stats
        assert 0.04 < first.consumer_wait < time.perf_counter() - started
        threading.Timer(0.05, go.set).start()
        next(bg)
        assert first.consumer_wait < bg.stats.consumer_wait < time.perf_counter() - started
        assert bg.stats.producer_wait == 0.0


def test_nothing_else_is_in_the_package() -> None:
    """Public names: what the package needed to set itself up is gone."""
    names = {name for name, value in vars(prefetch_generator).items() if not isinstance(value, ModuleType)}
    assert {name for name in names if not name.startswith("__")} == {
        name for name in prefetch_generator.__all__ if not name.startswith("__")
    }


def test_a_with_block_calls_the_close_of_a_subclass() -> None:
    """Public names: `__exit__` is close(), and so what a subclass makes of it."""
    closed = []

    class Logged(BackgroundGenerator[int]):
        def close(self, timeout: float | None = 5.0) -> bool:
            closed.append(timeout)
            return super().close(timeout)

    with Logged(range(3)):
        pass
    assert closed == [5.0]
