"""Contract A to E, whatever is done with several generators, in whatever order.

Hypothesis plays the user: it makes generators, tells their sources what to do next, takes, waits, closes, stops and
drops, and after every step compares what it sees with a model. Sources, consumers and closers are threads, or tasks of
asyncio and trio that are cancelled now and then; they wait for each other and never for a time: whoever has something
to say puts it into a queue. `tasks` has the loops, and the asynchronous source.

A longer run: `PREFETCH_EXAMPLES=5000 python -m pytest tests/random/test_state_machine.py -o timeout=0`
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from prefetch_generator import BackgroundGenerator, NotReadyError, StopEvent, current_stop_event
from tests.helpers import GIL, LONG, when_asleep
from tests.random.tasks import CANCELLED, LOOPS, AsyncSource, Loop, TaskCaller, says_when_asleep

EXAMPLES = int(os.environ.get("PREFETCH_EXAMPLES", "120" if GIL else "40"))  # each collection is a full one there
TRIES = 5

FAILURES = [ValueError, OSError, KeyboardInterrupt, SystemExit, GeneratorExit, TimeoutError, BaseException]
WAYS_TO_CLOSE = ["cleanly", "failing", "refusing", "without a close()"]
END = ("end", None)

# How a call or a step ended: ("value", it), ("end", the return value) or ("failure", the exception).
Outcome = tuple[str, object]


def outcome_of(call: Callable[[], object]) -> Outcome:
    try:
        return "value", call()
    except StopIteration as end:
        return "end", end.value
    except BaseException as error:
        error.__context__ = None  # its frames hold generators that are to be dropped
        return "failure", error.with_traceback(None)


def same(one: Outcome, other: Outcome) -> bool:
    return one[0] == other[0] and one[1] is other[1]


class Source:
    """What the user's code does: at each step it says which, and then does what it is told."""

    stops_at_once = False  # a step in progress cannot be interrupted

    def __init__(self, way_to_close: str) -> None:
        self.way_to_close = way_to_close
        self.asked: SimpleQueue[int] = SimpleQueue()
        self.told: SimpleQueue[Callable[[], Outcome | None]] = SimpleQueue()
        self.closed: SimpleQueue[int] = SimpleQueue()
        self.threads: set[int] = set()

    def tell(self, command: Callable[[], Outcome | None]) -> None:
        self.told.put(command)

    def step(self, number: int) -> Outcome:
        self.threads.add(threading.get_ident())
        self.asked.put(number)
        while True:
            outcome = self.told.get()()
            if outcome is not None:
                return outcome

    def generator(self) -> Generator[object, None, object]:
        for number in range(sys.maxsize):
            verb, value = self.step(number)
            if verb == "end":
                return value
            try:
                yield value
            except GeneratorExit:
                self.closed.put(threading.get_ident())
                if self.way_to_close == "failing":
                    raise KeyError("while closing") from None
                if self.way_to_close == "refusing":
                    yield "refused"
                raise
        return None

    def __iter__(self) -> Iterator[object]:
        return WithoutClose(self) if self.way_to_close == "without a close()" else self.generator()


class WithoutClose:
    """The same source, as an iterator that is no generator and has no close()."""

    def __init__(self, source: Source) -> None:
        self.source, self.number = source, -1

    def __iter__(self) -> Iterator[object]:
        return self

    def __next__(self) -> object:
        self.number += 1
        verb, value = self.source.step(self.number)
        if verb == "end":
            raise StopIteration(value)
        return value


class Caller(threading.Thread):
    """A thread that makes one call, and says when it goes to sleep in it and how it ended."""

    def __init__(self, call: Callable[[], object], answers: SimpleQueue[tuple[Any, Outcome]]) -> None:
        super().__init__(name="caller", daemon=True)
        self.call, self.answers = call, answers
        self.asleep = threading.Event()
        self.start()

    def run(self) -> None:
        with when_asleep(self.asleep.set):
            outcome = outcome_of(self.call)
        del self.call  # and with it the generator
        self.answers.put((self, outcome))


AnyCaller = Caller | TaskCaller


class Model:
    """One generator, and what is to be expected of it."""

    def __init__(self, number: int, max_prefetch: int, source: Source | AsyncSource, shared: StopEvent | None) -> None:
        self.number, self.max_prefetch, self.shared = number, max_prefetch, shared
        self.source = source
        self.steps = 0  # that the source was asked for
        self.taken = 0
        self.buffer: deque[object] = deque()
        self.in_step = False  # the source waits to be told
        self.stopped = False
        self.ended = False  # the source has, by itself or by being closed
        self.outcome: Outcome | None = None  # of the source, not yet seen by anybody
        self.close_failure = False  # the source raised while being closed, and nobody has had it yet
        self.waiting: list[AnyCaller] = []  # in next() or anext()
        self.closing: list[AnyCaller] = []  # in close() or aclose()
        self.waited: SimpleQueue[tuple[AnyCaller, Outcome]] = SimpleQueue()
        self.was_closed: SimpleQueue[tuple[AnyCaller, Outcome]] = SimpleQueue()
        self.bg: BackgroundGenerator[object] | None = BackgroundGenerator(
            self.source, max_prefetch, stop_event=shared, name=str(number)
        )
        self.ref = weakref.ref(self.bg)

    @property
    def generator(self) -> BackgroundGenerator[object]:
        assert self.bg is not None
        return self.bg

    @property
    def is_stuck(self) -> bool:
        """Whether the source is in a step that a stop does not end."""
        return self.in_step and not self.source.stops_at_once

    @property
    def tasks(self) -> list[TaskCaller]:
        """The tasks that wait."""
        return [caller for caller in self.waiting + self.closing if isinstance(caller, TaskCaller)]

    @property
    def has_room(self) -> bool:
        return self.max_prefetch <= 0 or len(self.buffer) < self.max_prefetch

    def workers(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == f"BackgroundGenerator-{self.number}"]

    def settle(self) -> None:
        """Wait until the worker is where it belongs: in the source if there is room, gone if it has ended."""
        if self.ended:
            for thread in self.workers():
                thread.join(LONG)
                assert not thread.is_alive()
        elif not self.in_step and self.has_room:
            assert self.source.asked.get(timeout=LONG) == self.steps
            self.steps += 1
            self.in_step = True

    def next_answer(self) -> Outcome:
        """Wait until one of those that wait in next() comes back, whichever it is; return with what."""
        return self.answer(self.waited, self.waiting)

    def close_answer(self) -> Outcome:
        """Do the same for close()."""
        return self.answer(self.was_closed, self.closing)

    def answer(self, answers: SimpleQueue[tuple[AnyCaller, Outcome]], callers: list[AnyCaller]) -> Outcome:
        caller, outcome = answers.get(timeout=LONG)
        caller.join(LONG)
        callers.remove(caller)
        return outcome

    def tell(self, command: Callable[[], Outcome | None]) -> None:
        self.source.tell(command)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.models: list[Model] = []
        self.events = [StopEvent(), StopEvent()]
        self.set_events: list[StopEvent] = []
        self.hooked: SimpleQueue[threading.ExceptHookArgs] = SimpleQueue()
        self.hook = threading.excepthook
        threading.excepthook = self.hooked.put
        self.others = threading.active_count()
        self.count = 0

    # What may happen

    @precondition(lambda self: len(self.models) < 4)
    @rule(
        max_prefetch=st.sampled_from([1, 1, 2, 3, 0]),
        way_to_close=st.sampled_from(WAYS_TO_CLOSE),
        event=st.sampled_from([None, 0, 1]),
        kind=st.sampled_from([Source, AsyncSource]),
    )
    def make(self, max_prefetch: int, way_to_close: str, event: int | None, kind: type[Source | AsyncSource]) -> None:
        shared = None if event is None else self.events[event]
        self.count += 1
        model = Model(self.count, max_prefetch, kind(way_to_close), shared)
        if shared in self.set_events:
            model.stopped = model.ended = True
        self.models.append(model)
        model.settle()

    @precondition(lambda self: self.in_step())
    @rule(data=st.data(), thing=st.sampled_from([None, 0, StopIteration, ValueError("an item")]))
    def the_source_gives(self, data: st.DataObject, thing: object) -> None:
        model = data.draw(st.sampled_from(self.in_step()))
        self.give(model, (model.steps, thing))

    @precondition(lambda self: self.in_step())
    @rule(data=st.data(), value=st.sampled_from([None, "result"]))
    def the_source_returns(self, data: st.DataObject, value: object) -> None:
        model = data.draw(st.sampled_from(self.in_step()))
        model.tell(lambda: ("end", value))
        self.source_has_ended(model, ("end", None if isinstance(model.source, AsyncSource) else value))

    @precondition(lambda self: self.in_step())
    @rule(data=st.data(), kind=st.sampled_from(FAILURES))
    def the_source_fails(self, data: st.DataObject, kind: type[BaseException]) -> None:
        model = data.draw(st.sampled_from(self.in_step()))
        failure = kind("the source's own")

        def fail(failure: BaseException = failure) -> Outcome:
            raise failure

        model.tell(fail)
        self.source_has_ended(model, ("failure", failure))

    @precondition(lambda self: self.in_step(owned=True))
    @rule(data=st.data())
    def the_source_closes_its_own_generator(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(self.in_step(owned=True)))
        answers: SimpleQueue[Outcome] = SimpleQueue()
        ref = model.ref
        model.tell(lambda: answers.put(outcome_of(lambda: ref().close(None))))  # type: ignore[union-attr]
        assert answers.get(timeout=LONG) == ("value", False)
        self.has_stopped(model)

    @precondition(lambda self: self.in_step(owned=True))
    @rule(data=st.data())
    def the_source_iterates_its_own_generator(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(self.in_step(owned=True)))
        answers: SimpleQueue[tuple[Outcome, StopEvent]] = SimpleQueue()
        ref = model.ref
        model.tell(lambda: answers.put((outcome_of(ref().next), current_stop_event())))  # type: ignore[union-attr]
        (verb, error), event = answers.get(timeout=LONG)
        assert (verb, type(error)) == ("failure", RuntimeError)
        assert event is model.generator.stop_event

    @precondition(lambda self: self.owned())
    @rule(data=st.data(), timeout=st.sampled_from([None, LONG]))
    def take(self, data: st.DataObject, timeout: float | None) -> None:
        model = data.draw(st.sampled_from(self.owned()))
        expected = self.next_outcome(model)
        if expected is None:
            verb, error = outcome_of(lambda: model.generator.next(timeout=0))
            assert (verb, type(error)) == ("failure", NotReadyError)
        else:
            assert same(outcome_of(lambda: model.generator.next(timeout)), expected)
            self.was_taken(model, expected)

    @precondition(lambda self: self.owned())
    @rule(data=st.data(), timeout=st.sampled_from([None, 10 * LONG]))
    def take_in_a_thread(self, data: st.DataObject, timeout: float | None) -> None:
        model = data.draw(st.sampled_from(self.owned()))
        expected = self.next_outcome(model)
        if expected is None and len(model.waiting) >= 3:
            return
        caller = Caller(partial(model.generator.next, timeout), model.waited)
        model.waiting.append(caller)
        if expected is None:
            assert caller.asleep.wait(LONG)
        else:
            assert same(model.next_answer(), expected)
            self.was_taken(model, expected)

    @precondition(lambda self: self.owned())
    @rule(data=st.data(), by_with=st.booleans())
    def close(self, data: st.DataObject, by_with: bool) -> None:
        model = data.draw(st.sampled_from(self.owned()))
        if model.is_stuck:
            with pytest.warns(RuntimeWarning, match=f"'{model.number}' did not stop within 0 seconds"):
                assert model.generator.close(0) is False
            self.has_stopped(model)
        else:
            call = partial(model.generator.__exit__, None, None, None) if by_with else partial(model.generator.close)
            outcome = outcome_of(call)
            self.has_stopped(model)
            if model.close_failure:
                model.close_failure = False
                self.is_close_failure(model, outcome)
            else:
                assert outcome == ("value", None if by_with else True)

    @precondition(lambda self: self.owned())
    @rule(data=st.data())
    def close_in_a_thread(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(self.owned()))
        if len(model.closing) >= 3:
            return
        caller = Caller(partial(model.generator.close, None), model.was_closed)
        model.closing.append(caller)
        if model.is_stuck:
            assert caller.asleep.wait(LONG)
        self.has_stopped(model)
        self.closers_return(model)

    @precondition(lambda self: self.owned())
    @rule(data=st.data(), loop=st.sampled_from(LOOPS))
    def take_in_a_task(self, data: st.DataObject, loop: Loop) -> None:
        model = data.draw(st.sampled_from(self.owned()))
        expected = self.next_outcome(model)
        if expected is None and len(model.waiting) >= 3:
            return
        caller = TaskCaller(loop, aiter(model.generator).__anext__, model.waited)
        model.waiting.append(caller)
        if expected is None:
            assert caller.asleep.wait(LONG)
        else:
            if expected[0] == "end":
                expected = END  # a return value is not for tasks
            assert same(model.next_answer(), expected)
            self.was_taken(model, expected)

    @precondition(lambda self: self.owned())
    @rule(data=st.data(), loop=st.sampled_from(LOOPS))
    def close_in_a_task(self, data: st.DataObject, loop: Loop) -> None:
        model = data.draw(st.sampled_from(self.owned()))
        if len(model.closing) >= 3:
            return
        caller = TaskCaller(loop, partial(model.generator.aclose, None), model.was_closed)
        model.closing.append(caller)
        if model.is_stuck:
            assert caller.asleep.wait(LONG)
        self.has_stopped(model)
        self.closers_return(model)

    @precondition(lambda self: self.with_tasks())
    @rule(data=st.data())
    def cancel_a_task(self, data: st.DataObject) -> None:
        """G3, G6: one that waits; whatever it would have got is for others, and a stop goes on."""
        model = data.draw(st.sampled_from(self.with_tasks()))
        caller = data.draw(st.sampled_from(model.tasks))
        caller.cancel()
        answer = model.next_answer if caller in model.waiting else model.close_answer
        assert answer() == CANCELLED
        assert caller not in model.waiting + model.closing

    @precondition(lambda self: self.in_step() and self.with_tasks())
    @rule(data=st.data(), first=st.booleans())
    def the_source_gives_while_a_task_is_cancelled(self, data: st.DataObject, first: bool) -> None:
        """G3: it gets the item, or leaves it to others."""
        model = data.draw(st.sampled_from(self.in_step()))
        if model.stopped or len(model.waiting) != 1 or not isinstance(model.waiting[0], TaskCaller):
            return
        caller, outcome = model.waiting[0], ("value", (model.steps, "raced for"))
        if first:
            caller.cancel()
        model.in_step = False
        model.tell(lambda: outcome)
        caller.cancel()
        model.buffer.append(outcome[1])
        answer = model.next_answer()
        if answer != CANCELLED:
            assert same(answer, outcome)
            self.was_taken(model, outcome)
        model.settle()

    @precondition(lambda self: self.owned())
    @rule(data=st.data())
    def set_its_own_event(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(self.owned()))
        model.generator.stop_event.set()
        self.has_stopped(model)

    @rule(number=st.integers(0, 5))
    def set_a_shared_event(self, number: int) -> None:
        if number < len(self.events):  # seldom: after it, the generators that have it are of little interest
            event = self.events[number]
            event.set()
            self.set_events.append(event)
            for model in self.models:
                if model.shared is event:
                    self.has_stopped(model)
            self.events[number] = StopEvent()

    @precondition(lambda self: self.owned())
    @rule(data=st.data(), in_cycle=st.booleans())
    def drop(self, data: st.DataObject, in_cycle: bool) -> None:
        model = data.draw(st.sampled_from(self.owned()))
        if model.waiting or model.closing:
            return
        if in_cycle:
            cycle: list[object] = [model.bg]
            cycle.append(cycle)
            model.bg = None
            del cycle
            gc.collect(0)
            if model.ref() is not None:  # the collector had moved it on in the meantime
                gc.collect()
        model.bg = None
        assert model.ref() is None
        pending = model.close_failure
        self.has_stopped(model)
        if pending:
            self.close_failure_goes_to_the_hook(model)

    # What is then to be expected

    def owned(self) -> list[Model]:
        return [model for model in self.models if model.bg is not None]

    def in_step(self, *, owned: bool = False) -> list[Model]:
        return [model for model in self.models if model.in_step and (model.bg is not None or not owned)]

    def with_tasks(self) -> list[Model]:
        return [model for model in self.models if model.tasks]

    def next_outcome(self, model: Model) -> Outcome | None:
        """Return what the next next() gives, None if it has to wait."""
        if model.buffer:
            return "value", model.buffer[0]
        if model.stopped:
            return END
        if model.ended:
            return model.outcome or END
        return None

    def was_taken(self, model: Model, outcome: Outcome) -> None:
        if outcome[0] == "value":
            model.buffer.popleft()
            model.taken += 1
            model.settle()
        else:
            model.outcome = None
            if not model.stopped:
                assert not model.workers()  # A10: gone when the end is seen

    def give(self, model: Model, item: object) -> None:
        model.in_step = False
        model.tell(lambda: ("value", item))
        if model.stopped:
            self.is_closed(model)
            return
        model.buffer.append(item)
        if model.waiting:
            assert same(model.next_answer(), ("value", item))
            self.was_taken(model, ("value", item))
        model.settle()

    def source_has_ended(self, model: Model, outcome: Outcome) -> None:
        model.in_step, model.ended = False, True
        if not model.stopped:
            model.outcome = outcome
            if model.waiting:  # A8, B2: one gets it, the others end
                threads = any(isinstance(caller, Caller) for caller in model.waiting)
                tasks = bool(model.tasks) and outcome[0] == "end"  # which get no return value
                seen = [model.next_answer() for _ in model.waiting.copy()]
                assert any(same(one, outcome) for one in seen) or tasks
                others = sum(not same(one, END) for one in seen)
                assert others == (not same(outcome, END)) or (tasks and not others)
                assert threads or not tasks or not others
                model.outcome = None
        model.settle()
        self.closers_return(model)

    def has_stopped(self, model: Model) -> None:
        """C1, D2: what is buffered is dropped, every waiting next() ends at once, the source is closed if it can be."""
        if not model.stopped:
            model.stopped = True
            model.buffer.clear()
            model.outcome = None
            while model.waiting:
                assert same(model.next_answer(), END)
            if not model.is_stuck and not model.ended:
                model.in_step = False
                self.is_closed(model)

    def is_closed(self, model: Model) -> None:
        """C1, C3: the source is closed, once, on its worker's thread, which ends."""
        model.ended = True
        model.settle()
        if model.source.way_to_close != "without a close()":
            assert {model.source.closed.get(timeout=LONG)} == model.source.threads
        if model.source.way_to_close in ("failing", "refusing"):
            if model.bg is None:
                self.close_failure_goes_to_the_hook(model)
            else:
                model.close_failure = True
        self.closers_return(model)

    def closers_return(self, model: Model) -> None:
        """C1, C4: all return True, but one raises what the source raised."""
        if not model.ended:
            return
        closers = len(model.closing)
        while model.closing:
            outcome = model.close_answer()
            if outcome != ("value", True):
                assert model.close_failure
                model.close_failure = False
                self.is_close_failure(model, outcome)
        assert not (closers and model.close_failure)

    def is_close_failure(self, model: Model, outcome: Outcome) -> None:
        expected = KeyError if model.source.way_to_close == "failing" else RuntimeError
        assert (outcome[0], type(outcome[1])) == ("failure", expected)

    def close_failure_goes_to_the_hook(self, model: Model) -> None:
        model.close_failure = False
        call = self.hooked.get(timeout=LONG)
        assert call.thread is not None
        assert call.thread.name == f"BackgroundGenerator-{model.number}"
        self.is_close_failure(model, ("failure", call.exc_value))

    # What always holds

    @invariant()
    def the_bound_is_exact_and_the_numbers_are_right(self) -> None:
        """A2, E5: the source is not asked for more than there is room for; the record and the looks agree."""
        for model in self.models:
            assert model.source.asked.empty()
            assert model.source.closed.empty()
            assert len(model.source.threads) <= 1  # A5
            if model.bg is None:
                continue
            if not model.stopped and model.max_prefetch > 0:
                assert model.steps - (model.ended and not model.in_step) - model.taken <= model.max_prefetch
            delivered, buffered, producer_wait, consumer_wait = model.bg.stats
            assert delivered == model.taken
            assert producer_wait >= 0
            assert consumer_wait >= 0
            if model.in_step or model.ended:
                assert buffered == len(model.buffer)
            else:  # the last item may be on its way
                assert len(model.buffer) - 1 <= buffered <= len(model.buffer)
            state = repr(model.bg).split()[2].rstrip(",")
            if model.stopped:
                assert state == "closed"
            else:
                assert state in (("finished", "failed") if model.ended else ("running",))

    @invariant()
    def stopped_are_those_that_were_told(self) -> None:
        """D2: the stop of one sets neither the shared event nor anybody else's."""
        assert not any(event.is_set() for event in self.events)
        for model in self.owned():
            assert model.generator.stop_event.is_set() == model.stopped

    @invariant()
    def nobody_who_waits_has_been_forgotten_or_answered_twice(self) -> None:
        """A8, C1: whoever still waits has a reason to."""
        assert self.hooked.empty()
        for model in self.models:
            assert model.waited.empty()
            assert model.was_closed.empty()
            assert all(caller.is_alive() for caller in model.waiting + model.closing)

    @invariant()
    def there_is_no_thread_too_many(self) -> None:
        """C6, C7: a worker for each source that has not ended, a thread for each call that waits, and nothing else."""
        running = [model for model in self.models if not model.ended]
        calls = [caller for model in self.models for caller in model.waiting + model.closing]
        callers = sum(isinstance(caller, Caller) for caller in calls)
        assert threading.active_count() == self.others + len(running) + callers

    def teardown(self) -> None:
        try:
            for model in self.models:  # whoever is in a step comes out of it, stopped or dropped
                if model.bg is not None:
                    model.generator.stop_event.set()
                    self.has_stopped(model)
                if model.in_step:
                    self.give(model, None)
                if model.close_failure:
                    model.bg = None
                    self.close_failure_goes_to_the_hook(model)
            assert self.hooked.empty()
            self.there_is_no_thread_too_many()
        finally:
            for model in self.models:
                for _ in range(10):  # a failed run must not leave its sources waiting
                    model.tell(lambda: ("end", None))
            threading.excepthook = self.hook
            self.models.clear()


def test_whatever_is_done_in_whatever_order_the_contract_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A1, A2, A5, A7, A8, A10, B1, B2, C1 to C6, D2, E3, E5, G1 to G3, G5, G6, H2: in any sequence of steps."""
    says_when_asleep(monkeypatch)
    for attempt in range(TRIES):
        # What may be done next depends on what the threads have come to. So the same choices may lead to others, which
        # Hypothesis takes for a mistake of the test's. It says nothing about the library, and other choices are made.
        with ExitStack() as loops, suppress(*[FlakyStrategyDefinition] if attempt < TRIES - 1 else []):
            for loop in LOOPS:
                loops.enter_context(loop)
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=40,
                    deadline=None,  # threads make every example slow; the machine is to blame, not the library
                    suppress_health_check=[HealthCheck.too_slow],
                ),
            )
            return
