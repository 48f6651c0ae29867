"""What the programs of a recipe need around them: files, a database, a server.

Each is a block that gives what to replace in the programs' text, such as the address of a server. It is called with the
folder that they run in.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from subprocess import DEVNULL

import pytest

Surroundings = Callable[[Path], AbstractContextManager[dict[str, str]]]


@contextmanager
def weather(folder: Path) -> Iterator[dict[str, str]]:
    """Make a database of SQLite."""
    with closing(sqlite3.connect(folder / "weather.db")) as connection, connection:
        connection.execute("CREATE TABLE reading (id INTEGER PRIMARY KEY, celsius REAL)")
        connection.executemany("INSERT INTO reading VALUES (?, ?)", ((i, (i - 1) % 40 / 2) for i in range(1, 20_001)))
    yield {}


@contextmanager
def shop(_: Path) -> Iterator[dict[str, str]]:
    """Start a server of PostgreSQL, with a table in it."""
    # Debian, and so GitHub's machines, have its commands in a folder that is not on PATH.
    path = os.pathsep.join([os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
    if missing := [name for name in ("initdb", "pg_ctl", "postgres") if shutil.which(name, path=path) is None]:
        pytest.skip(f"PostgreSQL's {', '.join(missing)}: not installed")
    # It refuses to be root, and wants a short path for its socket: a folder of its own that another user can enter.
    user = "nobody" if sys.platform != "win32" and os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        if user is not None:
            shutil.chown(folder, user)

        def run(command: str, *arguments: str, statements: str = "") -> None:
            words = [shutil.which(command, path=path) or command, *arguments]
            data = os.environ | {"PGDATA": str(Path(folder, "data"))}
            subprocess.run(
                words, cwd=folder, env=data, user=user, input=statements, text=True, stdout=DEVNULL, check=True
            )

        run("initdb", "--auth=trust", "--username=postgres", "--locale=C", "--no-sync")
        table = "CREATE TABLE item AS SELECT id, id AS price FROM generate_series(1, 10000) AS id;"
        run("postgres", "--single", "postgres", statements=table)
        options = f"-F -c listen_addresses='' -c unix_socket_directories='{folder}'"
        run("pg_ctl", "start", "-w", "-l", "log", "-o", options)
        try:
            yield {"dbname=shop": f"host={folder} user=postgres dbname=postgres"}
        finally:
            run("pg_ctl", "stop", "-w", "-m", "fast")
