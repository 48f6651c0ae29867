"""What a signal must not split: something that can be had only once, and is not lost where Ctrl-C strikes.

CPython runs signal handlers when a call returns, on a backward jump and on function entry, nowhere else. `x = take()`
can thus lose `x` between the call and the store. But `for x in it:` over an iterator written in C stores what it got
with no such point in between. So whatever must not be lost is taken through a `map` object that was made beforehand,
and `for _ in it: break` is a call without a window. Such an iterator has the name of its call: `take`, `begin`. (3.10
also has such a point where a condition is false; the lines that rest on this are written so that none is.)
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice, repeat
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Not as an attribute: a class of exceptions may have one of that name that raises.
_context: Any = vars(BaseException)["__context__"]


class Once(Generic[T]):
    """Something that is taken at most once, by whoever asks first, and is not kept after that."""

    __slots__ = ("_held", "take")

    def __init__(self) -> None:
        self._held: dict[str, T] = {}
        # `dict.pop` with a default never raises, so an exception that is held is never mistaken for its absence.
        self.take: Iterator[T | None] = map(self._held.pop, repeat("it"), repeat(None))

    def __bool__(self) -> bool:
        return bool(self._held)

    def hold(self, it: T) -> None:
        """Hold `it`, in place of what was held before; that takes no memory if something was."""
        self._held["it"] = it

    def look(self) -> T | None:
        """Return what is held, and go on holding it."""
        return self._held.get("it")


def given_once(value: T) -> Iterator[T]:
    """Return an iterator that gives `value`, which is true, once, however many threads ask for it at the same time.

    Without the GIL, `repeat(value, 1)` may give it twice.
    """
    once = Once[T]()
    once.hold(value)
    return filter(None, islice(once.take, 1))


def raise_held(held: Once[BaseException]) -> None:
    """Raise the exception that is held, if there still is one, with the `__context__` that it has.

    What the caller is handling comes at the end of that chain. A plain `raise` would put it at the beginning, in the
    place of the first cause of the failure.
    """
    mend = _mend_context(held.look())
    for exception in held.take:
        if exception is not None:
            try:
                raise exception
            finally:
                _ = [*mend]  # what `raise` did to it, in C: a call would have a window
                del exception, mend  # else this frame, in the traceback, would keep it: a cycle
        break


def _mend_context(exception: BaseException | None) -> Iterator[None]:
    """Return an iterator that does so, once the exception has been raised here."""
    handled = sys.exc_info()[1]
    if exception is None or handled is None:
        return iter(())
    ours = _chain(exception)
    if len(ours) == 1:
        return iter(())  # `raise` does it
    if {id(one) for one in ours[1:]} & {id(one) for one in _chain(handled)}:
        return map(_context.__set__, [exception], [ours[1]])  # what they share comes first: no circle
    return map(_context.__set__, [exception, ours[-1]], [ours[1], handled])


def _chain(exception: BaseException) -> list[BaseException]:
    """Return the exception, its context, the context of that, and so on."""
    found, passed = [exception], {id(exception)}
    while (context := _context.__get__(found[-1])) is not None and id(context) not in passed:
        found.append(context)
        passed.add(id(context))
    return found


_IS_ONE = partial(operator.is_not, None)
_CALL = operator.methodcaller("__call__")


def call_held(held: Once[partial[object]], report: Callable[[BaseException], object]) -> None:
    """Call what is held, if it still is; report what it raises, and raise what strikes before or after it.

    It is taken and called in one step of C: between two steps of Python, another thread may take it back.
    """
    marks: list[str] = []
    steps = chain(map(marks.append, ["begun"]), islice(held.take, 1), map(marks.append, ["over"]))
    try:
        # A loop in C over what is held, if it still is; the marks around it give None, which `filter` leaves out.
        max(filter(_IS_ONE, steps), key=_CALL, default=None)
    except BaseException as error:
        if len(marks) != 1:
            raise
        report(error)
