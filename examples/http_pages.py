"""Fetch the pages of a web service ahead of their use, and wait politely when it is busy.

A source that waits with its `current_stop_event()` instead of `time.sleep` ends at once
when the consumer has seen enough, however long the server asked it to wait.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TypedDict
from urllib.parse import parse_qs, urlsplit

from prefetch_generator import background, current_stop_event

PAGES = 12
BUSY_SECONDS = 60


class Page(TypedDict):
    """What the service answers."""

    items: list[int]
    next: int | None


@background(max_prefetch=4)
def fetch_pages(url: str) -> Iterator[Page]:
    """Yield page after page; when the server is busy, come back when it says."""
    stop = current_stop_event()
    # 127.0.0.1 is not reached through a proxy that the environment may name.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    number: int | None = 0
    while number is not None and not stop.is_set():
        try:
            with opener.open(f"{url}?page={number}", timeout=10) as response:
                page: Page = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 503:
                    raise
                stop.wait(float(error.headers["Retry-After"]))
            continue
        yield page
        number = page["next"]


class Service(BaseHTTPRequestHandler):
    """Ten numbers a page; too busy for page 3 at first, and for page 8 for a long time."""

    been_busy = False

    def do_GET(self) -> None:
        """Answer with a page, or with 503 and the seconds to wait."""
        number = int(parse_qs(urlsplit(self.path).query)["page"][0])
        if number == 3 and not Service.been_busy:
            Service.been_busy = True
            self.answer(503, b"", ("Retry-After", "0.1"))
        elif number == 8:
            self.answer(503, b"", ("Retry-After", str(BUSY_SECONDS)))
        else:
            page = Page(
                items=list(range(number * 10, number * 10 + 10)),
                next=number + 1 if number + 1 < PAGES else None,
            )
            self.answer(200, json.dumps(page).encode(), ("Content-Type", "application/json"))

    def answer(self, status: int, body: bytes, header: tuple[str, str]) -> None:
        """Send one response."""
        self.send_response(status)
        self.send_header(*header)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the output to what this example has to say."""


def main() -> None:
    """Take eight pages, leave while the source waits for the ninth."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            items: list[int] = []
            with fetch_pages(f"http://127.0.0.1:{server.server_port}/") as pages:
                for page in pages:
                    items += page["items"]
                    if len(items) == 80:
                        break
                leaving = time.monotonic()
            seconds = time.monotonic() - leaving
        finally:
            server.shutdown()
            serving.join()

    if items != list(range(80)) or not Service.been_busy:
        raise RuntimeError(f"unexpected items: {items}")
    if seconds > BUSY_SECONDS / 2:
        raise RuntimeError(f"closing took {seconds:.1f} s")
    print(f"took {len(items)} items from 8 pages, with one retry")
    print(f"left in {seconds:.3f} s what would have waited {BUSY_SECONDS} s")


if __name__ == "__main__":
    main()
