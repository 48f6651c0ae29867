"""One thread at a time, in an order that was told: every order, or one that comes from a seed.

A *schedule* is a tuple of switches `(step, thread)`: before that step, go over to that thread. Where it says nothing,
the thread that runs goes on, or, if it is blocked or has ended, the first that can. To leave a thread that could go on
is a preemption.

The exhaustive search takes every schedule with at most so many preemptions, or simply every schedule. It does not go
on where it has been before: a state is known by what each thread has seen, and by who was the last to write to what,
so two orders of operations that have nothing to do with each other end in the same one. Each step that is possible in
any state is thus run, and checked, at least once.
"""

from __future__ import annotations

import linecache
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from types import GeneratorType
from typing import Protocol

from .primitives import Current, Point, Steps

Schedule = tuple[tuple[int, int], ...]

TOO_MANY = 2000  # steps: no schedule of the scenarios comes near


class Story(Protocol):
    """The threads of one run, and what must hold when they have ended."""

    threads: dict[str, Steps]

    def check(self) -> None: ...


class Policy(Protocol):
    """Who runs next: one of those that are able to, or None to stop here."""

    def choose(self, step: int, able: list[int], current: int, state: int) -> int | None: ...


@dataclass
class Failure:
    """What did not hold, and in which schedule."""

    what: str
    schedule: Schedule
    steps: list[str]

    def __str__(self) -> str:
        return "\n".join([self.what, *self.steps, f"schedule = {self.schedule!r}"])


@dataclass
class Search:
    """What a search has seen."""

    schedules: int = 0
    states: int = 0
    failed: int = 0
    simplest: Failure | None = None

    def __str__(self) -> str:
        return f"{self.schedules} schedules, {self.states} states, {self.failed} failed"

    def add(self, failure: Failure | None) -> None:
        self.schedules += 1
        if failure is not None:
            self.failed += 1
            if self.simplest is None or len(failure.schedule) < len(self.simplest.schedule):
                self.simplest = failure


def explore(tell: Callable[[], Story], preemptions: int | None) -> Search:
    """Run every schedule of a story that has at most so many preemptions (None: every schedule)."""
    search = Search()
    known: dict[tuple[int, int], int] = {}  # (state, who went on from there) -> preemptions that were left then
    todo: list[tuple[Schedule, int]] = [((), sys.maxsize if preemptions is None else preemptions)]
    while todo:
        schedule, left = todo.pop()
        told = Told(schedule, left, known)
        search.add(run(tell, told))
        for step, able, current, state in told.seen:
            rest = left - (current in able)
            for other in able:
                if known.get((state, other), -1) < rest:
                    known[state, other] = rest
                    todo.append(((*schedule, (step, other)), rest))
    search.states = len({state for state, _ in known})
    return search


def sample(tell: Callable[[], Story], policies: Iterable[Policy]) -> Search:
    """Run one schedule by each of the policies."""
    search = Search()
    for policy in policies:
        search.add(run(tell, policy))
    return search


def replay(tell: Callable[[], Story], schedule: Schedule) -> Failure | None:
    """Run one schedule and number its steps."""
    return run(tell, Told(schedule), printing=True)


def run(tell: Callable[[], Story], policy: Policy, *, printing: bool = False) -> Failure | None:
    """Run a story to its end; return what did not hold."""
    Current.restart()
    story = tell()
    threads = list(story.threads.values())
    points: list[Point | None] = [("", "read", "begin", None)] * len(threads)
    switches: list[tuple[int, int]] = []
    steps: list[str] = []
    state = State(len(threads))
    current = -1
    try:
        for step in count():
            able = [n for n, point in enumerate(points) if point and (point[3] is None or point[3].ready())]
            if not able:
                break
            assert step < TOO_MANY, "endless"
            chosen = policy.choose(step, able, current, state.number)
            if chosen is None:
                return None
            if chosen != usual(able, current):
                switches.append((step, chosen))
            if printing:
                steps.append(f"{step:4}  {described(story, points)[chosen]}")
            current = Current.thread = chosen
            points[current] = state.watch(current, points[current], threads[current])
        assert not any(points), "\n".join(["deadlock:", *described(story, points)])
        story.check()
    except Exception as error:
        what = (isinstance(error, AssertionError) and str(error)) or repr(error)
        return Failure(what, tuple(switches), steps)
    finally:
        for thread in threads:
            abandon(thread)
    return None


class State:
    """A number for what the threads have seen, and for what there is to see."""

    def __init__(self, threads: int) -> None:
        self.number = 0
        self.seen = list(range(threads))
        self.written: dict[str, int] = {}

    def watch(self, number: int, point: Point | None, thread: Steps) -> Point | None:
        """Let a thread do its operation, and tell what is new."""
        assert point is not None
        what, access = point[:2]
        value = Current.values.get(what)
        before = self.seen[number]
        found = hash(value()) if value else self.written.get(what, 0)
        self.seen[number] = after = hash((before, found if access != "write" or not value else None))
        self.number ^= hash((number, before)) ^ hash((number, after))
        following = next(thread, None)
        if Current.local is not None:
            new = hash((number, Current.local))
            self.number ^= hash((number, after)) ^ hash((number, new))
            self.seen[number], Current.local = new, None
        if access != "read":
            left = hash(value()) if value else after
            self.written[what] = left
            self.number ^= hash((what, found)) ^ hash((what, left))
        return following


def usual(able: list[int], current: int) -> int:
    """Return who runs next where nothing else is told."""
    return current if current in able else able[0]


class Told:
    """Do what a schedule says; remember what else could have been done after it, and stop where that is known."""

    def __init__(self, schedule: Schedule, left: int = 0, known: dict[tuple[int, int], int] | None = None) -> None:
        self.switches = dict(schedule)
        self.end = schedule[-1][0] if schedule else -1
        self.left = left
        self.known = known
        self.seen: list[tuple[int, list[int], int, int]] = []

    def choose(self, step: int, able: list[int], current: int, state: int) -> int | None:
        wanted = self.switches.get(step, -1)
        chosen = wanted if wanted in able else usual(able, current)
        if self.known is not None and step > self.end:
            if self.known.get((state, chosen), -1) >= self.left:
                return None
            self.known[state, chosen] = self.left
            self.seen.append((step, able, current, state))
        return chosen


class AnyOrder:
    """Every step by whoever comes, with equal chances."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def choose(self, step: int, able: list[int], current: int, state: int) -> int:
        return self.random.choice(able)


class Priorities:
    """Probabilistic concurrency testing: the highest priority runs, and drops to the lowest at a few random steps.

    Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs" (2010).
    """

    def __init__(self, seed: int, drops: int = 4, length: int = 150) -> None:
        rng = random.Random(seed)
        self.priority = [rng.random() for _ in range(10)]
        self.drops = {step: -n for n, step in enumerate(rng.sample(range(length), drops))}

    def choose(self, step: int, able: list[int], current: int, state: int) -> int:
        if step in self.drops and current >= 0:
            self.priority[current] = self.drops[step]
        return max(able, key=self.priority.__getitem__)


class Abandoned(BaseException):
    """Thrown into a thread that nobody will run any further."""


def abandon(thread: Steps) -> None:
    # Not `close()`: its `finally` blocks have switch points, and a generator that yields as it is closed complains.
    try:
        while True:
            thread.throw(Abandoned())
    except BaseException:
        return


def described(story: Story, points: list[Point | None]) -> list[str]:
    """Return what each thread is about to do."""
    return [
        f"{name}: {point[2] if point else 'ended':24} {place(thread)}"
        for (name, thread), point in zip(story.threads.items(), points, strict=True)
    ]


def place(thread: object) -> str:
    """Return the function and the line of the code under exploration that a thread is at."""
    found = ""
    while isinstance(thread, GeneratorType):
        code = thread.gi_code
        if code.co_filename.startswith("<explored") and thread.gi_frame is not None:
            number = thread.gi_frame.f_lineno
            found = f"{code.co_name}, line {number}: {linecache.getline(code.co_filename, number).strip()}"
        thread = thread.gi_yieldfrom
    return found
