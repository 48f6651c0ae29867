"""Contract G and H: servers and clients of the web, which take an asynchronous iterator for a body; and anyio."""

from __future__ import annotations

import textwrap

import pytest

from tests.helpers import needs, python

LOOPS = pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=needs("uvloop"))])

# What the scripts below start with. `run(use, app)` serves the application on the loop that is named by the argument,
# and has `use(client)` done with a client of it.
SERVER = """
import asyncio, gc, importlib, itertools, socket, sys, threading
from queue import SimpleQueue
import httpx, uvicorn
from prefetch_generator import BackgroundGenerator, background, current_stop_event

PATIENCE = 20  # seconds
PARTS = [b"%d " % number * 100 for number in range(500)]

closed = SimpleQueue()

def parts():
    try:
        yield from PARTS
    finally:
        closed.put("closed")

def endless(then):
    # Until somebody stops it. All that the sources differ in is what they do after each item.
    try:
        for number in itertools.count():
            yield b"x" * 1000
            then(number)
    finally:
        closed.put("closed")

def at_once(number):
    pass

def slowly(number):
    current_stop_event().wait(0.01)

def never(number):
    if number == 5:
        current_stop_event().wait()

SOURCES = {then.__name__: then for then in (at_once, slowly, never)}

async def body(then):
    async with BackgroundGenerator(endless(SOURCES[then])) as items:
        async for item in items:
            yield item

async def serve(use, app):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = "http://127.0.0.1:%d" % listener.getsockname()[1]
        try:
            async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
                await use(client)
        finally:
            server.should_exit = True
            await serving

def run(use, app):
    importlib.import_module(sys.argv[1]).run(serve(use, app))

async def leave(client):
    # Without the collector: only what the server does about the client's leaving can end the source.
    gc.disable()
    for then in SOURCES:
        async with client.stream("GET", "/" + then) as response:
            async for _ in response.aiter_raw():
                break
        print(then, await asyncio.to_thread(closed.get, timeout=PATIENCE))
"""

LEFT = "at_once closed\nslowly closed\nnever closed\n"

STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

def application(endpoint, path="/", **options):
    return Starlette(routes=[Route(path, endpoint, **options)])
"""

DJANGO = """
import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import StreamingHttpResponse
from django.urls import path

def application(view, route=""):
    settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=(path(route, view),))
    return get_asgi_application()
"""


def run(*scripts: str, argument: str = "asyncio") -> str:
    """Run the scripts as one; return what they printed."""
    out, err = python("-W", "ignore", "-c", "\n".join(map(textwrap.dedent, scripts)), argument)
    assert "Traceback" not in err  # servers log what fails in an application, and go on
    return out


@LOOPS
@needs("starlette", "uvicorn", "httpx")
def test_a_streaming_response_delivers_everything(loop: str) -> None:
    """G1: Starlette, hence FastAPI, takes `aiter(bg)` for an asynchronous body; under uvicorn all of it arrives."""
    script = """
        async def endpoint(request):
            return StreamingResponse(aiter(BackgroundGenerator(parts())))

        async def use(client):
            for _ in range(3):
                print((await client.get("/")).content == b"".join(PARTS), closed.get(timeout=PATIENCE))

        run(use, application(endpoint))
    """
    assert run(SERVER, STARLETTE, script, argument=loop) == "True closed\n" * 3


@LOOPS
@needs("starlette", "uvicorn", "httpx")
def test_a_client_that_leaves_stops_the_source(loop: str) -> None:
    """G6: an `async with` in the body ends with the response, without a collection, whatever the source is doing."""
    script = """
        async def endpoint(request):
            return StreamingResponse(body(request.path_params["then"]))

        run(leave, application(endpoint, "/{then}"))
    """
    assert run(SERVER, STARLETTE, script, argument=loop) == LEFT


@LOOPS
@needs("starlette", "uvicorn", "httpx")
def test_two_responses_at_once(loop: str) -> None:
    """G4: two responses, each of whose sources waits for the other's before each item, arrive whole: none blocks."""
    script = """
        together = threading.Barrier(2, timeout=PATIENCE)

        def in_step():
            for part in parts():
                together.wait()
                yield part

        async def endpoint(request):
            return StreamingResponse(aiter(BackgroundGenerator(in_step())))

        async def use(client):
            for response in await asyncio.gather(client.get("/"), client.get("/")):
                print(response.content == b"".join(PARTS))

        run(use, application(endpoint))
    """
    assert run(SERVER, STARLETTE, script, argument=loop) == "True\nTrue\n"


@LOOPS
@needs("starlette", "uvicorn", "httpx")
def test_a_request_body(loop: str) -> None:
    """G1: httpx takes `aiter(bg)` for an asynchronous request body, which a synchronous source fills meanwhile."""
    script = """
        async def endpoint(request):
            return Response(await request.body())

        async def use(client):
            response = await client.post("/", content=aiter(BackgroundGenerator(parts())))
            print(response.content == b"".join(PARTS), closed.get(timeout=PATIENCE))

        run(use, application(endpoint, methods=["POST"]))
    """
    assert run(SERVER, STARLETTE, script, argument=loop) == "True closed\n"


@needs("starlette", "uvicorn", "httpx")
def test_an_asynchronous_source_of_a_response() -> None:
    """H2: a server passes on what a client fetches on the loop of a source, and what one leaves the other cancels."""
    script = """
        @background
        async def fetched(url):
            async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
                async with client.stream("GET", url) as response:
                    async for chunk in response.aiter_raw():
                        yield chunk

        async def passed_on(url):
            async with fetched(url) as chunks:
                async for chunk in chunks:
                    yield chunk

        async def endpoint(request):
            then = request.path_params["then"]
            if "inner" not in request.query_params:
                return StreamingResponse(passed_on(f"{request.url}?inner=1"))
            return StreamingResponse(body(then))

        run(leave, application(endpoint, "/{then}"))
    """
    assert run(SERVER, STARLETTE, script) == LEFT


@needs("django", "uvicorn", "httpx")
def test_django_delivers_everything() -> None:
    """G1: Django takes `aiter(bg)` for an asynchronous body, and so streams it under ASGI without a thread per item."""
    script = """
        async def view(request):
            response = StreamingHttpResponse(aiter(BackgroundGenerator(parts())))
            print(response.is_async)
            return response

        async def use(client):
            print((await client.get("/")).content == b"".join(PARTS), closed.get(timeout=PATIENCE))

        run(use, application(view))
    """
    assert run(SERVER, DJANGO, script) == "True\nTrue closed\n"


@needs("django", "uvicorn", "httpx")
def test_a_client_that_leaves_django_stops_the_source() -> None:
    """G6: an `async with` in the body ends with the response, without a collection, under Django as well."""
    script = """
        async def view(request, then):
            return StreamingHttpResponse(body(then))

        run(leave, application(view, "<then>"))
    """
    assert run(SERVER, DJANGO, script) == LEFT


@needs("aiohttp")
def test_aiohttp() -> None:
    """G1: aiohttp takes `aiter(bg)` for the body of a request, and for that of a response."""
    script = """
        import asyncio
        from aiohttp import ClientSession, web
        from prefetch_generator import BackgroundGenerator

        PARTS = [b"%d " % number * 100 for number in range(500)]

        async def echo(request):
            return web.Response(body=aiter(BackgroundGenerator([await request.read()])))

        async def main():
            app = web.Application(client_max_size=10**7)
            app.router.add_post("/", echo)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            try:
                async with ClientSession() as session:
                    url = "http://127.0.0.1:%d" % runner.addresses[0][1]
                    async with session.post(url, data=aiter(BackgroundGenerator(PARTS))) as response:
                        print(await response.read() == b"".join(PARTS))
            finally:
                await runner.cleanup()

        asyncio.run(main())
    """
    assert run(script) == "True\n"


@needs("anyio", "trio")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(backend: str) -> None:
    """G1, G3: under anyio, with either backend, tasks share the items; a scope that times out has lost none."""
    script = """
        import sys, threading
        import anyio
        from prefetch_generator import BackgroundGenerator, current_stop_event

        go_on = threading.Event()

        def source():
            yield from range(100)
            go_on.wait(20)
            yield from range(100, 200)

        async def take(items, taken):
            async for item in items:
                taken.append(item)
                await anyio.sleep(0)

        async def main():
            taken, first = [], []
            async with BackgroundGenerator(source()) as items:
                with anyio.move_on_after(0.1) as scope:
                    await take(items, first)
                print(scope.cancelled_caught, first == list(range(len(first))))
                go_on.set()
                async with anyio.create_task_group() as tasks:
                    for _ in range(3):
                        tasks.start_soon(take, items, taken)
            print(sorted(first + taken) == list(range(200)))

        anyio.run(main, backend=sys.argv[1])
    """
    assert run(script, argument=backend) == "True True\nTrue\n"
