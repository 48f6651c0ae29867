"""Sources that wait for a word, and that count what is done to them."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import SimpleQueue

import pytest

from tests.helpers import LONG

either_way = pytest.mark.parametrize("paced", [False, True], ids=["items ready", "items awaited"])


class Paced:
    """A source of range(n), each item not before the consumer goes to sleep, until `run_free` is called."""

    def __init__(self, n: int, *, paced: bool) -> None:
        self.n = n
        self.gate: SimpleQueue[None] = SimpleQueue()
        self.given = threading.Event()
        self.closed: list[threading.Thread] = []
        if not paced:
            self.run_free()

    def run_free(self) -> None:
        for _ in range(self.n + 1):
            self.gate.put(None)

    def one_more(self) -> None:
        self.gate.put(None)

    def items(self) -> Generator[int, None, str]:
        try:
            for number in range(self.n):
                self.gate.get(timeout=LONG)
                yield number
            self.gate.get(timeout=LONG)
            return "value"
        except GeneratorExit:
            self.closed.append(threading.current_thread())
            raise


class Untouched:
    """An iterator that counts what is done to it, and has a close()."""

    def __init__(self) -> None:
        self.steps = 0
        self.begun = threading.Event()
        self.closed = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.steps += 1
        self.begun.set()
        return self.steps

    def close(self) -> None:
        self.closed += 1
