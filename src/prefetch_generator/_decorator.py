"""The `@background` decorator."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable, Iterable
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar, overload

from prefetch_generator._generator import BackgroundGenerator, checked_max_prefetch

P = ParamSpec("P")
T = TypeVar("T")
Method = Literal["spawn", "forkserver", "fork"]


@overload
def background(function: Callable[P, Iterable[T] | AsyncIterable[T]], /) -> Callable[P, BackgroundGenerator[T]]: ...
@overload
def background(
    *, max_prefetch: int = 2, process: bool | Method = False
) -> Callable[[Callable[P, Iterable[T] | AsyncIterable[T]]], Callable[P, BackgroundGenerator[T]]]: ...
def background(
    *function: Callable[P, Iterable[T] | AsyncIterable[T]], max_prefetch: int = 2, process: bool | Method = False
) -> (
    Callable[P, BackgroundGenerator[T]]
    | Callable[[Callable[P, Iterable[T] | AsyncIterable[T]]], Callable[P, BackgroundGenerator[T]]]
):
    """Make a function that returns an iterable, or an asynchronous one, return a `BackgroundGenerator` over it.

    Use it with or without arguments, on functions and methods. Signature, name and docstring stay; `__wrapped__` is the
    function itself. A generator function, `def` or `async def`, runs in the background from its first line; any other
    one runs here (or in the process), and what it returns is iterated there.

    Args:
        function: The function; each call of it makes a new generator.
        max_prefetch: Items to be ahead, as for `BackgroundGenerator`.
        process: Run the function in a process of its own, for sources that compute in Python. What is sent there and
            back is pickled. A name is a start method of `multiprocessing`; True takes its default one (forkserver where
            that is fork). Each call starts a new process, which imports the function's module.

    Raises:
        TypeError: An argument is of the wrong type; or, at the call, the function or an argument of it cannot be sent.
        ValueError: `process` is a start method that this platform does not have.

    >>> @background(max_prefetch=4)
    ... def squares(n):
    ...     for i in range(n):
    ...         yield i * i
    >>> list(squares(4)), list(squares.__wrapped__(4))
    ([0, 1, 4, 9], [0, 1, 4, 9])
    """
    bound = checked_max_prefetch(max_prefetch)
    method = _checked_process(process)

    def decorate(function: Callable[P, Iterable[T] | AsyncIterable[T]]) -> Callable[P, BackgroundGenerator[T]]:
        return _decorated(function, bound, method)

    if len(function) > 1:
        raise TypeError(f"background takes one function, got {function!r}: did you mean @background(max_prefetch=...)?")
    return decorate(*function) if function else decorate


def _decorated(
    function: Callable[P, Iterable[T] | AsyncIterable[T]], max_prefetch: int, process: bool | Method
) -> Callable[P, BackgroundGenerator[T]]:
    _check_function(function)
    name = getattr(function, "__name__", None)
    shown = name or type(function).__name__
    if process is not False and inspect.isasyncgenfunction(function):
        raise TypeError(f"function must not be `async def` with process={process!r}, got {function!r}")

    @wraps(function)
    def start(*args: P.args, **kwargs: P.kwargs) -> BackgroundGenerator[T]:
        return BackgroundGenerator(function(*args, **kwargs), max_prefetch, name=name)

    @wraps(function)
    def start_process(*args: P.args, **kwargs: P.kwargs) -> BackgroundGenerator[T]:
        from prefetch_generator._process_source import ProcessCall  # noqa: PLC0415 - which few need

        if inspect.isfunction(function):  # of another callable, nobody can tell for certain what it takes
            inspect.signature(function, follow_wrapped=False).bind(*args, **kwargs)
        method = process if isinstance(process, str) else None
        call: Any = ProcessCall(function, args, kwargs, shown, method)
        return BackgroundGenerator(call, max_prefetch, name=shown)

    return start if process is False else start_process


def _checked_process(process: Any) -> bool | Method:
    if process is True or process is False:
        return process
    import multiprocessing  # noqa: PLC0415 - `import prefetch_generator` does without it

    methods = multiprocessing.get_all_start_methods()
    if process in methods:
        return process  # type: ignore[no-any-return]  # one of the names
    error = ValueError if isinstance(process, str) else TypeError
    raise error(f"process must be True, False or one of {', '.join(map(repr, methods))}, got {process!r}")


def _check_function(function: object) -> None:
    if isinstance(function, (classmethod, staticmethod)):
        raise TypeError(
            f"function must be a plain function, got {function!r}: put @background below @{type(function).__name__}"
        )
    if not callable(function):
        raise TypeError(f"function must be callable, got {function!r}: did you mean @background(max_prefetch=...)?")
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"function must return an iterable, and must `yield` if it is `async def`, got {function!r}")
