"""A worker, consumers and cancellers around one channel, and what must hold whatever their order is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from types import SimpleNamespace
from typing import Any

from prefetch_generator._stop import SourceContext, StopEvent

from .instrument import Code
from .primitives import Current, End, Stepping, Steps, Until


class Failed(Exception):  # noqa: N818 - the source's
    """What a source raises."""


@dataclass(frozen=True)
class Scenario:
    """Who is there, and what happens."""

    items: int = 2
    max_prefetch: int = 1
    consumers: int = 1
    cancels: int = 0  # close(), a stop event or the collector: each a thread that calls cancel() once
    fails: bool = False  # the source, after its items
    stuck: bool = False  # the source, after its items, until nobody waits for it any more
    late: bool = False  # the source, before each item, until a cancel() has returned
    impatient: bool = False  # the consumers wait with a timeout first
    pauses: bool = False  # the consumers, after their first item, until the worker has read ahead as far as it may
    unsettled: bool = False  # nobody waits for the worker's thread to be gone (in truth it is waited for for a second)
    dropped: bool = False  # the generator, whose finalizer was interrupted before its first line

    def __call__(self, code: Code) -> Callable[[], Run]:
        return lambda: Run(self, code)

    @property
    def is_stopped(self) -> bool:
        return bool(self.cancels or self.dropped)

    def __str__(self) -> str:
        words = [f"{self.items} items, max_prefetch {self.max_prefetch}, {self.consumers} consumers"]
        words += [f"{self.cancels} cancels"] if self.cancels else []
        flags = ("fails", "stuck", "late", "impatient", "pauses", "unsettled", "dropped")
        words += [word for word in flags if getattr(self, word)]
        return ", ".join(words)


class Run:
    """One run: the threads, what they have seen so far, and the checks."""

    def __init__(self, scenario: Scenario, code: Code) -> None:
        self.scenario = scenario
        self.channel = code.Channel(scenario.max_prefetch, self)
        self.source = Source(self)
        self.produce = code.produce
        self.consumer = code.Consumer()
        self.consumer._channel, self.consumer._process = self.channel, None
        self.consumer._worker = SimpleNamespace(join=self.join)
        self.delivered: list[list[int]] = [[] for _ in range(scenario.consumers)]
        self.failures: list[BaseException] = []
        self.wrong: list[str] = []  # what the source has seen: an exception that it raises goes its own way
        self.ended = 0  # consumers
        self.stopped = False  # a cancel() has returned
        self.finished = False  # the worker has
        self.alive = True  # the generator is
        if scenario.dropped:
            self.channel.owner = self.owner
        Current.values |= {
            "bells": lambda: frozenset(bell.name for bell in self.channel.bells),
            "wake_worker": lambda: getattr(self.channel.wake_worker, "name", "nobody"),
            "stopped": lambda: self.stopped,
            "owner": lambda: self.alive,
        }
        for flag in ("cancelled", "over", "worker_ident", "complete"):
            Current.values[flag] = partial(getattr, self.channel, flag)
        self.threads = self.make_threads()

    def make_threads(self) -> dict[str, Steps]:
        scenario = self.scenario
        threads: dict[str, Steps] = {"worker": self.work()}
        threads |= {f"consumer {n}": self.consume(self.delivered[n]) for n in range(scenario.consumers)}
        threads |= {f"cancel {n}": self.cancel() for n in range(scenario.cancels)}
        if scenario.dropped:
            threads["drop"] = self.drop()
        return threads

    def work(self) -> Steps:
        """Do what `_worker._run` does, as far as the channel is concerned."""
        outcome = yield from self.produce(self.channel, self.source)
        if outcome is None:
            self.source.closed = True
        yield from self.channel.finish(outcome)
        self.finished = True

    def owner(self) -> Steps:
        yield "owner", "read", "owner()", None
        return self if self.alive else None

    def drop(self) -> Steps:
        yield "owner", "write", "the last reference goes", None
        self.alive = False
        yield from self.channel.wakeups.put("the weak reference")

    def join(self) -> Steps:
        if self.scenario.unsettled:
            return
        yield "worker", "read", "join the worker", Until(lambda: self.finished)

    def consume(self, delivered: list[int]) -> Steps:
        timeout = 1.0 if self.scenario.impatient else None
        failed = False
        for turn in count():
            Current.knows_only(turn, timeout, failed, tuple(delivered))
            yield "stopped", "read", "call next()", None
            stopped = self.stopped
            try:
                item = yield from self.consumer.next(timeout)
            except TimeoutError:
                timeout = None
            except Failed as failure:
                self.failures.append(failure)
                failed = True
            except End:
                break
            else:
                assert not stopped, f"{item!r} was delivered by a next() that was called after cancel() had returned"
                delivered.append(item)
                if self.scenario.pauses:
                    yield "source", "read", "pause", Until(self.source.is_ahead)
        self.ended += 1

    def cancel(self) -> Steps:
        yield from self.channel.cancel()
        yield from self.channel.drop()
        yield "stopped", "write", "return from cancel()", None
        self.stopped = True

    def check(self) -> None:
        """Check, when everybody has ended, what each has seen."""
        assert not self.wrong, self.wrong[0]
        self.check_items()
        self.check_failure()
        self.check_rest()

    def check_items(self) -> None:
        """A1: nothing lost, repeated or reordered; after a cancel, nothing but a tail lost."""
        everything = list(range(self.scenario.items))
        for delivered in self.delivered:
            assert delivered == sorted(set(delivered)), f"out of order: {delivered}"
        together = sorted(chain.from_iterable(self.delivered))
        assert together == sorted(set(together)), f"delivered twice: {self.delivered}"
        if not self.scenario.is_stopped:
            assert together == everything, f"lost: {set(everything) - set(together)}"
        elif self.scenario.consumers == 1:
            assert together == everything[: len(together)], f"lost in the middle: {together}"

    def check_failure(self) -> None:
        """B1, B2: raised to exactly one."""
        assert len(self.failures) <= 1, "the failure was raised twice"
        if self.scenario.fails and not self.scenario.is_stopped:
            assert self.failures, "the failure was lost"

    def check_rest(self) -> None:
        """C1, C3, B3: nothing is kept, nobody would be woken for nothing, the source is closed if it has not ended."""
        assert not self.channel.bells, "a bell was left behind"
        if not self.scenario.dropped:
            assert not self.channel.wakeups.content, "a wake-up was left behind"
        assert not self.channel.items.content, "items were left behind"
        if self.scenario.is_stopped:
            assert not self.channel.outcome._held, "an outcome was left behind"
        assert self.source.over != self.source.closed, "closed though it had ended, or left open"


class Source(Stepping):
    """The items, then the end or a failure. Sees that it is never pulled too often."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.pulled = 0
        self.over = False
        self.closed = False
        self.pulled_after_cancel = 0

    def step(self) -> Steps:
        scenario, items = self.run.scenario, self.run.channel.items
        self.pulled += 1
        if self.pulled - items.taken > scenario.max_prefetch:
            self.run.wrong.append(f"pulled {self.pulled} when {items.taken} were taken")
        self.pulled_after_cancel += self.run.stopped
        if self.pulled_after_cancel > 1:
            self.run.wrong.append("pulled twice after cancel() had returned")
        Current.knows_only(self.pulled, *self.knowledge())
        if scenario.late:
            yield "stopped", "read", "be late", Until(lambda: self.run.stopped)
        if self.pulled <= scenario.items:
            return self.pulled - 1
        if scenario.stuck:
            yield from self.be_stuck()
        self.over = True
        raise Failed if scenario.fails else End

    def knowledge(self) -> tuple[object, ...]:
        room: tuple[int, int] = self.run.channel.items.looks[Current.thread]  # from which follows how much it knows of
        return room

    def be_stuck(self) -> Steps:
        yield "source", "read", "be stuck in the source", Until(lambda: self.run.ended == self.run.scenario.consumers)

    def is_ahead(self) -> bool:
        ahead = len(self.run.delivered[0]) + self.run.scenario.max_prefetch
        return self.pulled >= min(ahead, self.run.scenario.items)


@dataclass(frozen=True)
class Circle:
    """Two workers whose sources take from each other's generators, in turn with the items that they give."""

    first: str  # "give", or "take" one from the other, and so on
    second: str
    max_prefetch: int
    stuck: bool  # they come to a point where each waits for the other

    def __call__(self, code: Code) -> Callable[[], CircleRun]:
        return lambda: CircleRun(self, code)

    def __str__(self) -> str:
        return f"{self.first} / {self.second}, max_prefetch {self.max_prefetch}"


class CircleRun:
    """One run: both workers, and what they have been told."""

    def __init__(self, circle: Circle, code: Code) -> None:
        self.circle = circle
        self.ends = [code.Consumer(), code.Consumer()]
        self.failures: list[str] = []
        for number, consumer in enumerate(self.ends, start=1):
            consumer._channel = code.Channel(circle.max_prefetch, self)
            consumer._process, consumer._worker = None, SimpleNamespace(join=consumer._channel.is_over)
            consumer._channel.worker_ident = number
            Current.workers[number] = SourceContext(StopEvent())
        for flag in ("cancelled", "over", "complete"):
            Current.values[flag] = partial(self.look, flag)
        Current.values |= {
            "bells": lambda: tuple(frozenset(b.name for b in each._channel.bells) for each in self.ends),
            "wake_worker": lambda: tuple(getattr(each._channel.wake_worker, "name", "nobody") for each in self.ends),
            "waits_for": lambda: tuple(each.waits_for is None for each in Current.workers.values()),
        }
        self.threads: dict[str, Steps] = {
            "first": self.work(code, circle.first, *self.ends),
            "second": self.work(code, circle.second, *reversed(self.ends)),
        }

    def look(self, flag: str) -> object:
        return [getattr(consumer._channel, flag) for consumer in self.ends] == [True, True]

    def work(self, code: Code, script: str, own: Any, other: Any) -> Steps:
        outcome = yield from code.produce(own._channel, Scripted(self, script, other))
        yield from own._channel.finish(outcome)

    def check(self) -> None:
        """A10: an error and no deadlock where they wait for each other, and no error where they do not."""
        assert bool(self.failures) == self.circle.stuck, self.failures


class Scripted(Stepping):
    """A source that gives, and takes, as it was told."""

    def __init__(self, run: CircleRun, script: str, other: Any) -> None:
        self.run, self.script, self.other = run, iter(script.split()), other

    def step(self) -> Steps:
        for word in self.script:
            if word == "give":
                return word
            try:
                yield from self.other.next()
            except RuntimeError as error:
                self.run.failures.append(str(error))
                raise
        raise End


CIRCLES = [
    Circle("take", "take", 1, stuck=True),
    Circle("give take take", "take give take", 1, stuck=True),
    Circle("give take give", "take give take", 1, stuck=False),
    Circle("give take give", "take give take", 2, stuck=False),
]

# What is explored in every run of the tests, with how many preemptions; `None` is every schedule there is.
QUICK = [
    (Scenario(items=1), None),
    (Scenario(items=1, max_prefetch=2), None),
    (Scenario(items=2), 2),
    (Scenario(items=3), 2),
    (Scenario(items=3, max_prefetch=2, fails=True), 2),
    (Scenario(items=2, fails=True, unsettled=True), 2),
    (Scenario(items=2, impatient=True), 2),
    (Scenario(items=2, pauses=True), 2),
    (Scenario(items=3, max_prefetch=2, consumers=0, cancels=1), None),
    (Scenario(items=2, consumers=0, cancels=1), None),
    (Scenario(items=2, consumers=0, dropped=True), None),
    (Scenario(items=1, cancels=1), 2),
    (Scenario(items=2, cancels=1), 1),
    (Scenario(items=1, cancels=1, stuck=True), 2),
    (Scenario(items=1, cancels=1, fails=True), 1),
    (Scenario(items=1, cancels=2), 1),
    (Scenario(items=1, consumers=2), 1),
    (Scenario(items=2, consumers=2), 1),
    (Scenario(items=1, consumers=2, fails=True), 1),
    (Scenario(items=1, consumers=2, fails=True, unsettled=True), 1),
    (Scenario(items=1, consumers=2, cancels=1), 0),
    (Scenario(items=1, consumers=2, cancels=1, stuck=True), 0),
]

# What can only be sampled.
LARGE = [
    Scenario(items=6, max_prefetch=3, consumers=3),
    Scenario(items=5, max_prefetch=2, consumers=3, fails=True, impatient=True),
    Scenario(items=6, max_prefetch=2, consumers=2, cancels=2),
    Scenario(items=4, max_prefetch=1, consumers=3, cancels=1, stuck=True),
]

# What takes minutes, and is run by PREFETCH_EXPLORE=1.
FULL = [
    (Scenario(items=2), None),
    (Scenario(items=3, max_prefetch=2), None),
    (Scenario(items=2, fails=True), None),
    (Scenario(items=3), 3),
    (Scenario(items=2, impatient=True), 3),
    (Scenario(items=1, cancels=1), 3),
    (Scenario(items=1, cancels=1, stuck=True), 3),
    (Scenario(items=2, cancels=1), 2),
    (Scenario(items=3, max_prefetch=2, cancels=1, fails=True), 2),
    (Scenario(items=1, cancels=2), 2),
    (Scenario(items=1, consumers=2), 2),
    (Scenario(items=2, consumers=2), 2),
    (Scenario(items=3, max_prefetch=2, consumers=2, fails=True), 2),
    (Scenario(items=1, consumers=2, cancels=1), 1),
    (Scenario(items=1, consumers=2, cancels=1, stuck=True), 1),
]
