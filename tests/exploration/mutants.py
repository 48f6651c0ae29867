"""Bugs of the kind that a hand-off has, and in which scenario each must show."""

from __future__ import annotations

from typing import NamedTuple

from .instrument import Change
from .scenarios import CIRCLES, Circle, Scenario


class Mutant(NamedTuple):
    """A name, the changes that make it, and where it is looked for."""

    name: str
    changes: tuple[Change, ...]
    scenario: Scenario | Circle

    def __str__(self) -> str:
        return self.name


def handoff(old: str, new: str) -> Change:
    return Change("_handoff.py", old, new)


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
                    for _ in handoff.parked:
                        break
"""
CANCEL_END = """\
        for _ in self.parked:
            break
        self.ring()
"""
LOOKS = "self.items.qsize() or self.over or not self.open"
RING = """\
            bell.ring()
            self.bells.discard(bell)
"""

MUTANTS = [
    Mutant(
        "the worker announces itself after its look",
        (
            handoff(
                "        self.parked = map(self.wake.put, repeat(None, 1))\n        if self.items.qsize() < self.depth",
                "        full = self.items.qsize() >= self.depth\n"
                "        self.parked = map(self.wake.put, repeat(None, 1))\n"
                "        if not full",
            ),
        ),
        PAUSES,
    ),
    Mutant(
        "the worker takes its call back before it sleeps",
        (handoff("        self.wake.get()", "        self.parked = _NOBODY\n        self.wake.get()"),),
        PLAIN,
    ),
    Mutant(
        "the worker counts one place too many",
        (handoff("self.depth - self.items", "self.depth + 1 - self.items"),),
        PLAIN,
    ),
    Mutant("the consumer does not answer", (handoff(ANSWER, ""),), PAUSES),
    Mutant(
        "the consumer answers before it takes",
        (
            handoff(
                f"                for item in handoff.take:\n{ANSWER}",
                "                for _ in handoff.parked:\n"
                "                    break\n"
                "                for item in handoff.take:\n",
            ),
        ),
        PAUSES,
    ),
    Mutant(
        "the worker rings before it puts",
        (
            worker("\n            if handoff.bells:\n                handoff.ring()\n", "\n"),
            worker(PUT, f"                if handoff.bells:\n                    handoff.ring()\n{PUT}"),
        ),
        PLAIN,
    ),
    Mutant("the worker does not ring", (worker("                handoff.ring()", "                pass"),), PLAIN),
    Mutant(
        "one bell is rung, not all",
        (handoff(RING, f"{RING}            break\n"),),
        TWO,
    ),
    Mutant(
        "the consumer announces its bell after its look",
        (
            handoff("            self.bells.add(bell)\n", ""),
            handoff("return bell.sleep(deadline)", "return self.bells.add(bell) or bell.sleep(deadline)"),
        ),
        PLAIN,
    ),
    Mutant(
        "the consumer does not look for the end before it sleeps",
        (handoff(LOOKS, LOOKS.replace("self.over or ", "")),),
        PLAIN,
    ),
    Mutant(
        "the consumer does not look for a cancel before it sleeps",
        (handoff(LOOKS, LOOKS.replace(" or not self.open", "")),),
        STUCK,
    ),
    Mutant(
        "the consumer looks for the end after the buffer",
        (
            handoff("over = handoff.over  #", "pass  #"),
            handoff("if over or not handoff.open", "if handoff.over or not handoff.open"),
        ),
        Scenario(items=1, depth=2),
    ),
    Mutant(
        "the end is said before the last item",
        (worker(PUT, f"                handoff.over = True\n{PUT}"),),
        PLAIN,
    ),
    Mutant(
        "the end is said before the outcome",
        (handoff("        if outcome is not None:\n", "        self.over = True\n        if outcome is not None:\n"),),
        Scenario(items=1, fails=True, unsettled=True),
    ),
    Mutant("the end is not rung", (handoff("the outcome: who sees it finds both\n        self.ring()", ""),), PLAIN),
    Mutant(
        "the failure is looked at, not taken",
        (atomic("map(self._held.pop, ", "map(self._held.get, "),),
        Scenario(items=1, fails=True),
    ),
    Mutant(
        "a cancelled item is delivered",
        (handoff("                    if handoff.open:", "                    if True:"),),
        CANCEL,
    ),
    Mutant("cancel does not answer the worker", (handoff(CANCEL_END, "        self.ring()\n"),), UNHEARD),
    Mutant("cancel does not ring", (handoff(CANCEL_END, CANCEL_END.replace("        self.ring()\n", "")),), STUCK),
    Mutant(
        "cancel says so last",
        (
            handoff("        self.open = False  # first", "        # first"),
            handoff(CANCEL_END, f"{CANCEL_END}        self.open = False\n"),
        ),
        STUCK,
    ),
    Mutant(
        "the end does not drop what came after a cancel",
        (handoff("            self.drop()  # what", "            pass  # what"),),
        UNHEARD,
    ),
    Mutant(
        "a full buffer hides a cancel from the worker",
        (
            handoff("        while self.open:", "        while True:"),
            handoff("self.items.qsize() < self.depth or not self.open:", "self.items.qsize() < self.depth:"),
        ),
        UNHEARD,
    ),
    Mutant(
        "the worker goes on for nobody",
        (handoff("            if self.owner() is None:", "            if False:"),),
        Scenario(items=3, consumers=0, dropped=True),
    ),
    Mutant(
        "a worker says what it waits for after it has looked for a circle",
        (
            handoff("                    here.waits_for = self, news\n", "                    pass\n"),
            handoff("_circle(news)\n", "_circle(news)\n                here.waits_for = self, news\n"),
        ),
        CIRCLES[0],
    ),
    Mutant(
        "a worker that has something to do is taken to wait",
        (handoff(" or is_there():\n                return", ":\n                return"),),
        CIRCLES[3],
    ),
    Mutant(
        "a circle is not looked at again",
        (handoff("for wait in reversed(circle)", "for wait in circle[len(circle) :]"),),
        CIRCLES[3],
    ),
    Mutant(
        "a circle is looked at again from the beginning",
        (
            handoff("for wait in reversed(circle)", "for wait in circle"),
            handoff(
                "after is not None and _awaited_by(handoff.producer)",
                "after is not None and _awaited_by(after[0].producer)",
            ),
            handoff("is not after)", "is not wait)"),
        ),
        CIRCLES[3],
    ),
    Mutant(
        "a worker that was woken is taken to wait",
        (handoff("                here.waits_for = None\n", ""),),
        CIRCLES[2],
    ),
    Mutant("the worker does not look for a cancel", (worker("if not handoff.open:\n", "if False:\n"),), UNHEARD),
]
