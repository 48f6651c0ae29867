"""Bugs of the kind that a channel has, and the scenario in which each must show."""

from __future__ import annotations

from typing import NamedTuple

from .instrument import Change
from .scenarios import CIRCLES, Circle, Scenario


class SeededBug(NamedTuple):
    """A name, the changes that make it, and where it is looked for."""

    name: str
    changes: tuple[Change, ...]
    scenario: Scenario | Circle

    def __str__(self) -> str:
        return self.name


def channel(old: str, new: str) -> Change:
    return Change("_channel.py", old, new)


def consumer(old: str, new: str) -> Change:
    return Change("_generator.py", old, new)


def atomic(old: str, new: str) -> Change:
    return Change("_atomic.py", old, new)


def worker(old: str, new: str) -> Change:
    return Change("_worker.py", old, new)


PLAIN = Scenario(items=2)
PAUSES = Scenario(items=2, pauses=True)
TWO = Scenario(items=1, consumers=2)
CANCEL = Scenario(items=1, cancels=1)
STUCK = Scenario(items=1, cancels=1, stuck=True)
UNHEARD = Scenario(items=2, consumers=0, cancels=1)

PUT = "                put(next(source))"
ANSWER = """\
                    for _ in channel.wake_worker:
                        break
"""
CANCEL_END = """\
        next(self.wake_worker, None)
        self.ring()
"""
LOOKS = "self.items.qsize() or self.over or self.cancelled"
RING = """\
            bell.ring()
            self.bells.discard(bell)
"""

SEEDED_BUGS = [
    SeededBug(
        "the worker announces itself after its look",
        (
            channel(
                "        self.wake_worker = map(self.wakeups.put, repeat(None, 1))\n"
                "        if self.items.qsize() < self.max_prefetch",
                "        full = self.items.qsize() >= self.max_prefetch\n"
                "        self.wake_worker = map(self.wakeups.put, repeat(None, 1))\n"
                "        if not full",
            ),
        ),
        PAUSES,
    ),
    SeededBug(
        "the worker takes its call back before it sleeps",
        (channel("        self.wakeups.get()", "        self.wake_worker = NO_REQUEST\n        self.wakeups.get()"),),
        PLAIN,
    ),
    SeededBug(
        "the worker counts one place too many",
        (channel("self.max_prefetch - self.items", "self.max_prefetch + 1 - self.items"),),
        PLAIN,
    ),
    SeededBug("the consumer does not answer", (consumer(ANSWER, ""),), PAUSES),
    SeededBug(
        "the consumer answers before it takes",
        (
            consumer(
                f"                for item in channel.take:\n{ANSWER}",
                "                for _ in channel.wake_worker:\n"
                "                    break\n"
                "                for item in channel.take:\n",
            ),
        ),
        PAUSES,
    ),
    SeededBug(
        "the worker rings before it puts",
        (
            worker("\n            if channel.bells:\n                channel.ring()\n", "\n"),
            worker(PUT, f"                if channel.bells:\n                    channel.ring()\n{PUT}"),
        ),
        PLAIN,
    ),
    SeededBug("the worker does not ring", (worker("                channel.ring()", "                pass"),), PLAIN),
    SeededBug(
        "one bell is rung, not all",
        (channel(RING, f"{RING}            break\n"),),
        TWO,
    ),
    SeededBug(
        "the consumer announces its bell after its look",
        (
            channel("            self.bells.add(bell)\n", ""),
            channel("return bell.sleep(deadline)", "return self.bells.add(bell) or bell.sleep(deadline)"),
        ),
        PLAIN,
    ),
    SeededBug(
        "the consumer does not look for the end before it sleeps",
        (channel(LOOKS, LOOKS.replace("self.over or ", "")),),
        PLAIN,
    ),
    SeededBug(
        "the consumer does not look for a cancel before it sleeps",
        (channel(LOOKS, LOOKS.replace(" or self.cancelled", "")),),
        STUCK,
    ),
    SeededBug(
        "the consumer looks for the end after the buffer",
        (
            consumer("over = channel.over  #", "pass  #"),
            consumer("if over or channel.cancelled", "if channel.over or channel.cancelled"),
        ),
        Scenario(items=1, max_prefetch=2),
    ),
    SeededBug(
        "the end is said before the last item",
        (worker(PUT, f"                channel.over = True\n{PUT}"),),
        PLAIN,
    ),
    SeededBug(
        "the end is said before the outcome",
        (channel("        if outcome is not None:\n", "        self.over = True\n        if outcome is not None:\n"),),
        Scenario(items=1, fails=True, unsettled=True),
    ),
    SeededBug("the end is not rung", (channel("the outcome: who sees it finds both\n        self.ring()", ""),), PLAIN),
    SeededBug(
        "the failure is looked at, not taken",
        (atomic("map(self._held.pop, ", "map(self._held.get, "),),
        Scenario(items=1, fails=True),
    ),
    SeededBug(
        "a cancelled item is delivered",
        (consumer("                    if not channel.cancelled:", "                    if True:"),),
        CANCEL,
    ),
    SeededBug("cancel does not answer the worker", (channel(CANCEL_END, "        self.ring()\n"),), UNHEARD),
    SeededBug("cancel does not ring", (channel(CANCEL_END, CANCEL_END.replace("        self.ring()\n", "")),), STUCK),
    SeededBug(
        "cancel says so last",
        (
            channel("        self.cancelled = True  # first", "        # first"),
            channel(CANCEL_END, f"{CANCEL_END}        self.cancelled = True\n"),
        ),
        STUCK,
    ),
    SeededBug(
        "the end does not drop what came after a cancel",
        (channel("            self.drop()  # what", "            pass  # what"),),
        UNHEARD,
    ),
    SeededBug(
        "a full buffer hides a cancel from the worker",
        (
            channel("        while not self.cancelled:", "        while True:"),
            channel(
                "self.items.qsize() < self.max_prefetch or self.cancelled:", "self.items.qsize() < self.max_prefetch:"
            ),
        ),
        UNHEARD,
    ),
    SeededBug(
        "the worker goes on for nobody",
        (channel("            if self.owner() is None:", "            if False:"),),
        Scenario(items=3, consumers=0, dropped=True),
    ),
    SeededBug(
        "a worker says what it waits for after it has looked for a circle",
        (
            channel("                    here.waits_for = self, news\n", "                    pass\n"),
            channel("_circle(me, news)\n", "_circle(me, news)\n                here.waits_for = self, news\n"),
        ),
        CIRCLES[0],
    ),
    SeededBug(
        "a worker that has something to do is taken to wait",
        (channel(" or is_there():\n                return", ":\n                return"),),
        CIRCLES[3],
    ),
    SeededBug(
        "a circle is not looked at again",
        (channel("for wait in reversed(circle)", "for wait in circle[len(circle) :]"),),
        CIRCLES[3],
    ),
    SeededBug(
        "a circle is looked at again from the beginning",
        (
            channel("for wait in reversed(circle)", "for wait in circle"),
            channel(
                "after is not None and _awaited_by(channel.worker_ident)",
                "after is not None and _awaited_by(after[0].worker_ident)",
            ),
            channel("is not after)", "is not wait)"),
        ),
        CIRCLES[3],
    ),
    SeededBug(
        "a worker that was woken is taken to wait",
        (channel("                here.waits_for = None\n", "                pass\n"),),
        CIRCLES[2],
    ),
    SeededBug("the worker does not look for a cancel", (worker("if channel.cancelled:\n", "if False:\n"),), UNHEARD),
]
