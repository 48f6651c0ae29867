"""Read the rows of an SQLite database in the background.

The whole source runs on one thread, from its first row to its last `finally`: a connection that
is opened inside it is used and closed where it was made, which is what `sqlite3` insists on.
One that is opened outside and handed in raises `sqlite3.ProgrammingError`.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from prefetch_generator import background

ROWS = 20_000


def fill(database: Path) -> None:
    """Make a database to read."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE reading (id INTEGER PRIMARY KEY, celsius REAL)")
        connection.executemany("INSERT INTO reading VALUES (?, ?)", ((i, i % 40 / 2) for i in range(ROWS)))


@background(max_prefetch=1000)
def readings(database: Path) -> Iterator[tuple[int, float]]:
    """Yield the rows in order; the connection is closed however the reading ends."""
    with closing(sqlite3.connect(database)) as connection:
        yield from connection.execute("SELECT id, celsius FROM reading ORDER BY id")


def main() -> None:
    """Read all rows, then only the first few."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "readings.db")
        fill(database)

        rows = list(readings(database))
        if rows != [(i, i % 40 / 2) for i in range(ROWS)]:
            raise RuntimeError("the rows differ from those written")
        print(f"read {len(rows)} rows, mean {sum(row[1] for row in rows) / len(rows):.2f} degrees")

        # Leaving early: at the end of `with` the connection is closed, so that the file can be
        # deleted on Windows too.
        with readings(database) as some:
            first = list(islice(some, 3))
        if first != rows[:3]:
            raise RuntimeError("the first rows differ")
        database.unlink()
        print(f"read the first {len(first)} rows and closed the database")


if __name__ == "__main__":
    main()
