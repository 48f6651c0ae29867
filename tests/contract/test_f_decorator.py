"""Contract, section F: `@background`."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pytest

from prefetch_generator import (
    BackgroundGenerator,
    background,
)


def read(path: str, /, size: int = 4, *more: str, upper: bool = False, **options: object) -> Iterator[str]:
    """Read a file."""
    for part in (path[:size], *more):
        yield part.upper() if upper else part


FORMS = {
    "@background": background,
    "@background()": background(),
    "@background(max_prefetch=3)": background(max_prefetch=3),
}


every_form = pytest.mark.parametrize("decorate", FORMS.values(), ids=FORMS)


Decorator = Callable[[Callable[..., Iterator[str]]], Callable[..., BackgroundGenerator[str]]]


def look_ahead(bg: BackgroundGenerator[object]) -> str:
    """Return the part of `repr` that says how many items are made ahead."""
    return repr(bg).rpartition("/")[2]


class Library:
    """Has every kind of method in the background."""

    suffix = "!"

    def __init__(self, text: str) -> None:
        self.text = text

    @background
    def letters(self, count: int = 9) -> Iterator[str]:
        yield from self.text[:count] + self.suffix

    @background(max_prefetch=1)
    def again(self) -> Iterator[str]:
        yield from self.text * 2

    @classmethod
    @background
    def of(cls, text: str) -> Iterator[str]:
        yield from text + cls.suffix

    @staticmethod
    @background()
    def static(text: str) -> Iterator[str]:
        yield from text


class LoudReader(Library):
    suffix = "!!"


def never_called() -> Iterable[int]:
    pytest.fail("called at decoration")


async def coroutine() -> list[int]:
    return []


# F1


@every_form
def test_keeps_signature_name_and_docstring(decorate: Decorator) -> None:
    """F1: The decorator, in each form, keeps the signature, name, docstring and `__wrapped__` (the function itself)."""
    function = decorate(read)
    assert inspect.signature(function) == inspect.signature(read)
    assert (function.__name__, function.__qualname__, function.__module__) == ("read", "read", __name__)
    assert function.__doc__ == "Read a file."
    assert inspect.unwrap(function) is read


@every_form
def test_passes_all_kinds_of_arguments(decorate: Decorator) -> None:
    """F1: The signature is kept in deed, too: every kind of argument arrives."""
    function = decorate(read)
    assert list(function("abcdef")) == ["abcd"]
    assert list(function("abcdef", 2, "more", upper=True, path="of its own")) == ["AB", "MORE"]


def test_wrapped_is_for_a_plain_synchronous_call() -> None:
    """F1: `__wrapped__` (the function itself, for a plain synchronous call)."""

    @background
    def who() -> Iterator[int]:
        yield threading.get_ident()

    plain = inspect.unwrap(who)()
    assert not isinstance(plain, BackgroundGenerator)
    assert next(iter(plain)) == threading.get_ident() != next(who())


def test_max_prefetch_is_handed_on() -> None:
    """F1: `@background(max_prefetch=N)` looks N items ahead, the others two."""
    for decorate, depth in [(background, 2), (background(), 2), (background(max_prefetch=3), 3)]:
        with decorate(read)("abcdef") as bg:
            assert look_ahead(bg) == f"{depth} buffered>"
    with background(max_prefetch=0)(read)("abcdef") as bg:
        assert "/" not in repr(bg)


# F2


def test_plain_functions_methods_class_and_static_methods() -> None:
    """F2: Plain functions, methods, class and static methods."""
    reader = LoudReader("ab")
    assert list(background(read)("ab")) == ["ab"]
    assert list(reader.letters(1)) == list("a!!")
    assert list(reader.again()) == list("abab")
    assert list(Library.letters(reader, count=2)) == list("ab!!")
    assert list(LoudReader.of("c")) == list(reader.of("c")) == list("c!!")
    assert list(Library.static("d")) == list(reader.static(text="d")) == ["d"]
    assert inspect.signature(reader.letters).parameters.keys() == {"count"}


def test_other_callables() -> None:
    """F2: Whatever is called and returns an iterable will do: a lambda, a partial, an object, a class."""

    class Callable_:  # noqa: N801
        def __call__(self, count: int) -> Iterable[int]:
            return range(count)

    assert list(background(lambda: [1, 2])()) == [1, 2]
    assert list(background(partial(read, "abc"))(size=1)) == ["a"]
    assert list(background(Callable_())(2)) == [0, 1]
    assert list(background(range)(2)) == [0, 1]


def test_each_call_makes_a_new_generator() -> None:
    """F2: each call makes a new generator."""
    function = background(read)
    with function("abc") as first, function("abc") as second:
        assert first is not second
        assert isinstance(first, BackgroundGenerator)
        assert next(first) == next(second) == "abc"
        assert first.close()
        assert not second.stop_event.is_set()


# F3


def test_a_wrong_argument_of_the_decorator_is_an_error_at_decoration() -> None:
    """F3: A wrong argument of the decorator is an error at decoration."""
    wrong: list[object] = ["8", 1.5, True, None]
    for max_prefetch in wrong:
        with pytest.raises(TypeError, match="max_prefetch must be an integer"):
            background(max_prefetch=max_prefetch)  # type: ignore[call-overload]
    not_callable: list[object] = [8, "read", [], None]
    for function in not_callable:
        with pytest.raises(TypeError, match="function must be callable"):
            background(function)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="function must be callable"):
            background()(function)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="function must return an iterable, and must `yield` if it is `async def`, got"):
        background(coroutine)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="function must return an iterable, and must `yield` if it is `async def`, got"):
        background()(coroutine)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"takes one function, got .*did you mean"):
        background(never_called, 8)  # type: ignore[call-overload]
    assert callable(background(never_called))


def test_version_1_called_with_a_positional_depth_is_told_the_new_way() -> None:
    """F3: `@background(8)`, as version 1 had it, is an error at decoration that says what to write."""
    with pytest.raises(TypeError, match=r"did you mean @background\(max_prefetch=\.\.\.\)"):
        background(8)  # type: ignore[call-overload]


@pytest.mark.parametrize("outer", [staticmethod, classmethod])
def test_the_wrong_order_of_decorators_is_an_error_at_decoration(outer: Callable[..., object]) -> None:
    """F3: `@background` above `@staticmethod` or `@classmethod` is an error at decoration that says how to put it."""
    with pytest.raises(TypeError, match=f"put @background below @{outer.__name__}"):
        background(outer(never_called))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=f"put @background below @{outer.__name__}"):
        background(max_prefetch=3)(outer(never_called))  # type: ignore[arg-type]


def test_a_wrong_argument_of_the_function_is_an_error_at_the_call() -> None:
    """F3: a wrong argument of the function at the call."""
    threads = threading.active_count()
    for function in (background(read), background()(read)):
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'path'"):
            function()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="takes 0 positional arguments"):
        background(never_called)(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="iterable must be an iterable, or an asynchronous one, got 5"):
        background(lambda: 5)()  # type: ignore[arg-type, return-value]
    assert threading.active_count() == threads
