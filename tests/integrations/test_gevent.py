"""Contract E7: gevent's monkey patching, whatever comes first, each order in a process of its own."""

from __future__ import annotations

import textwrap
from importlib.util import find_spec

import pytest

from tests.helpers import python

# Not `importorskip`: the package asks whether gevent is imported, and the other tests are to see it without.
pytestmark = pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")

IMPORT = "import prefetch_generator"
PATCH = "from gevent import monkey; monkey."

ORDERS = {
    "patched, then imported": (PATCH + "patch_all()", IMPORT),
    "imported, then patched": (IMPORT, PATCH + "patch_all()"),
    "patched without threads, then imported": (PATCH + "patch_all(thread=False)", IMPORT),
    "imported, then patched without threads": (IMPORT, PATCH + "patch_all(thread=False)"),
    "patched without queues, then imported": (PATCH + "patch_all(queue=False)", IMPORT),
    "imported, then patched without queues": (IMPORT, PATCH + "patch_all(queue=False)"),
    "not patched": (IMPORT,),
}

# Every function here is a check; each event is one that the order has left, or made, right for its threads.
CHECKS = """
import itertools, math, os, threading
import gevent
from prefetch_generator import BackgroundGenerator, NotReadyError, StopEvent, current_stop_event
from prefetch_generator._bell import make_bell

PATIENCE = 5  # seconds; what a hang costs where it does not hang the whole process

def counting(closed=None):
    try:
        yield from itertools.count()
    finally:
        if closed is not None:
            closed.set()

def pausing(*pauses):
    # Give a number, wait for what another greenlet has to do, and so on.
    for number, pause in enumerate(pauses):
        yield number
        assert pause.wait(PATIENCE), "no other greenlet went on"
    yield len(pauses)

def while_next_waits_other_greenlets_go_on():
    pauses = [threading.Event() for _ in range(3)]
    numbers = BackgroundGenerator(pausing(*pauses))
    assert next(numbers) == 0
    for number, pause in enumerate(pauses, 1):
        gevent.spawn(pause.set)
        assert next(numbers) == number
    assert list(numbers) == []

def while_close_waits_other_greenlets_go_on():
    def source():
        try:
            yield 0
            yield 1
        finally:
            went_on.append(pause.wait(PATIENCE))

    went_on, pause = [], threading.Event()
    numbers = BackgroundGenerator(source(), 1)
    assert next(numbers) == 0
    gevent.spawn(pause.set)
    assert numbers.close() is True
    assert went_on == [True]
    assert list(numbers) == []

def while_a_stop_event_is_awaited_other_greenlets_go_on():
    stop = StopEvent()
    gevent.spawn(stop.set)
    assert stop.wait(PATIENCE)
    assert not StopEvent().wait(0.01)

def a_bell_that_was_rung_before_wakes_at_once():
    bell = make_bell()
    bell.ring()
    assert bell.sleep(math.inf) is True

def more_items_than_there_is_room_for_come_in_order():
    for max_prefetch in 1, 2, 100, 0:
        assert list(BackgroundGenerator(range(500), max_prefetch)) == list(range(500))

def next_with_a_timeout_loses_nothing():
    pause = threading.Event()
    numbers = BackgroundGenerator(pausing(pause))
    assert numbers.next(PATIENCE) == 0
    for timeout in 0, 0.01:
        try:
            numbers.next(timeout)
            raise AssertionError("something came")
        except NotReadyError:
            pass
    pause.set()
    assert numbers.next(PATIENCE) == 1
    assert list(numbers) == []

def a_greenlet_that_is_killed_in_next_loses_nothing():
    pause = threading.Event()
    numbers = BackgroundGenerator(pausing(pause))
    assert next(numbers) == 0
    waiting = gevent.spawn(next, numbers)
    gevent.sleep(0.01)
    waiting.kill()
    pause.set()
    assert list(numbers) == [1]

def a_failure_is_forwarded_after_the_items_before_it():
    def source():
        yield 0
        raise failure

    failure = KeyError("the source's own")
    numbers = BackgroundGenerator(source())
    assert next(numbers) == 0
    try:
        next(numbers)
        raise AssertionError("something came")
    except KeyError as error:
        assert error is failure
    assert list(numbers) == []

def break_ends_the_worker():
    closed = threading.Event()
    for _ in BackgroundGenerator(counting(closed)):
        break
    assert closed.wait(PATIENCE), "the source was not closed"

def a_source_hears_of_the_stop():
    def source():
        yield 0
        heard.append(current_stop_event().wait(PATIENCE))

    heard, shared = [], StopEvent()
    numbers = BackgroundGenerator(source())
    assert next(numbers) == 0
    assert numbers.close() is True
    assert heard == [True]
    numbers = BackgroundGenerator(source(), stop_event=shared)
    assert next(numbers) == 0
    gevent.spawn(shared.set)
    assert list(numbers) == []
    assert numbers.close() is True
    assert heard == [True, True]

def several_greenlets_consume_one_generator():
    numbers = BackgroundGenerator(range(300))
    greenlets = gevent.joinall([gevent.spawn(list, numbers) for _ in range(3)], timeout=PATIENCE)
    parts = [greenlet.get(block=False) for greenlet in greenlets]
    assert len(parts) == 3
    assert sorted(itertools.chain(*parts)) == list(range(300))

def several_greenlets_have_a_generator_each():
    greenlets = [gevent.spawn(list, BackgroundGenerator(range(100), 1)) for _ in range(3)]
    gevent.joinall(greenlets, timeout=PATIENCE)
    assert [greenlet.get(block=False) for greenlet in greenlets] == [list(range(100))] * 3

def a_chain_works_and_stops_as_one():
    def around(numbers):
        try:
            for number in numbers:
                yield number * 10
            ended.append("mistook the stop for the end")
        finally:
            closed[1].set()

    assert list(BackgroundGenerator(map(str, BackgroundGenerator("abc")))) == ["a", "b", "c"]
    ended, closed = [], [threading.Event(), threading.Event()]
    chain = BackgroundGenerator(around(BackgroundGenerator(counting(closed[0]))))
    assert [next(chain) for _ in range(5)] == [0, 10, 20, 30, 40]
    assert chain.close() is True
    assert all(event.wait(PATIENCE) for event in closed)
    assert ended == []

def the_stop_event_is_the_sources_alone():
    def source():
        yield current_stop_event()
        yield current_stop_event()

    numbers = BackgroundGenerator(source())
    assert next(numbers) is numbers.stop_event
    mine = current_stop_event()
    assert mine is not numbers.stop_event
    assert next(numbers) is numbers.stop_event
    assert numbers.close() is True
    assert numbers.stop_event.is_set()
    assert not mine.is_set()
    assert not current_stop_event().is_set()

def a_source_that_iterates_itself_is_refused():
    def source():
        yield 0
        yield next(numbers)

    numbers = BackgroundGenerator(source())
    try:
        list(numbers)
        raise AssertionError("something came")
    except RuntimeError as error:
        assert "cannot iterate its own" in str(error)

helpers = {"counting", "pausing", "current_stop_event", "make_bell"}
for name, check in list(globals().items()):
    if callable(check) and not isinstance(check, type) and name not in helpers:
        try:
            check()
        except BaseException as failure:
            print(name, "failed:", repr(failure), flush=True)
        else:
            checked = name

def at_exit():
    try:
        yield from itertools.count()
    finally:
        os.write(1, b"closed at exit\\n")

numbers = BackgroundGenerator(at_exit(), 1)
print(checked, next(numbers), flush=True)
"""


@pytest.mark.parametrize("order", ORDERS)
def test_it_works_in_full_with_other_greenlets(order: str) -> None:
    """E7: whatever comes first, patching or import, the constructor works in full; and so without any patching."""
    said = "a_source_that_iterates_itself_is_refused 0\nclosed at exit\n"
    assert python("-c", "\n".join([*ORDERS[order], CHECKS])) == (said, "")


@pytest.mark.parametrize("patched_first", [True, False])
def test_half_a_patch_is_refused_at_once(patched_first: bool) -> None:
    """E7: or it raises at once: where gevent has patched one of two modules that only work together, and says so."""
    lines = [PATCH + "patch_thread(threading=False)", IMPORT]
    script = """
        try:
            prefetch_generator.BackgroundGenerator("abc")
        except RuntimeError as error:
            print(error)
    """
    out, err = python("-c", "\n".join([*(lines if patched_first else lines[::-1]), textwrap.dedent(script)]))
    assert out == "gevent must have patched both of _thread and threading, or none: it has patched one\n"
    assert err == ""


def test_an_asynchronous_source_is_refused_where_threads_are_greenlets() -> None:
    """E7, H1: the constructor raises at once: such a source needs a thread of its own for its loop."""
    script = """
        async def source():
            yield 0

        try:
            prefetch_generator.BackgroundGenerator(source())
        except RuntimeError as error:
            print(error)
        print(*prefetch_generator.BackgroundGenerator("abc"))
    """
    said = "an asynchronous iterable needs a thread of its own, and gevent has patched threading\na b c\n"
    for order in ORDERS["patched, then imported"], ORDERS["imported, then patched"]:
        assert python("-c", "\n".join([*order, textwrap.dedent(script)])) == (said, "")
