"""What docs/recipes/resuming.md says holds wherever a loop is stopped: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice

import pytest

from prefetch_generator import BackgroundGenerator, StopEvent
from tests.contract.process_support import FORK_WARNING
from tests.contract.process_support import start as start_process
from tests.helpers import LONG, in_thread
from tests.interrupts.machine import At, Strike, join_workers, one_after_the_other
from tests.interrupts.sources import Paced, either_way

ITEMS = 6
State = dict[str, int]
Pairs = BackgroundGenerator[tuple[int, State]]
Way = Callable[[Pairs, StopEvent], None]


def pairs(state: State) -> Iterator[tuple[int, State]]:
    """Yield the numbers from the state on, each with a copy of the state that the next one follows from."""
    while state["next"] < ITEMS:
        state["next"] += 1
        yield state["next"] - 1, copy.deepcopy(state)


def pairs_without_copy(state: State) -> Iterator[tuple[int, State]]:
    """Yield the same, but each time the same state, which is changed behind the loop's back."""
    while state["next"] < ITEMS:
        state["next"] += 1
        yield state["next"] - 1, state


def fail(numbers: Pairs, _: StopEvent) -> None:
    raise KeyError


def press_ctrl_c(numbers: Pairs, _: StopEvent) -> None:
    signal.raise_signal(signal.SIGINT)


def close(numbers: Pairs, _: StopEvent) -> None:
    assert numbers.close(LONG)


def close_on_another_thread(numbers: Pairs, _: StopEvent) -> None:
    assert in_thread(lambda: numbers.close(LONG)).get(timeout=LONG)


def set_its_event(numbers: Pairs, _: StopEvent) -> None:
    numbers.stop_event.set()


def set_the_event_handed_in(numbers: Pairs, shared: StopEvent) -> None:
    shared.set()


def check_the_rest(got: list[int], state: State, numbers: Pairs) -> None:
    """Both ways go on right behind what the loop has got."""
    assert numbers.stats.delivered == len(got) == state["next"]
    everything = list(range(ITEMS))
    with BackgroundGenerator(islice(everything, numbers.stats.delivered, None)) as rest:
        assert got + list(rest) == everything
    with BackgroundGenerator(pairs(copy.deepcopy(state))) as others:
        assert got + [number for number, _ in others] == everything


def check_at_every_item(start: Callable[[StopEvent], Pairs], stop: Way) -> None:
    """Stop the loop while it works on each of the items, and look at the rest before and after `close()`."""
    for stop_at in range(ITEMS):
        shared = StopEvent()
        numbers, got, state = start(shared), list[int](), {"next": 0}
        with suppress(KeyError, KeyboardInterrupt):
            for number, state in numbers:  # noqa: B007 - what it was last is looked at
                got.append(number)
                if number == stop_at:
                    stop(numbers, shared)
        assert len(got) == stop_at + 1
        check_the_rest(got, state, numbers)
        numbers.close(LONG)
        check_the_rest(got, state, numbers)


@pytest.mark.parametrize("max_prefetch", [1, 2, 0])
@pytest.mark.parametrize(
    "stop", [fail, press_ctrl_c, close, close_on_another_thread, set_its_event, set_the_event_handed_in]
)
def test_both_ways_are_exact_wherever_the_loop_stops(stop: Way, max_prefetch: int) -> None:
    """A2: `delivered` counts what the loop has got, and nothing that is dropped; the state that came along agrees."""
    check_at_every_item(lambda shared: BackgroundGenerator(pairs({"next": 0}), max_prefetch, stop_event=shared), stop)


@pytest.mark.filterwarnings(FORK_WARNING)
@pytest.mark.parametrize("stop", [fail, press_ctrl_c, close])
def test_both_ways_are_exact_with_a_process(stop: Way) -> None:
    """I2: the same for a source in a process of its own."""
    check_at_every_item(lambda _: start_process(pairs, {"next": 0}), stop)


@pytest.mark.filterwarnings(FORK_WARNING)
def test_pairs_from_a_process_need_no_copy() -> None:
    """I2: an item is pickled before the source makes the next."""
    for stop_at in range(ITEMS):
        with start_process(pairs_without_copy, {"next": 0}) as numbers:
            (state,) = [state for number, state in numbers if number == stop_at]
        assert state == {"next": stop_at + 1}


@either_way
def test_both_ways_are_exact_when_ctrl_c_comes_inside_next(paced: bool) -> None:
    """B4: wherever CPython runs signal handlers, asleep or not."""

    def scenario(n: int) -> At:
        source = Paced(2, paced=paced)

        def action() -> None:
            source.run_free()
            raise Strike

        state = {"next": 0}
        states = ({"next": number + 1} for number in range(2))
        numbers = BackgroundGenerator(zip(source.items(), states, strict=False), 2, name="traced")
        got = []
        with At("poll", n, action, source.one_more) as at, suppress(Strike):
            for number, state in numbers:  # noqa: B007 - what it was last is looked at
                got.append(number)
        numbers.close(LONG)
        assert got == list(range(numbers.stats.delivered))
        assert state == {"next": len(got)}
        join_workers()
        return at

    one_after_the_other(scenario, 10)
