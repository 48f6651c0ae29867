"""What prefetching gains: sides that only sleep, and real work, where it pays and where it cannot."""

from __future__ import annotations

import contextlib
import hashlib
import random
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.synchronous.candidates import VERSION_1
from benchmarks.table import Candidate, GapError, Metrics, Workload


class Case(NamedTuple):
    """What one item takes, and how much is made ahead."""

    source: float  # milliseconds
    consumer: float
    held: int = 2  # items that have been begun and not yet delivered
    exponential: bool = False  # those are the means


def measure_overlap(candidate: Candidate, case: Case, share: float) -> Metrics:
    """Return how many times as fast as a plain loop it was.

    The plain loop's time is the sum of this very run's sleeps. Each is longer than it was asked to be, by an amount
    that has nothing to do with the candidate.
    """
    depth = candidate.depth_for(case.held)
    for _ in candidate.make(iter(range(3)), depth):
        pass
    count = int(1000 * max(share, 0.3) / max(case.source, case.consumer))
    draw = random.Random(5)  # noqa: S311 - not for secrets; the same for every candidate
    to_make, to_use = (
        [(draw.expovariate(1 / mean) if case.exponential else mean) / 1000 for _ in range(count)]
        for mean in (case.source, case.consumer)
    )

    def source() -> Iterator[float]:
        for seconds in to_make:
            begun = time.perf_counter()
            time.sleep(seconds)
            yield time.perf_counter() - begun

    plain = 0.0
    start = time.perf_counter()
    for made, seconds in zip(candidate.make(source(), depth), to_use):  # noqa: B905 - as long, and asked to the end
        begun = time.perf_counter()
        time.sleep(seconds)
        plain += made + time.perf_counter() - begun
    return {"": plain / (time.perf_counter() - start)}


OVERLAP = Workload(
    name="overlap",
    text="How many times as fast as the plain loop, when source and consumer sleep (source/consumer). Every candidate "
    "holds the same number of items: two, unless the column says otherwise. The most there is to gain is 2 for equal "
    "steps, and 1.2 for 10 ms beside 2 ms.",
    cases={
        "1/1 ms": Case(1, 1),
        "5/5 ms": Case(5, 5),
        "10/2 ms": Case(10, 2),
        "2/10 ms": Case(2, 10),
        "5/5 ms, held 1": Case(5, 5, held=1),
        "exponential 5/5 ms": Case(5, 5, exponential=True),
        "exponential 5/5 ms, held 8": Case(5, 5, held=8, exponential=True),
    },
    measure=measure_overlap,
)


class Work(NamedTuple):
    """A source, what is done with each of its items, and what has to be there before."""

    source: Callable[[Path], Iterator[Any]]
    use: Callable[[Any], object]
    prepare: Callable[[Path], object] = bool


def write_files(folder: Path) -> None:
    """Write compressed files of half-random bytes."""
    draw = random.Random(1)  # noqa: S311 - not for secrets
    words = [draw.randbytes(8) for _ in range(64)]
    block = b"".join(draw.choice(words) for _ in range(1 << 15))  # longer than what zlib looks back for
    for number in range(24):
        (folder / f"{number}.z").write_bytes(zlib.compress(block * 8, 1))


def files(folder: Path) -> Iterator[bytes]:
    """Read and decompress."""
    for path in sorted(folder.glob("*.z")):
        yield zlib.decompress(path.read_bytes())


def write_rows(folder: Path) -> None:
    """Write a database."""
    draw = random.Random(2)  # noqa: S311
    rows = [(f"name {draw.randrange(1000)}", draw.random()) for _ in range(60_000)]
    with contextlib.closing(sqlite3.connect(folder / "rows.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT, value REAL)")
        connection.executemany("INSERT INTO rows (name, value) VALUES (?, ?)", rows)


def chunks(folder: Path) -> Iterator[list[tuple[str, float]]]:
    """Fetch sorted rows, a thousand at a time."""
    with contextlib.closing(sqlite3.connect(folder / "rows.sqlite")) as connection:
        cursor = connection.execute("SELECT name, value FROM rows ORDER BY value")
        while rows := cursor.fetchmany(1000):
            yield rows


def total_by_name(rows: list[tuple[str, float]]) -> dict[str, float]:
    """Add up in Python, under the GIL."""
    totals: dict[str, float] = {}
    for name, value in rows:
        totals[name] = totals.get(name, 0.0) + value
    return totals


def batches(_folder: Path) -> Iterator[Any]:
    """Draw and sort arrays."""
    try:
        draw = import_module("numpy").random.default_rng(3)
    except ImportError as error:
        raise GapError("not installed: numpy") from error
    for _ in range(40):
        batch = draw.standard_normal((300, 300))
        batch.sort(axis=1)
        yield batch


WORKS = {
    "files": Work(files, lambda data: hashlib.sha256(data).digest(), write_files),
    "sqlite": Work(chunks, total_by_name, write_rows),
    "numpy": Work(batches, lambda batch: batch @ batch @ batch),
}


def fastest(work: Work, share: float, prefetch: Callable[[Iterator[Any]], Iterable[Any]]) -> tuple[float, float]:
    """Return the milliseconds of the fastest pass: of the loop, and of the longer one of its sides."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work.prepare(folder)
        timed(work, work.source(folder))  # a pass that is not counted: imports, files in memory
        return min(timed(work, prefetch(work.source(folder))) for _ in range(max(1, int(3 * share))))


def timed(work: Work, items: Iterable[Any]) -> tuple[float, float]:
    """Return the milliseconds of one pass: of the loop, and of the longer one of its sides."""
    making = using = 0.0
    start = before = time.perf_counter()
    for item in items:
        made = time.perf_counter()
        work.use(item)
        making += made - before
        before = time.perf_counter()
        using += before - made
    return 1e3 * (time.perf_counter() - start), 1e3 * max(making, using)


def measure_work(candidate: Candidate, work: Work, share: float) -> Metrics:
    """Return the time of the loop with two items held, or as few as the candidate can hold."""
    depth = max(1, candidate.usual_depth - candidate.extra)
    return {"ms": fastest(work, share, lambda items: candidate.make(items, depth))[0]}


REAL_WORK = Workload(
    name="real work",
    text="The time of the whole loop, two items held. `files`: read, decompressed, hashed. `sqlite`: sorted rows "
    "fetched a thousand at a time, added up in Python. `numpy`: arrays drawn and sorted, multiplied. Floor: the longer "
    "of the two sides, timed in the plain loop.",
    cases=WORKS,
    measure=measure_work,
    floors={
        "plain loop": lambda work, share: {"ms": fastest(work, share, iter)[0]},
        "floor": lambda work, share: {"ms": fastest(work, share, iter)[1]},
    },
    against=("plain loop", "floor", VERSION_1),
)
