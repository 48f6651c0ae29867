"""Who is measured: this library, its version 1, its peers, and what people write by hand.

Each candidate is given a depth and does with it what its documentation says. Most hold one item more, the one that
found the buffer full. That is their `extra`: where the number of items held matters, a workload can give each candidate
the same. The table of `memory` shows it.
"""

from __future__ import annotations

import importlib
import importlib.util
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ENDLESS = 1_000_000_000  # for peers that know no "unbounded"

Make = Callable[[Iterable[Any], int], Iterator[Any]]  # the depth 0 is no bound


class GapError(Exception):
    """A candidate cannot take part; the message says why."""


class MissingPeerError(GapError):
    """A candidate cannot take part anywhere."""


class Candidate(NamedTuple):
    """One way of prefetching."""

    name: str
    load: Callable[[], Make]
    package: str = ""  # what has to be installed for it
    extra: int = 0  # items it holds beyond the depth it was given
    depths: range = range(sys.maxsize)  # those it can be told; 0 is no bound
    can_close: bool = True  # has a way to stop early, other than being dropped

    def make(self) -> Make:
        """Return the function that makes an iterator; raise `MissingPeerError` if the package is not there."""
        try:
            return self.load()
        except ImportError as error:
            there = not self.package or importlib.util.find_spec(self.package)
            missing = str(error) if there else self.package
            raise MissingPeerError(f"not installed: {missing}") from error

    @property
    def usual_depth(self) -> int:
        """Two, or one for those that hold no more."""
        return 2 if 2 in self.depths else 1

    def require(self, depth: int) -> None:
        """Raise `GapError` unless it can be given that depth."""
        if depth not in self.depths:
            raise GapError("holds one item only")

    def depth_for(self, held: int) -> int | None:
        """Return the depth with which it holds `held` items, or None if there is none."""
        depth = held - self.extra
        return depth if depth > 0 and depth in self.depths else None


def close(iterator: Any) -> None:
    """Stop `iterator` in its own way, if it has one."""
    for name in ("close", "stop", "_shutdown"):
        method = getattr(iterator, name, None)
        if method is not None:
            method()
            return


def _ours() -> Make:
    return importlib.import_module("prefetch_generator").BackgroundGenerator  # type: ignore[no-any-return]


def _version_1() -> Make:
    # It has the name of the library that is measured, so load it from its file under another one.
    for folder in sys.path:
        path = Path(folder, "prefetch_generator", "__init__.py")
        if path.is_file() and "class BackgroundGenerator(Thread)" in path.read_text(encoding="utf-8"):
            spec = importlib.util.spec_from_file_location("prefetch_generator_1", path)
            if spec is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return lambda source, depth: module.BackgroundGenerator(source, max_prefetch=depth)
    raise ImportError("prefetch_generator 1.0.3 in the folder of the peers")


def _streamable() -> Make:
    stream = importlib.import_module("streamable").stream
    return lambda source, depth: iter(stream(source).buffer(depth or ENDLESS))


def _torchdata() -> Make:
    nodes = importlib.import_module("torchdata.nodes")

    def make(source: Iterable[Any], depth: int) -> Iterator[Any]:
        node = nodes.Prefetcher(nodes.IterableWrapper(source), prefetch_factor=depth or ENDLESS)
        node.reset()
        mapper: Iterator[Any] = node._it  # what the node iterates; it is what can be shut down
        return mapper

    return make


def _grain() -> Make:
    prefetch = importlib.import_module("grain.experimental").ThreadPrefetchDatasetIterator

    class Checkpointable:  # what it requires of its parent
        def __init__(self, source: Iterable[Any]) -> None:
            self.__next__ = iter(source).__next__

        def get_state(self) -> dict[str, Any]:
            return {}

        def set_state(self, state: dict[str, Any]) -> None:
            raise NotImplementedError

    return lambda source, depth: prefetch(Checkpointable(source), depth or ENDLESS)


def _spdl() -> Make:
    builder = importlib.import_module("spdl.pipeline").PipelineBuilder

    class Closable:
        def __init__(self, source: Iterable[Any], depth: int) -> None:
            pipeline = builder().add_source(source).add_sink(depth).build(num_threads=1, use_thread_output_queue=True)
            self.stop = pipeline.stop
            self.iterator: Iterator[Any] = iter(pipeline)

        def __iter__(self) -> Iterator[Any]:
            return self.iterator

        def __next__(self) -> Any:
            return next(self.iterator)

    return Closable


def _lazy_dataset() -> Make:
    # What its `Dataset.prefetch(1, depth)` runs.
    return importlib.import_module("lazy_dataset.parallel_utils").single_thread_prefetch  # type: ignore[no-any-return]


def _multiprocessing_generator() -> Make:
    generator = importlib.import_module("multiprocessing_generator").ParallelGenerator

    def make(source: Iterable[Any], depth: int) -> Iterator[Any]:
        iterator = generator(source, max_lookahead=depth or None)
        iterator.__enter__()
        iterator.close = iterator.finish_if_possible
        return iterator  # type: ignore[no-any-return]

    return make


END = object()


def queue_and_thread(source: Iterable[Any], depth: int) -> Iterator[Any]:
    """Prefetch the way most people first write it, with no way to stop the thread."""
    items: queue.Queue[Any] = queue.Queue(depth)

    def work() -> None:
        for item in source:
            items.put(item)
        items.put(END)

    threading.Thread(target=work, daemon=True).start()
    while (item := items.get()) is not END:
        yield item


def simple_queue_and_semaphore(source: Iterable[Any], depth: int) -> Iterator[Any]:
    """Prefetch as written by somebody who knows that `SimpleQueue` is fast and has no bound."""
    items: queue.SimpleQueue[Any] = queue.SimpleQueue()
    room = threading.Semaphore(depth or ENDLESS)
    stopped = False

    def work() -> None:
        for item in source:
            room.acquire()
            if stopped:
                return
            items.put(item)
        items.put(END)

    threading.Thread(target=work, daemon=True).start()
    try:
        while (item := items.get()) is not END:
            room.release()
            yield item
    finally:
        stopped = True
        room.release()


def one_ahead(source: Iterable[Any], depth: int) -> Iterator[Any]:  # noqa: ARG001 - it is always 1
    """Prefetch one item with an executor: submit(next, it)."""
    iterator = iter(source)
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(next, iterator, END)
        while (item := future.result()) is not END:
            future = executor.submit(next, iterator, END)
            yield item


def plain(source: Iterable[Any], depth: int) -> Iterator[Any]:  # noqa: ARG001 - it has none
    """Do not prefetch: the loop as it was before."""
    return iter(source)


CANDIDATES = (
    Candidate("prefetch_generator 2", _ours, "prefetch_generator"),
    Candidate("prefetch_generator 1.0.3", _version_1, extra=1, can_close=False),
    Candidate("queue.Queue + thread", lambda: queue_and_thread, extra=1, can_close=False),
    Candidate("SimpleQueue + semaphore", lambda: simple_queue_and_semaphore, extra=1),
    Candidate("submit(next, it)", lambda: one_ahead, depths=range(1, 2)),
    Candidate("streamable", _streamable, "streamable"),
    Candidate("lazy_dataset", _lazy_dataset, "lazy_dataset", extra=1),
    Candidate("grain", _grain, "grain", extra=1),
    Candidate("spdl", _spdl, "spdl", extra=4),
    Candidate("torchdata", _torchdata, "torchdata"),
    Candidate("multiprocessing_generator", _multiprocessing_generator, "multiprocessing_generator", extra=1),
)
OURS, VERSION_1 = CANDIDATES[0].name, CANDIDATES[1].name

PLAIN = Candidate("plain loop", lambda: plain, can_close=False)
FLOOR = Candidate("floor", lambda: plain, can_close=False)  # each workload has its own
OTHER_TREE = CANDIDATES[0]._replace(name="the other tree")  # of this library: --against
