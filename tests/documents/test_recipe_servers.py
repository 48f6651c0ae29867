"""The recipes for servers are true: each is started as its page says, and has clients that stay or leave."""

from __future__ import annotations

import re
import shlex
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import NamedTuple

import pytest

from prefetch_generator import BackgroundGenerator
from tests.helpers import LONG, needs, posix

from .programs import ROOT, Block, blocks, expected, run_program, skip_without_what_it_imports

RECIPES = ROOT / "docs" / "recipes"

# What a connection becomes that says when it is closed.
WATCHED = """
import sqlite3

class Watched(sqlite3.Connection):
    def close(self):
        super().close()
        print("the query has ended", flush=True)

def connect(path):
    return sqlite3.connect(path, factory=Watched)
"""

ROWS = 20_000
TABLE = f"CREATE TABLE item AS WITH RECURSIVE n (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n LIMIT {ROWS}) "
ENDLESS = "CREATE VIEW item AS WITH RECURSIVE n (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n) "
# Two pieces that reach the client, and then a search that never ends.
STUCK = "CREATE VIEW item AS WITH RECURSIVE m (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM m), "
STUCK += "n (id) AS (SELECT id FROM m WHERE id <= 1200) "


class Server(NamedTuple):
    """A server that runs."""

    process: Popen[str]
    port: int
    output: BackgroundGenerator[str]

    def wait_for(self, said: str) -> re.Match[str]:
        """Wait until it has printed that."""
        return _wait_for(said, self.output)

    def get(self) -> bytes:
        """Be a client that takes everything."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=LONG)) as connection:
            connection.request("GET", "/items")
            response = connection.getresponse()
            assert response.status == 200
            return response.read()

    def leave(self, after: bytes = b"1,2\n") -> None:
        """Be a client that goes when it has that row; the query has begun then."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=LONG) as connection:
            connection.sendall(b"GET /items HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            received = b""
            while after not in received:
                part = connection.recv(1000)
                assert part, received
                received += part


def _wait_for(said: str, output: BackgroundGenerator[str]) -> re.Match[str]:
    lines = []
    while True:
        try:
            lines.append(output.next(timeout=LONG))
        except (TimeoutError, StopIteration):
            pytest.fail(f"it did not say {said!r}, but: {''.join(lines)}")
        if match := re.search(said, lines[-1]):
            return match


@contextmanager
def serve(command: str, folder: Path) -> Iterator[Server]:
    """Start a server, on a port that is free, with a command as the page gives it."""
    program, *arguments = shlex.split(command)
    any_port = {"uvicorn": ["--port", "0"], "gunicorn": ["--bind", "127.0.0.1:0"]}[program]
    words = [sys.executable, "-u", "-m", program, *any_port, *arguments]
    with Popen(words, cwd=folder, stdout=PIPE, stderr=STDOUT, text=True) as process:
        assert process.stdout is not None
        with BackgroundGenerator(process.stdout, max_prefetch=0) as output:
            try:
                port = int(_wait_for(r"http://127\.0\.0\.1:(\d+)", output)[1])
                yield Server(process, port, output)
            finally:
                process.terminate()
                process.wait(LONG)


def replace_items(folder: Path, created: str) -> None:
    """Make the shop's items anew: a table, or an endless view."""
    with closing(sqlite3.connect(folder / "shop.db")) as connection, connection:
        connection.execute("DROP TABLE IF EXISTS item")
        connection.execute(f"{created} SELECT id, id * 2 AS price FROM n")


def applications() -> list[tuple[Block, Block]]:
    """Return the applications of the page, each with the command that starts it."""
    python: dict[int, Block] = {}
    sh: dict[int, Block] = {}
    for number, block in enumerate(blocks((RECIPES / "web-servers.md").read_text(encoding="utf-8"))):
        {"python": python, "sh": sh}[block.language][number // 2] = block
    assert python.keys() == sh.keys()
    return [(python[number], sh[number]) for number in python]


def prepare(application: Block, command: Block, folder: Path) -> None:
    """Save the application where the server looks for it, on a database that is watched."""
    skip_without_what_it_imports(application.code)
    skip_without_what_it_imports(f"import {shlex.split(command.code)[0]}")
    (folder / "watched.py").write_text(WATCHED, encoding="utf-8")
    code = application.code.replace("import sqlite3\n", "import watched as sqlite3\n")
    (folder / "app.py").write_text(code, encoding="utf-8")


@pytest.mark.parametrize(
    ("application", "command"), [pytest.param(*it, id=f"line-{it[0].line}") for it in applications()]
)
def test_a_query_is_streamed_and_ends_with_its_client(application: Block, command: Block, tmp_path: Path) -> None:
    """A client gets every row; one that leaves ends a query that has no end."""
    prepare(application, command, tmp_path)
    replace_items(tmp_path, TABLE)
    with serve(command.code, tmp_path) as server:
        assert server.get().decode() == "".join(f"{number},{number * 2}\n" for number in range(1, ROWS + 1))
        server.wait_for("the query has ended")
        replace_items(tmp_path, ENDLESS)
        server.leave()
        server.wait_for("the query has ended")


@pytest.mark.parametrize(
    ("application", "command"),
    [pytest.param(*it, id=f"line-{it[0].line}") for it in applications() if it[1].code.startswith("uvicorn")],
)
def test_a_query_that_is_looking_for_a_row_ends_with_its_client(
    application: Block, command: Block, tmp_path: Path
) -> None:
    """Under ASGI: the search for the next row has no end, so only `interrupt` can end it."""
    prepare(application, command, tmp_path)
    replace_items(tmp_path, STUCK)
    with serve(command.code, tmp_path) as server:
        server.leave(after=b"1000,2000\n")
        server.wait_for("the query has ended")


# gunicorn calls this when the worker has its own signal handlers: before that it misses a signal, or dies of it.
READY = """
def post_worker_init(worker):
    print("a worker is ready", flush=True)
"""


@posix
@needs("gunicorn")
def test_gunicorn_with_preload(tmp_path: Path) -> None:
    """Each worker has a generator of its own, whose source is closed when the server ends."""
    application, configuration, command, _ = blocks((RECIPES / "gunicorn.md").read_text(encoding="utf-8"))
    (tmp_path / "app.py").write_text(application.code, encoding="utf-8")
    (tmp_path / "gunicorn.conf.py").write_text(configuration.code + READY, encoding="utf-8")
    with serve(command.code, tmp_path) as server:
        server.wait_for("a worker is ready")
        server.wait_for("a worker is ready")
        assert server.get() == b"token 0\n"
        assert re.fullmatch(rb"token [01]\n", server.get())
        server.process.terminate()
        server.wait_for("no more tokens")
        server.wait_for("no more tokens")


@posix
def test_a_generator_made_before_a_fork(tmp_path: Path) -> None:
    """The error that the page shows is the one that comes."""
    *_, program = blocks((RECIPES / "gunicorn.md").read_text(encoding="utf-8"))
    forks = ("-W", "ignore:This process:DeprecationWarning")  # of a process with threads, since Python 3.12
    assert run_program(program, tmp_path / "recipe.py", *forks, folder=tmp_path) == expected(program.code)
