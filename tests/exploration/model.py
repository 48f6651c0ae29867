"""The algorithm of the channel once more, by hand, as a transition system that is small enough to be searched whole.

`instrument` runs the code itself, but only switches between threads. Here the first consumer, on the main thread, and
the canceller may also be interrupted (Ctrl-C, a signal handler that raises) wherever CPython polls for signals, any
number of times, and call again. The canceller is close(), a stop event, or the collector, which comes at any step and
on any thread.

A step is one access to shared state. `Setting.bug` puts a mistake in, to see that it is found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple


class Setting(NamedTuple):
    """What is searched."""

    items: int = 2
    depth: int = 1
    consumers: int = 1
    stuck: bool = False  # the source, after its items, until nobody waits for it any more
    cancels: bool = True
    interrupts: bool = True
    bug: str = ""


class Consumer(NamedTuple):
    """A thread that calls next() until it ends."""

    at: str = "idle"
    over: bool = False  # what it has read
    call: bool = False  # it has read the worker's present call
    item: int = -1  # what it has taken
    last: int = -1  # what was delivered to it
    told: bool = False  # cancel() had returned when it called next()
    bell: bool = False  # it is among the bells
    rung: bool = False
    failed: bool = False  # it has had the source's failure


class State(NamedTuple):
    """Everything there is."""

    consumers: tuple[Consumer, ...]
    worker: str = "look for a cancel"
    pulled: int = 0
    free: int = 0  # places that the worker knows of
    to_ring: tuple[int, ...] = ()  # by the worker: whose bells it has seen
    buffer: tuple[int, ...] = ()
    call: str = ""  # the worker's call for help: "", "open", or "answered" (the token may still be on its way)
    tokens: int = 0  # in `wake`
    open: bool = True
    over: bool = False
    outcome: bool = False  # is held
    delivered: frozenset[int] = frozenset()
    cancel: str = "not begun"
    cancel_call: bool = False
    cancel_to_ring: tuple[int, ...] = ()

    def change(self, number: int, **changes: object) -> State:
        """Return this state with one consumer changed."""
        consumers = list(self.consumers)
        consumers[number] = consumers[number]._replace(**changes)  # type: ignore[arg-type]
        return self._replace(consumers=tuple(consumers))

    def bells(self) -> tuple[int, ...]:
        return tuple(number for number, consumer in enumerate(self.consumers) if consumer.bell)

    def is_final(self) -> bool:
        ended = all(consumer.at == "ended" for consumer in self.consumers)
        return ended and self.worker == "ended" and self.cancel in {"not begun", "ended"}


class Broken(Exception):  # noqa: N818 - it is what the search looks for
    """Something that must never be."""


# One `if` for each place a thread can be at: a table, in all but name.
# ruff: noqa: C901, PLR0911, PLR0912


def work(state: State, setting: Setting) -> State | None:
    """Return what the worker's next step leads to, None if it is asleep or has ended."""
    at, bug, goto = state.worker, setting.bug, state._replace
    room = setting.depth - len(state.buffer)
    if at == "look for a cancel":
        hidden = bug == "a full buffer hides a cancel from the worker"
        return goto(worker="look") if state.open or hidden else goto(worker="begin an item", free=1)
    if at == "look":
        free = room + (bug == "one place too many")
        return goto(worker="begin an item" if free > 0 else "announce", free=free)
    if at == "announce":
        return goto(worker="sleep" if bug == "no second look by the worker" else "look again", call="open")
    if at == "look again":
        full = "sleep" if bug == "a full buffer hides a cancel from the worker" else "look for a cancel again"
        return goto(worker="answer" if room > 0 else full)
    if at == "look for a cancel again":
        return goto(worker="sleep" if state.open else "answer")
    if at == "answer":
        return goto(worker="token", call="answered") if state.call == "open" else goto(worker="sleep")
    if at == "token":
        return goto(worker="sleep", tokens=state.tokens + 1)
    if at == "sleep":
        return goto(worker="forget", tokens=state.tokens - 1) if state.tokens else None
    if at == "forget":  # whoever has read the call has one that is answered
        forgotten = tuple(consumer._replace(call=False) for consumer in state.consumers)
        return goto(worker="look for a cancel", call="", cancel_call=False, consumers=forgotten)
    if at == "begin an item":
        return goto(worker="pull" if state.open else "say that it is over")
    if at == "pull":
        if len(state.buffer) >= setting.depth:
            raise Broken("pulled too far ahead")
        if state.pulled < setting.items:
            return goto(worker="put")
        if setting.stuck and any(consumer.at != "ended" for consumer in state.consumers):
            return None
        return goto(worker="hold the failure")
    if at == "put":
        item = state.pulled
        return goto(worker="look for bells", pulled=item + 1, free=state.free - 1, buffer=(*state.buffer, item))
    if at == "look for bells":
        return goto(worker="ring", to_ring=() if bug == "the worker does not ring" else state.bells())
    if at == "ring":
        return worker_rings(state)
    if at == "hold the failure":
        return goto(worker="say that it is over", outcome=True)
    if at == "say that it is over":
        return goto(worker="look for bells", over=True)
    if at == "look for a cancel at the end":
        return goto(worker="ended" if state.open else "drop the outcome")
    if at == "drop the outcome":
        return goto(worker="drop", outcome=False)
    if at == "drop":
        return goto(buffer=state.buffer[1:]) if state.buffer else goto(worker="ended")
    return None


def worker_rings(state: State) -> State:
    if state.to_ring:  # and discards: nothing interrupts the worker, and to ring twice does no harm
        number, *others = state.to_ring
        return state.change(number, bell=False, rung=True)._replace(to_ring=tuple(others))
    if state.over:
        return state._replace(worker="look for a cancel at the end")
    return state._replace(worker="begin an item" if state.free else "look for a cancel")


def consume(state: State, number: int, setting: Setting) -> State | None:
    """Return what a consumer's next step leads to, None if it is asleep or has ended."""
    consumer, bug = state.consumers[number], setting.bug

    def goto(at: str, **changes: object) -> State:
        return state.change(number, at=at, **changes)

    at = consumer.at
    if at == "idle":
        return goto("read the end", told=state.cancel == "ended")
    if at == "read the end":
        return goto("take", over=state.over)
    if at == "take":
        if not state.buffer:
            return goto("check the end")
        return goto("read the call", item=state.buffer[0])._replace(buffer=state.buffer[1:])
    if at in {"read the call", "read the call again"}:
        return goto(at.replace("read", "answer"), call=state.call != "")
    if at in {"answer the call", "answer the call again"}:
        after = "look" if at.endswith("again") else "check open"
        if consumer.call and state.call == "open":
            return goto(f"token, {after}", call=False)._replace(call="answered")
        return goto(after, call=False)
    if at.startswith("token, "):
        return goto(at.removeprefix("token, "))._replace(tokens=state.tokens + 1)
    if at == "check open":
        return deliver(state, number) if state.open or bug == "a cancelled item is delivered" else goto("take", item=-1)
    if at == "check the end":
        over = state.over if bug == "the end is read after the buffer" else consumer.over
        late = "read the call again" if bug == "the bell is announced after the look" else "announce"
        return goto("end" if over or not state.open else late)
    if at == "announce":  # a new bell: who still has the old one in hand rings nobody
        rest = [tuple(n for n in targets if n != number) for targets in (state.to_ring, state.cancel_to_ring)]
        after = "sleep" if bug == "the bell is announced after the look" else "read the call again"
        return goto(after, bell=True, rung=False)._replace(to_ring=rest[0], cancel_to_ring=rest[1])
    if at == "look":
        return goto("forget the bell" if state.buffer else "look for the end")
    if at == "look for the end":
        return goto("forget the bell" if state.over else "look for a cancel")
    if at == "look for a cancel":
        late = "announce" if bug == "the bell is announced after the look" else "sleep"
        return goto(late if state.open else "forget the bell")
    if at == "sleep":
        return goto("forget the bell", rung=False) if consumer.rung else None
    if at == "forget the bell":
        return goto("read the end", bell=False, rung=False)
    if at == "forget the bell, struck":
        return goto("idle", bell=False, rung=False)
    if at == "end":
        return goto("join" if state.open else "ended")
    if at == "join":
        return goto("raise") if state.worker == "ended" else None
    if at == "raise":
        return goto("idle", failed=True)._replace(outcome=False) if state.outcome else goto("ended")
    return None


def deliver(state: State, number: int) -> State:
    consumer = state.consumers[number]
    if consumer.told:
        raise Broken("delivered by a next() that was called after cancel() had returned")
    if consumer.item in state.delivered or consumer.item <= consumer.last:
        raise Broken("delivered twice or out of order")
    if consumer.failed:
        raise Broken("delivered after the failure")
    after = state.change(number, at="idle", item=-1, last=consumer.item)
    return after._replace(delivered=state.delivered | {consumer.item})


def interrupt(state: State, number: int, setting: Setting) -> State | None:
    """Return what an interrupt of a consumer leads to, None where none can be."""
    if number > 0 or not setting.interrupts:
        return None
    at = state.consumers[number].at
    if setting.bug == "an item is taken where an interrupt can strike" and at == "read the call":
        return state.change(number, at="idle", item=-1)
    if at in {"announce", "read the end", "take", "check the end", "end", "join", "raise"}:
        return state.change(number, at="idle", over=False)
    if at in {"read the call again", "answer the call again", "look", "look for the end", "look for a cancel", "sleep"}:
        return state.change(number, at="forget the bell, struck", over=False, call=False)
    if at in {"forget the bell", "forget the bell, struck"}:
        return state.change(number, at="idle", over=False)  # and the bell stays, which nobody hears
    return None


def cancel(state: State, setting: Setting) -> State | None:
    """Return what the canceller's next step leads to, None if it has ended."""
    at, bug, goto = state.cancel, setting.bug, state._replace
    if at == "not begun":
        return goto(cancel="begin") if setting.cancels else None
    if at == "begin":
        return goto(cancel="drop the outcome", open=False)
    if at == "drop the outcome":
        return goto(cancel="drop", outcome=False)
    if at == "drop":
        return goto(buffer=state.buffer[1:]) if state.buffer else goto(cancel="read the call")
    if at == "read the call":
        return goto(cancel="answer", cancel_call=state.call != "" and bug != "cancel does not answer")
    if at == "answer":
        if state.cancel_call and state.call == "open":
            return goto(cancel="token", cancel_call=False, call="answered")
        return goto(cancel="look for bells", cancel_call=False)
    if at == "token":
        return goto(cancel="look for bells", tokens=state.tokens + 1)
    if at == "look for bells":
        return goto(cancel="ring", cancel_to_ring=() if bug == "cancel does not ring" else state.bells())
    if at == "ring":
        if not state.cancel_to_ring:
            return goto(cancel="ended")
        first = {"bell": False} if bug == "cancel forgets a bell before it rings it" else {"rung": True}
        return state.change(state.cancel_to_ring[0], **first)._replace(cancel=f"ring {state.cancel_to_ring[0]}")
    if at.startswith("ring "):
        number = int(at.removeprefix("ring "))
        after = goto(cancel="ring", cancel_to_ring=tuple(n for n in state.cancel_to_ring if n != number))
        return after.change(number, bell=False, rung=True) if number in state.cancel_to_ring else after
    return None


def cancel_interrupted(state: State, setting: Setting) -> State | None:
    if not setting.interrupts or state.cancel in {
        "not begun",
        "token",
        "ended",
    }:  # `for _ in parked` has no window between its two halves
        return None
    return state._replace(cancel="begin", cancel_call=False, cancel_to_ring=())


class Step(NamedTuple):
    """One thing that can happen; nothing may hang on an optional one."""

    what: str
    after: State
    optional: bool = False


def steps(state: State, setting: Setting) -> Iterator[Step]:
    """Everything that can happen next."""
    following = work(state, setting)
    if following is not None:
        yield Step(f"worker: {state.worker}", following)
    for number, consumer in enumerate(state.consumers):
        following, struck = consume(state, number, setting), interrupt(state, number, setting)
        if following is not None:
            yield Step(f"consumer {number}: {consumer.at}", following)
        if struck is not None:
            yield Step(f"consumer {number}: interrupted before: {consumer.at}", struck, optional=True)
    following, struck = cancel(state, setting), cancel_interrupted(state, setting)
    if following is not None:
        yield Step(f"cancel: {state.cancel}", following, optional=state.cancel == "not begun" and not setting.stuck)
    if struck is not None:
        yield Step(f"cancel: interrupted before: {state.cancel}", struck, optional=True)


def check(state: State, setting: Setting) -> None:
    """Check what must hold in every state, beside what `work` and `deliver` check."""
    if state.is_final():
        cancelled = state.cancel == "ended"
        if not cancelled and len(state.delivered) < setting.items:
            raise Broken("an item was lost")
        if sum(consumer.failed for consumer in state.consumers) > 1:
            raise Broken("the failure was raised twice")
        if not cancelled and not any(consumer.failed for consumer in state.consumers):
            raise Broken("the failure was lost")
        if state.buffer or state.outcome or state.tokens:
            raise Broken("something was left behind")
    # Even if nobody calls next() ever again, the worker reads ahead as far as it may.
    has_work = len(state.buffer) < setting.depth or not state.open
    others = all(c.at in {"idle", "ended"} or (c.at == "sleep" and not c.rung) for c in state.consumers)
    nobody_acts = others and state.cancel in {"not begun", "ended"} and not state.tokens
    if state.worker == "sleep" and has_work and nobody_acts:
        raise Broken("the worker sleeps while there is something to do")


class Result(NamedTuple):
    """How many there are, and how something went wrong, if it did."""

    states: int
    steps: int
    broken: str = ""


def search(setting: Setting) -> Result:
    """Visit every state that can be reached; from each, without luck, everybody must be able to end."""
    first = State(tuple(Consumer() for _ in range(setting.consumers)))
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    sources: dict[State, list[State]] = {}  # of the steps that must happen, backwards
    todo, count = deque([first]), 0
    while todo:
        state = todo.popleft()
        try:
            check(state, setting)
            for what, after, optional in steps(state, setting):
                count += 1
                if not optional:
                    sources.setdefault(after, []).append(state)
                if after not in came_from:
                    came_from[after] = (state, what)
                    todo.append(after)
        except Broken as broken:
            return Result(len(came_from), count, f"{broken}\n{story(state, came_from)}")
    can_end = {state for state in came_from if state.is_final()}
    todo.extend(can_end)
    while todo:
        new = [state for state in sources.get(todo.popleft(), ()) if state not in can_end]
        can_end.update(new)
        todo.extend(new)
    for state in came_from:
        if state not in can_end:
            return Result(len(came_from), count, f"nobody can end from here\n{story(state, came_from)}")
    return Result(len(came_from), count)


def story(state: State, came_from: dict[State, tuple[State, str] | None]) -> str:
    """Return the shortest way to a state, in numbered steps."""
    lines = []
    origin = came_from[state]
    while origin is not None:
        lines.append(origin[1])
        origin = came_from[origin[0]]
    return "\n".join(f"{number:4}  {line}" for number, line in enumerate(reversed(lines)))
