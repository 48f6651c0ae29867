"""What the programs of a recipe need around them: files, a database, a server.

Each is a block that gives what to replace in the programs' text, such as the address of a server. It is called with the
folder that they run in.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import DEVNULL, PIPE
from threading import Barrier, Thread
from unittest.mock import patch

import pytest

from tests.helpers import LONG, python

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


def _items(folder: Path) -> None:
    rows = "".join(f"{number},{number}\n" for number in range(5000))
    (folder / "items.csv").write_text(f"id,price\n{rows}", encoding="utf-8")


@contextmanager
def items_as_csv(folder: Path) -> Iterator[dict[str, str]]:
    """Write a table of 5,000 rows as text."""
    _items(folder)
    yield {}


@contextmanager
def items_as_parquet(folder: Path) -> Iterator[dict[str, str]]:
    """Write the same table in columns."""
    _items(folder)
    script = "from pyarrow import csv, parquet; parquet.write_table(csv.read_csv('items.csv'), 'items.parquet')"
    python("-c", script, strict=False, folder=folder)
    yield {}


@contextmanager
def photos(folder: Path) -> Iterator[dict[str, str]]:
    """Make an archive of two files in a folder."""
    (folder / "photos").mkdir()
    with tarfile.open(folder / "photos.tar", "w") as archive:
        archive.add(folder / "photos", "photos")
        for number, name in enumerate(["a.jpg", "b.jpg"], 1):
            (folder / name).write_bytes(b"x" * 1000 * number)
            archive.add(folder / name, name)
    yield {}


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _served(handler: type[_Quiet]) -> Iterator[str]:
    """Run a server on this machine, past any proxy that the environment may name; give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, patch.dict(os.environ, NO_PROXY="127.0.0.1"):
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


class _Service(_Quiet):
    """Answer with a hundred lines; or with one, and then nothing until the client hangs up."""

    protocol_version = "HTTP/1.1"  # which has chunks

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.path == "/first-and-then-silence":
            self._send(b"first\n")
            self.rfile.read(1)  # the end of the connection
        else:
            for number in range(100):
                self._send(b"%d\n" % number)
            self._send(b"")

    def _send(self, chunk: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))


@contextmanager
def web_site(_: Path) -> Iterator[dict[str, str]]:
    """Serve it in place of the site that the recipes name."""
    with _served(_Service) as address:
        yield {"https://example.org": f"http://{address}"}


_CLIP = """
import cv2, numpy
clip = cv2.VideoWriter("clip.avi", cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48))
for number in range(1, 21):
    clip.write(numpy.full((48, 64, 3), 10 * number, numpy.uint8))
clip.release()
"""


@contextmanager
def camera(folder: Path) -> Iterator[dict[str, str]]:
    """Film twenty frames, the last the lightest: OpenCV opens a file as it does a camera."""
    python("-c", _CLIP, strict=False, folder=folder)
    yield {"frames(0)": "frames('clip.avi')"}


_FEED = """
import sys, threading, grpc
from concurrent.futures import ThreadPoolExecutor

def watch(request, context):
    over = threading.Event()
    context.add_callback(over.set)
    yield b"first"
    yield b"second"
    over.wait()

class Feed(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == "/example.Feed/Watch":
            return grpc.unary_stream_rpc_method_handler(watch)

server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers([Feed()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()  # until the test is over
server.stop(None)
"""


@contextmanager
def feed(_: Path) -> Iterator[dict[str, str]]:
    """Serve a call of gRPC that gives two answers, and then none until it is cancelled."""
    # In a process of its own, for gRPC's threads do not bear a fork.
    with subprocess.Popen([sys.executable, "-c", _FEED], stdin=PIPE, stdout=PIPE, text=True) as server:
        assert server.stdout is not None
        yield {"localhost:50051": f"127.0.0.1:{server.stdout.readline().strip()}"}
        # Here Popen closes the pipes, which ends the server, and waits for it.


# Draw in a file what would go to a terminal, and draw at all where the environment has turned it off.
_BARS = {
    "tqdm": "import tqdm as its; tqdm = partial(its.tqdm, file=drawn, disable=False)",
    "track": "from rich import console, progress; track = partial(progress.track, console=console.Console(file=drawn))",
}


class _Page(_Quiet):
    """Answers with the number in the path, but not before eight requests are open at once."""

    eight = Barrier(8)

    def do_GET(self) -> None:
        self.eight.wait(LONG)
        body = f"page {self.path[1:]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def eight_at_a_time(_: Path) -> Iterator[dict[str, str]]:
    """Put a server at `localhost:8000` that answers whoever asks for eight pages at once, and nobody else."""
    with _served(_Page) as address:
        yield {"localhost:8000": address}


@contextmanager
def folder_of_ray(_: Path) -> Iterator[dict[str, str]]:
    """Give Ray a folder for its logs and sockets, which it would leave behind, and have it report to nobody."""
    # Not the folder of the program: the paths of its sockets must be short.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        patch.dict(os.environ, RAY_TMPDIR=folder, RAY_USAGE_STATS_ENABLED="0"),
    ):
        yield {}


def _bar(name: str, *shown: str) -> Surroundings:
    @contextmanager
    def bars(folder: Path) -> Iterator[dict[str, str]]:
        lines = ["from atexit import register", "from functools import partial"]
        lines += ["drawn = open('drawn.txt', 'w', encoding='utf-8')", "register(drawn.close)", _BARS[name]]
        (folder / "bars.py").write_text("\n".join(lines), encoding="utf-8")
        yield {f"from {module} import {name}": f"from bars import {name}" for module in ("tqdm", "rich.progress")}
        drawn = (folder / "drawn.txt").read_text(encoding="utf-8")
        assert [it for it in shown if not re.search(it, drawn)] == [], drawn

    return bars


tqdm_bar = _bar("tqdm", "100/100", r"ready=\d")
rich_bars = _bar("track", "hinted.*100%", "told.*100%")


# What a program needs that mentions this.
MENTIONED: dict[str, Surroundings] = {
    "dbname=shop": shop,
    "frames(0)": camera,
    "https://example.org": web_site,
    "items.csv": items_as_csv,
    "items.parquet": items_as_parquet,
    "localhost:8000": eight_at_a_time,
    "localhost:50051": feed,
    "photos.tar": photos,
    "ray.init(": folder_of_ray,
    "tqdm(source, total=100)": tqdm_bar,
    "track(images(100)": rich_bars,
    "weather.db": weather,
}
