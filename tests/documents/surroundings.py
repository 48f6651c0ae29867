"""What the programs of a recipe need around them: a block that gives what to replace in their text."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

from tests.helpers import LONG

# Called with the folder that the programs run in. Gives what to replace by what, such as the address of a server.
Surroundings = Callable[[Path], AbstractContextManager[dict[str, str]]]


class _Page(BaseHTTPRequestHandler):
    """Answers with the number in the path, but not before eight requests are open at once."""

    eight = threading.Barrier(8)

    def do_GET(self) -> None:
        self.eight.wait(LONG)
        body = f"page {self.path[1:]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def eight_at_a_time(_: Path) -> Iterator[dict[str, str]]:
    """Put a server at `localhost:8000` that answers whoever asks for eight pages at once, and nobody else."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield {"localhost:8000": f"127.0.0.1:{server.server_port}"}
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def folder_of_ray(_: Path) -> Iterator[dict[str, str]]:
    """Give Ray a folder for its logs and sockets, which it would leave behind, and have it report to nobody."""
    # Not the folder of the program: the paths of its sockets must be short.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        patch.dict(os.environ, RAY_TMPDIR=folder, RAY_USAGE_STATS_ENABLED="0"),
    ):
        yield {}
