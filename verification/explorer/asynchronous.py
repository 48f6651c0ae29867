"""The same with tasks: asynchronous consumers, and an asynchronous source, that are cancelled at any moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import Any

from .instrument import Code
from .primitives import Current, End, Steps, Until
from .scenarios import Failed, Run, Scenario, Source
from .tasks import CancelledError, Task


@dataclass(frozen=True)
class AsyncScenario(Scenario):
    """Who of them is asynchronous, and whose task is cancelled."""

    tasks: int = 0  # of the consumers, the last ones
    interrupts: int = 0  # the first of these tasks is cancelled so often, and calls again
    asynchronous_source: bool = False
    task_group: bool = False  # in the source, open across its `yield`: it cancels the source's task once

    def __call__(self, code: Code) -> Callable[[], Run]:
        return lambda: AsyncRun(self, code)

    def __str__(self) -> str:
        words = [super().__str__()]
        words += [f"{self.tasks} of them tasks"] if self.tasks else []
        words += [f"{self.interrupts} interrupts"] if self.interrupts else []
        words += [word.replace("_", " ") for word in ("asynchronous_source", "task_group") if getattr(self, word)]
        return ", ".join(words)


class AsyncRun(Run):
    """One run with tasks."""

    scenario: AsyncScenario

    def __init__(self, scenario: AsyncScenario, code: Code) -> None:
        self.code = code
        self.cancelled_from_within = False
        self.stop = Stop(self)
        self.ended_event = Ended(self)
        super().__init__(scenario, code)
        self.consumer._worker.ended = self.ended_event
        if scenario.asynchronous_source:
            self.source = AsyncSource(self)

    def make_threads(self) -> dict[str, Steps]:
        threads = super().make_threads()
        scenario, names = self.scenario, list(threads)
        if scenario.asynchronous_source:
            may_be_cancelled = scenario.is_stopped or scenario.task_group
            Current.tasks[0] = self.source_task = Task(may_be_cancelled=may_be_cancelled)
            threads["worker"] = self.work_asynchronously()
            if scenario.task_group:
                threads["task group"] = self.cancel_from_within()
        for n in range(scenario.consumers - scenario.tasks, scenario.consumers):
            first = n == scenario.consumers - scenario.tasks
            name = f"consumer {n}"
            Current.tasks[names.index(name)] = task = Task(may_be_cancelled=first and scenario.interrupts > 0)
            threads[name] = self.consume_asynchronously(self.delivered[n])
            if first:
                threads |= {f"interrupt {m}": task.cancel() for m in range(scenario.interrupts)}
        return threads

    def cancel_from_within(self) -> Steps:
        yield from self.source_task.cancel()
        self.cancelled_from_within = True

    def work(self) -> Steps:
        yield from super().work()
        yield from self.ended_event.set()

    def work_asynchronously(self) -> Steps:
        """Do what `_worker._run` does with an asynchronous source."""
        interrupted = SimpleNamespace(set=lambda: None)  # for tasks of the source that are not explored
        context = SimpleNamespace(stop=self.stop, heard=False, is_its_task=None, interrupted=interrupted)
        self.context, held = context, self.code.Once()
        yield from self.code.AsyncRun(self.channel, self.source, held, context).to_the_end()
        outcome = held._held.pop("it")
        if context.heard and not isinstance(outcome, (End, GeneratorExit)):
            self.wrong.append(f"a clean-up that went well has raised {outcome!r}")
        yield from self.channel.finish(None if context.heard else outcome)
        self.finished = True
        yield from self.ended_event.set()

    def consume_asynchronously(self, delivered: list[int]) -> Steps:
        consumer = self.code.AsyncConsumer(self.consumer)
        failed = False
        for turn in count():
            Current.knows_only(turn, consumer._turn_ends, failed, tuple(delivered))
            yield "stopped", "read", "call anext()", None
            stopped = self.stopped
            try:
                item = yield from consumer.__anext__()
            except CancelledError:
                pass
            except Failed as failure:
                self.see_the_end()
                self.failures.append(failure)
                failed = True
            except StopAsyncIteration:
                self.see_the_end()
                break
            else:
                assert not stopped, f"{item!r} was delivered by a call that began after cancel() had returned"
                delivered.append(item)
                if self.scenario.pauses:
                    yield "source", "read", "pause", Until(self.source.is_ahead)
        self.ended += 1

    def see_the_end(self) -> None:
        assert self.finished or self.scenario.is_stopped, "A10: the end was told before the thread had ended"

    def cancel(self) -> Steps:
        yield from self.stop.set()
        yield "stopped", "write", "return from cancel()", None
        self.stopped = True

    def drop(self) -> Steps:
        yield from super().drop()
        yield from self.stop.ring()  # what `listen` returns is a weak reference that does so

    def check_rest(self) -> None:
        super().check_rest()
        if self.scenario.task_group and not self.scenario.is_stopped and not self.source_task.must_cancel:
            assert isinstance(self.source, AsyncSource)
            assert self.source.interrupted == 1, "what the task group sent did not come to the source"


class Stop:
    """The generator's own stop event, as `set_all` sets it."""

    def __init__(self, run: AsyncRun) -> None:
        self.run = run
        self.listeners: tuple[Any, ...] = ()
        Current.values["listeners"] = lambda: len(self.listeners)

    def listen(self, listener: Any) -> Steps:
        yield "listeners", "write", "listen", None
        self.listeners += (listener,)

    def set(self) -> Steps:
        yield from self.run.channel.cancel()
        yield from self.ring()
        yield from self.run.channel.drop()

    def ring(self) -> Steps:
        yield "listeners", "read", "ring the listeners", None
        for listener in self.listeners:
            yield from listener.ring()


class Ended:
    """The event that says that the worker's thread has ended."""

    def __init__(self, run: AsyncRun) -> None:
        self.flag = False
        self.bells: tuple[Any, ...] = ()
        Current.values["ended"] = lambda: (self.flag, tuple(bell.name for bell in self.bells))

    def listen(self, bell: Any) -> Steps:
        yield "ended", "write", "listen to the end of the thread", None
        self.bells += (bell,)

    def is_set(self) -> Steps:
        yield "ended", "read", "look whether the thread has ended", None
        return self.flag

    def set(self) -> Steps:
        yield "ended", "both", "say that the thread has ended", None
        self.flag = True
        for bell in self.bells:
            yield from bell.ring()


class AsyncSource(Source):
    """An asynchronous generator, which is in the middle of a task group."""

    run: AsyncRun

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.interrupted = 0

    def anext(self) -> Steps:
        try:
            item = yield from self.step()
            yield from self.await_something()
        except End:
            raise StopAsyncIteration from None
        except CancelledError:
            self.over = True
            raise
        return item

    def athrow(self, thrown: BaseException) -> Steps:
        """Have what was thrown come to the group, which takes it for its own, and go on."""
        assert isinstance(thrown, CancelledError)
        self.take_interrupt()
        return (yield from self.anext())

    def await_something(self) -> Steps:
        try:
            yield from self.run.source_task.checkpoint()
        except CancelledError:
            self.take_interrupt()

    def be_stuck(self) -> Steps:
        try:
            yield from self.run.source_task.suspend(lambda: False)
        except CancelledError:
            self.take_interrupt()
            yield from self.be_stuck()

    def take_interrupt(self) -> None:
        """Let a cancellation pass, unless it is the group's own alone: as `asyncio.TaskGroup` does."""
        if self.interrupted or not self.run.cancelled_from_within:
            raise CancelledError
        self.interrupted += 1
        if self.run.source_task.uncancel():
            raise CancelledError

    def knowledge(self) -> tuple[object, ...]:
        return self.interrupted, self.run.context.heard

    def aclose(self) -> Steps:
        if not self.over:
            self.closed = True
            yield from self.await_something()


def source(items: int, max_prefetch: int = 1, **others: Any) -> AsyncScenario:
    return AsyncScenario(items, max_prefetch, asynchronous_source=True, **others)


# As in `scenarios`: what is explored in every run of the tests, with how many preemptions.
QUICK: list[tuple[Scenario, int | None]] = [
    (AsyncScenario(items=2, tasks=1), 2),
    (AsyncScenario(items=1, tasks=1, interrupts=1), 1),
    (AsyncScenario(items=2, max_prefetch=2, tasks=1, fails=True, interrupts=1), 1),
    (AsyncScenario(items=1, tasks=1, cancels=1), 1),
    (AsyncScenario(items=1, tasks=1, cancels=1, stuck=True, interrupts=1), 0),
    (AsyncScenario(items=1, consumers=2, tasks=1, interrupts=1), 0),
    (AsyncScenario(items=1, consumers=2, tasks=2, fails=True), 0),
    (source(items=2), 1),
    (source(items=2, task_group=True), 1),
    (source(items=2, consumers=0, cancels=1, task_group=True), 1),
    (source(items=2, consumers=0, dropped=True), None),
    (source(items=1, cancels=1, stuck=True), 1),
    (source(items=2, tasks=1), 1),
    (source(items=2, tasks=1, interrupts=1, task_group=True), 0),
    (source(items=1, tasks=1, cancels=1), 1),
]

# What can only be sampled.
LARGE: list[Scenario] = [
    AsyncScenario(items=6, max_prefetch=2, consumers=3, tasks=2, interrupts=2, cancels=1),
    source(items=6, max_prefetch=2, consumers=3, tasks=2, interrupts=2, task_group=True, fails=True),
]

# What takes minutes, and is run by PREFETCH_EXPLORE=1.
FULL: list[tuple[Scenario, int | None]] = [
    (AsyncScenario(items=1, tasks=1), None),
    (AsyncScenario(items=2, tasks=1), 4),
    (AsyncScenario(items=2, tasks=1, interrupts=1), 3),
    (AsyncScenario(items=1, tasks=1, interrupts=2), 2),
    (AsyncScenario(items=2, max_prefetch=2, tasks=1, fails=True, interrupts=1), 2),
    (AsyncScenario(items=2, tasks=1, cancels=1), 2),
    (AsyncScenario(items=1, tasks=1, cancels=1, interrupts=1), 2),
    (AsyncScenario(items=1, tasks=1, cancels=1, stuck=True, interrupts=1), 1),
    (AsyncScenario(items=2, consumers=2, tasks=1, interrupts=1), 1),
    (AsyncScenario(items=1, consumers=2, tasks=1), 2),
    (AsyncScenario(items=2, consumers=2, tasks=2, interrupts=1), 1),
    (AsyncScenario(items=1, consumers=2, tasks=2, fails=True, interrupts=1), 1),
    (AsyncScenario(items=1, consumers=2, tasks=1, cancels=1), 1),
    (source(items=1), None),
    (source(items=3), 3),
    (source(items=3, task_group=True), 2),
    (source(items=3, max_prefetch=2, fails=True, task_group=True), 2),
    (source(items=2, consumers=0, cancels=1, task_group=True), 4),
    (source(items=2, consumers=0, cancels=2), 2),
    (source(items=3, consumers=0, dropped=True, task_group=True), None),
    (source(items=2, cancels=1), 2),
    (source(items=2, cancels=1, task_group=True), 1),
    (source(items=1, cancels=1, stuck=True), 2),
    (source(items=2, tasks=1), 3),
    (source(items=2, tasks=1, interrupts=1), 2),
    (source(items=2, tasks=1, interrupts=1, task_group=True), 1),
    (source(items=1, tasks=1, cancels=1, interrupts=1, task_group=True), 1),
    (source(items=2, consumers=2, tasks=1), 1),
]
