"""Who is measured: this library, its peers, and what people write by hand.

`make` takes a source and a depth. The source is a `partial` of a module-level function, the number of its items first,
for that is what each start method can send. A candidate uses the start method that `multiprocessing` is set to.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.processes.sources import arrays
from benchmarks.table import Candidate, GapError

if TYPE_CHECKING:
    Source: TypeAlias = partial[Iterator[Any]]

Make = Callable[["Source", int], Iterator[Any]]

END = None  # the same object in every process
THREAD, GRAIN = "prefetch_generator 2, a thread", "grain"


def _ours() -> Make:
    background = import_module("prefetch_generator").background

    def make(source: Source, depth: int) -> Iterator[Any]:
        # Not `True`, which would be forkserver where the others fork.
        decorate = background(max_prefetch=depth, process=multiprocessing.get_start_method())
        return decorate(source.func)(*source.args)  # type: ignore[no-any-return]

    return make


def _thread() -> Make:
    make = import_module("prefetch_generator").BackgroundGenerator
    return lambda source, depth: make(source(), depth)


def queue_by_hand(source: Source, depth: int) -> Iterator[Any]:
    """Do what most people first write."""
    items: multiprocessing.Queue[Any] = multiprocessing.Queue(depth)
    return received(items, source)


def received(items: Any, source: Source) -> Iterator[Any]:
    """Start a process that puts everything into the queue, and give what comes out."""
    multiprocessing.Process(target=_put_all, args=(items, source), daemon=True).start()
    while (item := items.get()) is not END:
        yield item


def _put_all(items: Any, source: Source) -> None:
    for item in source():
        items.put(item)
    items.put(END)


def pool_of_one(source: Source, _depth: int) -> Iterator[Any]:
    """Use what has no bound and knows no generators: a task for each item."""
    with multiprocessing.Pool(1, _begin, (source,)) as pool:
        yield from pool.imap(_step, range(source.args[0]))


_running: list[Iterator[Any]] = []  # in a pool's process


def _begin(source: Source) -> None:
    _running.append(source())


def _step(_number: int) -> Any:
    return next(_running[0])


def _by_fork(make: Make) -> Make:
    def checked(source: Source, depth: int) -> Iterator[Any]:
        if multiprocessing.get_start_method() != "fork":
            raise GapError("must fork")
        return make(source, depth)

    return checked


def _multiprocessing_generator() -> Make:
    generator = import_module("multiprocessing_generator").ParallelGenerator
    return _by_fork(lambda source, depth: generator(source(), max_lookahead=depth).__enter__())


def _threaded_generator() -> Make:
    generator = import_module("threaded_generator.threaded_generator").ProcessGenerator
    return _by_fork(lambda source, depth: iter(generator(source(), maxsize=depth)))


def _spdl() -> Make:
    iterate = import_module("spdl.pipeline").iterate_in_subprocess
    return lambda source, depth: iter(iterate(source, buffer_size=depth))


def _spdl_segments() -> Make:
    pipeline = import_module("spdl.pipeline")

    def make(source: Source, depth: int) -> Iterator[Any]:
        if source.func is not arrays:
            raise GapError("is for arrays")
        if sys.version_info[:3] == (3, 13, 0):  # whose pickler cannot do what it needs
            raise GapError("fails with CPython 3.13.0")
        segments = pipeline.SharedMemorySegmentPool(source.args[1] + 4096, depth + 2)
        return iter(pipeline.iterate_in_subprocess(source, buffer_size=depth, arena=segments))

    return make


class Steps:
    """A source for whoever asks for items by their number, in order."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._items: Iterator[Any] = iter(())

    def __len__(self) -> int:
        return self._source.args[0]  # type: ignore[no-any-return]

    def __getitem__(self, number: int) -> Any:
        if number == 0:
            self._items = self._source()
        return next(self._items)


def _grain() -> Make:
    grain = import_module("grain")
    read = grain.ReadOptions(num_threads=0)  # in the other process: only one thread at a time may be in the source

    def make(source: Source, depth: int) -> Iterator[Any]:
        items = grain.MapDataset.source(Steps(source)).to_iter_dataset(read)
        return iter(items.mp_prefetch(grain.MultiprocessingOptions(num_workers=1, per_worker_buffer_size=depth)))

    return make


def _data_loader() -> Make:
    load = import_module("torch.utils.data").DataLoader
    return lambda source, depth: iter(load(Steps(source), batch_size=None, num_workers=1, prefetch_factor=depth))


CANDIDATES = (
    Candidate("prefetch_generator 2", _ours, "prefetch_generator"),
    Candidate(THREAD, _thread),
    Candidate("mp.Queue", lambda: queue_by_hand, extra=1),
    Candidate("mp.Pool(1).imap", lambda: pool_of_one),
    Candidate("multiprocessing_generator", _multiprocessing_generator, "multiprocessing_generator", extra=1),
    Candidate("threaded-generator", _threaded_generator, "threaded-generator", extra=1),
    Candidate("spdl", _spdl, "spdl", extra=1),
    Candidate("spdl, sized segments", _spdl_segments, "spdl", extra=1),
    Candidate(GRAIN, _grain, "grain", extra=1),
    Candidate("DataLoader", _data_loader, "torch"),
)
