"""A call that is made in another process: how the function and its arguments get there.

The function goes by its module and name, for a process that imports the module finds it there. What that name leads to
is usually the decorated function, and the function itself is its `__wrapped__`.
"""

from __future__ import annotations

import importlib
import io
import pickle
import sys
from multiprocessing.reduction import ForkingPickler
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

PROTOCOL = 5


class Call:
    """A function and its arguments. What has been pickled is opened by `make`, so what fails there fails the source."""

    def __init__(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._name = name

    def make(self) -> Any:
        """Make the call."""
        return self._function(*self._args, **self._kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        function = self._pickled("function", _by_name(self._function) or self._function)
        args = [self._pickled(f"argument {place}", it) for place, it in enumerate(self._args, start=1)]
        kwargs = {key: self._pickled(f"argument {key}", it) for key, it in self._kwargs.items()}
        return Packed, (function, args, kwargs)

    def _pickled(self, what: str, it: Any) -> bytes:
        # Not by the plain pickler: of a connection, it would send a number that means another file there.
        failure: Exception | None = None
        for dumps in (_by_name_or_parts, _by_value):
            try:
                return dumps(it)
            except Exception as error:
                failure = failure or error
        advice = (
            "define it at the top level of a module, where a new process can import it, or install cloudpickle "
            "(prefetch-generator[process])"
            if what == "function"
            else "pass something that can be pickled, and open it in the function"
        )
        raise TypeError(
            f"{what} of {self._name}() cannot be sent to another process, got {it!r}: {advice}"
        ) from failure


class Packed:
    """A call that has been sent."""

    def __init__(self, function: bytes, args: list[bytes], kwargs: dict[str, bytes]) -> None:
        self._pickles = function, args, kwargs

    def make(self) -> Any:
        """Make the call."""
        function, args, kwargs = self._pickles
        loads = pickle.loads  # our own parent's
        loaded = loads(function)
        call = loaded.find() if isinstance(loaded, _Name) else loaded
        # Not `map`: a StopIteration would end that, and the call be made with the arguments before it.
        return call(*[loads(it) for it in args], **{key: loads(it) for key, it in kwargs.items()})


class _Name(NamedTuple):
    """Where a function is found."""

    module: str
    path: str
    depth: int  # how many times to follow `__wrapped__`

    def find(self) -> Any:
        found: Any = importlib.import_module(self.module)
        try:
            for part in self.path.split("."):
                found = getattr(found, part)
        except AttributeError as error:
            advice = "define it at the top level of the module, outside of `if __name__ == '__main__':`"
            raise AttributeError(f"a new process finds no {self.path} in {self.module}: {advice}") from error
        for _ in range(self.depth):
            found = found.__wrapped__
        return found


def _by_name(function: Any) -> _Name | None:
    """Return where a new process finds this very function; None if it cannot."""
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str) or not _can_be_imported(sys.modules.get(module)):
        return None
    for depth in range(100):
        name = _Name(module, path, depth)
        try:
            if name.find() is function:
                return name
        except Exception:  # of a module's own `__getattr__`, say
            break
    return None


def _can_be_imported(module: ModuleType | None) -> bool:
    """Return whether a new process has this module too."""
    if module is None or module.__name__ != "__main__":
        return module is not None
    # That of a notebook, of `python -c` and of standard input has neither: see `multiprocessing.spawn`.
    return getattr(module, "__spec__", None) is not None or getattr(module, "__file__", None) is not None


class _Pickler(ForkingPickler):
    """Sends what belongs to `multiprocessing` (a lock, a connection), which can be done only while a process starts."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, PROTOCOL)
        # PyTorch has its tensors shared, by descriptors or names. They are copied, like everything else.
        table: Any = self.dispatch_table
        self.dispatch_table = {kind: table[kind] for kind in table if not kind.__module__.startswith("torch")}

    def reducer_override(self, it: Any) -> Any:
        # By its name, which says nothing to a process that does not have this `__main__`.
        if (
            isinstance(it, (type, FunctionType))
            and it.__module__ == "__main__"
            and not _can_be_imported(sys.modules.get("__main__"))
        ):
            raise pickle.PicklingError(f"a new process cannot import {it!r}")
        return NotImplemented


def _by_name_or_parts(it: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file).dump(it)
    return file.getvalue()


def _by_value(it: Any) -> bytes:
    cloudpickle = importlib.import_module("cloudpickle")
    pickled: bytes = cloudpickle.dumps(it, protocol=PROTOCOL)
    return pickled
