"""Fetch pages with an asynchronous HTTP client, a few ahead, in a script that is otherwise synchronous.

The source runs on an event loop of its own thread. A loop that is left early cancels the request in flight.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from threading import Event, Thread
from urllib.parse import parse_qs, urlsplit

from prefetch_generator import background

try:
    import httpx
except ImportError:
    print("skipped: httpx is not installed")
    sys.exit(0)

HANGS = 4  # the page that is never answered
PATIENCE = 20.0  # seconds for what should take a fraction of one

asked = Event()  # for that page
hung_up: SimpleQueue[bool] = SimpleQueue()


@background(max_prefetch=4)
async def pages(url: str) -> AsyncIterator[list[int]]:
    """Yield the numbers of page after page."""
    # Opened in here, because a client belongs to the event loop that it is used on. (`trust_env`: no proxy between.)
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        number = 1
        while number:
            response = await client.get(url, params={"page": number})
            page = response.raise_for_status().json()
            yield page["items"]
            number = page["next"]


class Service(BaseHTTPRequestHandler):
    """Ten numbers a page; there is always a next one."""

    def do_GET(self) -> None:
        """Answer with a page, or wait until the client hangs up."""
        number = int(parse_qs(urlsplit(self.path).query)["page"][0])
        if number == HANGS:
            self.connection.settimeout(PATIENCE)
            asked.set()
            hung_up.put(self.rfile.read(1) == b"")  # the end of the connection
            return
        answer = {"items": list(range(number * 10, number * 10 + 10)), "next": number + 1}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Keep the output to what this example has to say."""


def main() -> None:
    """Take the pages that come, and leave while the next one is awaited."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            numbers: list[int] = []
            for items in pages(f"http://127.0.0.1:{server.server_port}/"):
                numbers += items
                if len(numbers) == 30:
                    assert asked.wait(PATIENCE)
                    break
            assert numbers == list(range(10, 40))
            print(f"took {len(numbers)} numbers from 3 pages")
            # `break` waits for nothing; a moment later the request is cancelled.
            assert hung_up.get(timeout=PATIENCE)
            print(f"left, and the request for page {HANGS} was cancelled")
        finally:
            server.shutdown()
            serving.join()


if __name__ == "__main__":
    main()
