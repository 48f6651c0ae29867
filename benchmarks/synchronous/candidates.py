"""Who is measured: this library, its version 1, its peers, and what people write by hand."""

from __future__ import annotations

import queue
import runpy
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.table import Candidate, GapError

ENDLESS = 1_000_000_000  # for peers that know no "unbounded"
END = object()

Make = Callable[[Iterable[Any], int], Iterator[Any]]


def close(iterator: Any) -> None:
    """Stop `iterator` in its own way, if it has one."""
    for name in ("close", "stop", "_shutdown"):
        method = getattr(iterator, name, None)
        if method is not None:
            method()
            return


def _ours() -> Make:
    return import_module("prefetch_generator").BackgroundGenerator  # type: ignore[no-any-return]


def _version_1() -> Make:
    # It has the name of the library that is measured, so run its file, which is in the last folder: the peers'.
    file = Path(sys.path[-1], "prefetch_generator", "__init__.py")
    if not file.is_file():
        raise ImportError("No prefetch_generator 1.0.3 in the folder of the peers")
    return runpy.run_path(str(file))["BackgroundGenerator"]  # type: ignore[no-any-return]


def _streamable() -> Make:
    stream = import_module("streamable").stream
    return lambda source, depth: iter(stream(source).buffer(depth or ENDLESS))


def _torchdata() -> Make:
    nodes = import_module("torchdata.nodes")

    def make(source: Iterable[Any], depth: int) -> Iterator[Any]:
        node = nodes.Prefetcher(nodes.IterableWrapper(source), prefetch_factor=depth or ENDLESS)
        node.reset()
        return node._it  # type: ignore[no-any-return] # what the node iterates; it is what can be shut down

    return make


def _grain() -> Make:
    prefetch = import_module("grain.experimental").ThreadPrefetchDatasetIterator

    class Checkpointable:  # what it requires of its parent
        def __init__(self, source: Iterable[Any]) -> None:
            self.__next__ = iter(source).__next__

        def get_state(self) -> dict[str, Any]:
            return {}

    return lambda source, depth: prefetch(Checkpointable(source), depth or ENDLESS)


def _spdl() -> Make:
    builder = import_module("spdl.pipeline").PipelineBuilder

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
    return import_module("lazy_dataset.parallel_utils").single_thread_prefetch  # type: ignore[no-any-return]


def _multiprocessing_generator() -> Make:
    generator = import_module("multiprocessing_generator").ParallelGenerator

    def make(source: Iterable[Any], depth: int) -> Iterator[Any]:
        iterator = generator(source, max_lookahead=depth or None)
        iterator.__enter__()
        iterator.close = iterator.finish_if_possible
        return iterator  # type: ignore[no-any-return]

    return make


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


def one_ahead(source: Iterable[Any], depth: int) -> Iterator[Any]:
    """Prefetch one item with an executor: submit(next, it)."""
    if depth != 1:
        raise GapError("holds one item only")
    iterator = iter(source)
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(next, iterator, END)
        while (item := future.result()) is not END:
            future = executor.submit(next, iterator, END)
            yield item


CANDIDATES = (
    Candidate("prefetch_generator 2", _ours, "prefetch_generator"),
    Candidate("prefetch_generator 1.0.3", _version_1, extra=1, stops=False),
    Candidate("queue.Queue + thread", lambda: queue_and_thread, extra=1, stops=False),
    Candidate("SimpleQueue + semaphore", lambda: simple_queue_and_semaphore, extra=1),
    Candidate("submit(next, it)", lambda: one_ahead, most=1),
    Candidate("streamable", _streamable, "streamable"),
    Candidate("lazy_dataset", _lazy_dataset, "lazy_dataset", extra=1),
    Candidate("grain", _grain, "grain", extra=1),
    Candidate("spdl", _spdl, "spdl", extra=4),
    Candidate("torchdata", _torchdata, "torchdata"),
    Candidate("multiprocessing_generator", _multiprocessing_generator, "multiprocessing_generator", extra=1),
)
OURS, VERSION_1 = CANDIDATES[0].name, CANDIDATES[1].name
