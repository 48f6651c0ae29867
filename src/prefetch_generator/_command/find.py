"""Find what is to be measured: a folder, a function of the user's, or the standard library."""

from __future__ import annotations

import functools
import importlib
import operator
import os
import platform
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from prefetch_generator import BackgroundGenerator

FILE_SIZE = 1 << 20  # bytes read of a file; the rest of a huge one would be one endless item

# Where a traceback is not yet in the user's code.
_OURS = (str(Path(__file__).parents[1]) + os.sep, str(Path(importlib.__file__).parent) + os.sep, "<frozen importlib")


class SourceError(Exception):
    """SOURCE cannot be measured; the message says what is allowed and what was given."""


class Source(NamedTuple):
    """What is measured: a title for the report, and how it is started."""

    title: str
    begin: Callable[[], Iterator[object]]  # starts it anew, here or in a process that this has been sent to
    function: Callable[[], Iterable[object]]  # what the user would decorate


def find_source(text: str | None) -> Source:
    """Return what *text* names, or raise `SourceError` if there is no such thing."""
    if text is None:
        begin = functools.partial(files, sysconfig.get_path("stdlib"))
        return Source(f"the standard library of Python {platform.python_version()}", begin, begin)
    if text and Path(text).is_dir():  # Path("") is the current folder
        begin = functools.partial(files, text)
        return Source(f"the files of {text!r}", begin, begin)
    return Source(repr(text), functools.partial(call, text), find_function(text))


def files(folder: str) -> Iterator[bytes]:
    """Read and compress the files of *folder* and of the folders in it, always in the same order.

    Files that cannot be read are left out, and so is what is not a file, such as a pipe, which would block.
    """
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for path in [Path(parent, name) for name in sorted(names)]:
            try:
                if not path.is_file():
                    continue
                with path.open("rb", buffering=0) as file:
                    data = file.read(FILE_SIZE)
            except OSError:
                continue
            yield zlib.compress(data, 9)


def find_function(text: str) -> Callable[[], Iterable[object]]:
    """Import what *text* names, "package.module:callable"."""
    module_name, _, path = text.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")]):
        raise SourceError(f"SOURCE must be package.module:callable or a folder, got {text!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the user's module was found, and one that it imports was not
        raise SourceError(f"SOURCE must name a module that can be found, got {text!r}: {error}") from None
    try:
        found = operator.attrgetter(path)(module)
    except AttributeError as error:
        raise SourceError(f"SOURCE must name something in its module, got {text!r}: {error}") from None
    function: Callable[[], Iterable[object]] = found  # trusted until it is called
    if callable(found):
        return function
    raise SourceError(f"SOURCE must name something callable, got {text!r}: {type(found).__name__!r} object")


def call(text: str) -> Iterator[object]:
    """Return a fresh iterator from the user's function, which any process finds by its name."""
    function = find_function(text)
    try:
        result = function()
    except TypeError as error:
        if users_part(error):
            raise
        raise SourceError(f"SOURCE must be callable without arguments, got {text!r}: {error}") from None
    if isinstance(result, BackgroundGenerator):
        raise SourceError(
            f"SOURCE must not run in the background already, got {text!r}: if it is decorated with @background, "
            f"its plain function is {text + '.__wrapped__'!r}"
        )
    try:
        return iter(result)
    except TypeError as error:
        if users_part(error):
            raise
        raise SourceError(f"SOURCE must return an iterable, got {text!r}: {error}") from None


def users_part(error: BaseException) -> TracebackType | None:
    """Return where the traceback enters the user's code, or None if it never does."""
    part = error.__traceback__
    while part and part.tb_frame.f_code.co_filename.startswith(_OURS):
        part = part.tb_next
    return part
