"""Real work: where prefetching pays, and where it cannot."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import os
import random
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.candidates import FLOOR, PLAIN, VERSION_1, Candidate, GapError
from benchmarks.workload import Column, Params, Ratio, Workload

HELD = 2  # items begun and not delivered, or as few as a candidate can hold
FILES, FILE_SIZE = 24, 1 << 21
ROWS, CHUNK = 60_000, 1000
BATCHES, SIDE = 40, 300


class Work(NamedTuple):
    """A source, and what is done with each of its items."""

    source: Callable[[Path], Iterator[Any]]
    use: Callable[[Any], object]
    prepare: Callable[[Path], object]


def write_files(folder: Path) -> None:
    """Write compressed files of half-random bytes."""
    draw = random.Random(1)  # noqa: S311 - not for secrets
    words = [draw.randbytes(8) for _ in range(64)]
    block = b"".join(draw.choice(words) for _ in range(1 << 15))  # longer than what zlib looks back for
    data = zlib.compress(block * (FILE_SIZE // len(block)), 1)
    for number in range(FILES):
        (folder / f"{number}.z").write_bytes(data)


def files(folder: Path) -> Iterator[bytes]:
    """Read and decompress."""
    for path in sorted(folder.glob("*.z")):
        yield zlib.decompress(path.read_bytes())


def write_table(folder: Path) -> None:
    """Write a database."""
    draw = random.Random(2)  # noqa: S311
    with contextlib.closing(sqlite3.connect(folder / "rows.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT, value REAL)")
        connection.executemany(
            "INSERT INTO rows (name, value) VALUES (?, ?)",
            ((f"name {draw.randrange(1000)}", draw.random()) for _ in range(ROWS)),
        )


def chunks(folder: Path) -> Iterator[list[tuple[str, float]]]:
    """Fetch sorted rows, a chunk at a time."""
    with contextlib.closing(sqlite3.connect(folder / "rows.sqlite")) as connection:
        cursor = connection.execute("SELECT name, value FROM rows ORDER BY value")
        while rows := cursor.fetchmany(CHUNK):
            yield rows


def total_by_name(rows: list[tuple[str, float]]) -> dict[str, float]:
    """Add up in Python, under the GIL."""
    totals: dict[str, float] = {}
    for name, value in rows:
        totals[name] = totals.get(name, 0.0) + value
    return totals


def batches(_folder: Path) -> Iterator[Any]:
    """Draw and sort arrays."""
    numpy = importlib.import_module("numpy")
    draw = numpy.random.default_rng(3)
    for _ in range(BATCHES):
        batch = draw.standard_normal((SIDE, SIDE))
        batch.sort(axis=1)
        yield batch


def multiply(batch: Any) -> object:
    """Multiply a matrix with itself a few times."""
    return batch @ batch @ batch


WORKS = {
    "files": Work(files, lambda data: hashlib.sha256(data).digest(), write_files),
    "sqlite": Work(chunks, total_by_name, write_table),
    "numpy": Work(batches, multiply, lambda _: None),
}


def measure(candidate: Candidate, params: Params) -> dict[str, float]:
    """Return the seconds of the fastest pass: of the loop, or for the floor, of its longer side."""
    if params["work"] == "numpy" and not importlib.util.find_spec("numpy"):
        raise GapError("not installed: numpy")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # otherwise the matrix product alone takes all processors
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    work = WORKS[params["work"]]
    make = candidate.make()
    depth = candidate.depth_for(HELD) or 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work.prepare(folder)
        timed(work, work.source(folder))  # a pass that is not counted: imports, files in memory
        loop, longer = min(timed(work, make(work.source(folder), depth)) for _ in range(params["passes"]))
    return {"seconds": longer if candidate is FLOOR else loop}


def timed(work: Work, items: Iterator[Any]) -> tuple[float, float]:
    """Return the seconds of the loop, and of the longer one of its sides."""
    making = using = 0.0
    start = before = time.perf_counter()
    for item in items:
        made = time.perf_counter()
        work.use(item)
        making += made - before
        before = time.perf_counter()
        using += before - made
    return time.perf_counter() - start, max(making, using)


REAL_WORK = Workload(
    name="real work",
    text="Milliseconds of the whole loop, two items held. `files`: read, decompressed, hashed. `sqlite`: sorted rows "
    "fetched a thousand at a time, added up in Python. `numpy`: arrays drawn and sorted, multiplied. Floor: the longer "
    "of the two sides, timed in the plain loop.",
    cases={key: {"work": key, "passes": 3} for key in WORKS},
    quick={key: {"work": key, "passes": 1} for key in WORKS},
    measure=measure,
    columns=[Column(key, key, "seconds", 1e3, "ms") for key in WORKS],
    ratios=[Ratio(key, key, "seconds", against) for key in WORKS for against in (PLAIN.name, FLOOR.name, VERSION_1)],
    extra=(PLAIN, FLOOR),
)
