"""The bugs of the asynchronous side, and the scenario in which each must show."""

from __future__ import annotations

from .asynchronous import AsyncScenario, source
from .instrument import Change
from .seeded_bugs import SeededBug


def consumer(old: str, new: str) -> Change:
    return Change("_async_consumer.py", old, new)


def room(old: str, new: str) -> Change:
    return Change("_async_source.py", old, new)


TASK = AsyncScenario(items=2, tasks=1)
INTERRUPTED = AsyncScenario(items=1, tasks=1, interrupts=1)
SOURCE = source(items=2)
GROUP = source(items=2, task_group=True)
STUCK = source(items=1, cancels=1, stuck=True)
UNHEARD = source(items=2, consumers=0, cancels=1)

ANNOUNCE = "    channel.bells.add(bell)\n"
LOOK = "        if channel.has_news():\n            return False  # no other task has had a turn\n"
ANSWER = """\
                        for _ in channel.wake_worker:
                            break
"""
END = """\
        await wait_for_end(worker, None)
        try:
            raise_held(channel.outcome)
"""
REQUEST = '        channel.wake_worker = map(self._far.send, given_once(b"\\0"))\n'
LOOK_FOR_ROOM = "        if channel.items.qsize() < channel.max_prefetch or channel.cancelled:\n"

ASYNC_BUGS = [
    SeededBug(
        "a task looks before it announces its bell",
        (consumer(ANNOUNCE, ""), consumer(LOOK, f"{LOOK}        channel.bells.add(bell)\n")),
        TASK,
    ),
    SeededBug("a task answers nobody", (consumer(ANSWER, ""),), AsyncScenario(items=2, tasks=1, pauses=True)),
    SeededBug(
        "a task awaits between the take and the return",
        (consumer("return item", "await make_bell().give_turn()\n                            return item"),),
        INTERRUPTED,
    ),
    SeededBug(
        "a task looks for the end after the buffer",
        (
            consumer("over = channel.over  #", "pass  #"),
            consumer("_wait(channel, worker, over):", "_wait(channel, worker, channel.over):"),
        ),
        AsyncScenario(items=1, max_prefetch=2, tasks=1),
    ),
    SeededBug(
        "a task gets an item that was cancelled",
        (consumer("                        if not channel.cancelled:", "                        if True:"),),
        AsyncScenario(items=1, tasks=1, cancels=1, late=True),
    ),
    SeededBug(
        "a task that is cancelled takes the failure with it",
        (
            consumer(
                END,
                "        failure = next(channel.outcome.take)\n"
                "        await wait_for_end(worker, None)\n"
                "        try:\n"
                "            if failure is not None:\n"
                "                raise failure\n",
            ),
        ),
        AsyncScenario(items=1, tasks=1, fails=True, interrupts=1),
    ),
    SeededBug(
        "a task does not wait for the end of the thread",
        (consumer("        await wait_for_end(worker, None)\n", ""),),
        TASK,
    ),
    SeededBug(
        "a task looks whether the thread has ended before it listens",
        (
            consumer("    _kept = worker.ended.listen(bell)\n", ""),
            consumer(
                "        await bell.sleep(deadline)\n",
                "        _kept = worker.ended.listen(bell)\n        await bell.sleep(deadline)\n",
            ),
        ),
        TASK,
    ),
    SeededBug(
        "the room's request is stored after the look",
        (
            room(REQUEST, "        full = channel.items.qsize() >= channel.max_prefetch\n" + REQUEST),
            room(LOOK_FOR_ROOM, "        if not full or channel.cancelled:\n"),
        ),
        SOURCE,
    ),
    SeededBug(
        "the room is not looked at after the request",
        (room(LOOK_FOR_ROOM, "        if channel.cancelled:\n"),),
        SOURCE,
    ),
    SeededBug(
        "a full buffer hides a cancel from the room",
        (room(LOOK_FOR_ROOM, LOOK_FOR_ROOM.replace(" or channel.cancelled", "")),),
        UNHEARD,
    ),
    SeededBug(
        "the token is not awaited after a cancellation",
        (room("while not self._granted.is_set():", "if not self._granted.is_set():"),),
        GROUP,
    ),
    SeededBug(
        "the token of the last request counts for the next",
        (room("        self._granted.clear()\n", ""),),
        source(items=3),
    ),
    SeededBug(
        "what a task group has sent is dropped",
        (room("thrown = await self._park() or thrown", "await self._park()"),),
        GROUP,
    ),
    SeededBug(
        "an asynchronous source rings before it puts",
        (
            room("\n            if channel.bells:\n                channel.ring()\n", "\n"),
            room(
                "            self._in_step = True\n", "            channel.ring()\n            self._in_step = True\n"
            ),
        ),
        SOURCE,
    ),
    SeededBug("a stop does not cancel the step", (room("            self._task.cancel()", "            pass"),), STUCK),
    SeededBug(
        "a stop cancels the clean-up",
        (room("if self._in_step and not self._context.heard:", "if True:"),),
        UNHEARD,
    ),
    SeededBug(
        "a step that a stop has cancelled is taken for a failure",
        (room("if self._context.heard and (cancelled", "if False and (cancelled"),),
        STUCK,
    ),
    SeededBug(
        "a task goes on for nobody",
        (room("            self._context.stop.set()\n", "            pass\n"),),
        source(items=3, consumers=0, dropped=True),
    ),
]
