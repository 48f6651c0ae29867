"""Stream the rows of a database over HTTP: a synchronous cursor under FastAPI, whose event loop it never blocks.

A client that leaves in the middle ends the query at once.
"""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from queue import SimpleQueue

from prefetch_generator import BackgroundGenerator

try:
    import httpx
    import uvicorn
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse
except ImportError:
    print("skipped: FastAPI, httpx or uvicorn is not installed")
    sys.exit(0)

ROWS = 200_000
PATIENCE = 20.0  # seconds for what should take a fraction of one

# It stands for a table in a file.
QUERY = """
    WITH RECURSIVE reading (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM reading WHERE id < ?)
    SELECT id, id % 40 / 2.0 FROM reading
"""

app = FastAPI()
last_rows: SimpleQueue[int] = SimpleQueue()  # that each query came to, said in its `finally`


def readings() -> Iterator[str]:
    """Yield the rows, a thousand lines at a time; on one thread, from the first row to the `finally`."""
    number = 0
    try:
        with closing(sqlite3.connect(":memory:")) as connection:
            cursor = connection.execute(QUERY, [ROWS])
            while rows := cursor.fetchmany(1000):
                yield "".join(f"{row},{celsius}\n" for row, celsius in rows)
                number = rows[-1][0]
    finally:
        last_rows.put(number)


async def body() -> AsyncIterator[str]:
    """Yield the lines, and end the query as soon as the client has left."""
    # The short form is StreamingResponse(aiter(BackgroundGenerator(...))). But a response whose client has left is
    # part of a reference cycle, which would keep the query open until the next garbage collection. Here Starlette's
    # cancellation leaves the `async with` block, and that ends the query.
    async with BackgroundGenerator(readings()) as parts:
        async for lines in parts:
            yield lines


@app.get("/readings")
async def download() -> StreamingResponse:
    """Answer with all rows."""
    return StreamingResponse(body(), media_type="text/csv")


async def use(client: httpx.AsyncClient) -> None:
    """Read everything once; then leave in the middle."""
    lines = (await client.get("/readings")).text.splitlines()
    assert lines == [f"{number},{number % 40 / 2}" for number in range(1, ROWS + 1)]
    assert await asyncio.to_thread(last_rows.get, timeout=PATIENCE) == ROWS
    print(f"one client read {len(lines)} rows")

    async with client.stream("GET", "/readings") as response:
        async for line in response.aiter_lines():
            if line.startswith("10,"):
                break
    assert await asyncio.to_thread(last_rows.get, timeout=PATIENCE) < ROWS
    print("one client left after 10 rows, which ended the query")


async def main() -> None:
    """Start the server, be its client, and stop it."""
    listener = socket.create_server(("127.0.0.1", 0))  # it listens already, so the client need not wait
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE, trust_env=False) as client:
            await use(client)
    finally:
        server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(main())
