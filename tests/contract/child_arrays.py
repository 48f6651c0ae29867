"""Sources of arrays for a process of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

BELOW, AT, ABOVE = 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1
MEGABYTE = 1 << 20


def arrays() -> dict[str, Any]:
    """Return arrays of all kinds."""
    large = np.arange(200_000, dtype=np.int32)
    structured = np.zeros(20_000, dtype=[("name", "S4"), ("value", "f8")])
    structured["value"] = np.arange(20_000)
    read_only = large.copy()
    read_only.flags.writeable = False
    return {
        "below": np.arange(BELOW, dtype=np.uint8),
        "at": np.arange(AT, dtype=np.uint8),
        "above": np.arange(ABOVE, dtype=np.uint8),
        "plain": large,
        "read-only": read_only,
        "read-only below": read_only[:3].copy(),
        "two dimensions": large.reshape(400, 500),
        "Fortran": np.asfortranarray(large.reshape(400, 500)),
        "transposed": large.reshape(400, 500).T,
        "every second": large[::2],
        "backwards": large[::-1],
        "broadcast": np.broadcast_to(np.float64(1.5), (300, 400)),
        "empty": np.empty((0, 7)),
        "no dimension": np.array(7.5),
        "structured": structured,
        "objects": np.array([None, "text", [1, 2]] * 10_000, dtype=object),
        "dates": np.arange(20_000).astype("datetime64[s]"),
        "text": np.array(["prefetch", "generator"] * 5_000),
        "big-endian": large.astype(">i4"),
        "booleans": large > 3,
        "complex": large * 1j,
        "half": (large % 9).astype(np.float16),
    }


def all_kinds() -> Iterator[tuple[str, Any]]:
    """Give those arrays, one by one."""
    yield from arrays().items()


def many_in_one(number: int) -> Iterator[Any]:
    """Give items with so many arrays each."""
    for start in range(3):
        yield {"arrays": [np.full(AT + n, (start + n) % 256, dtype=np.uint8) for n in range(number)], "start": start}


def buffers() -> Iterator[Any]:
    """Give what is no array and yet has a buffer."""
    for size in (0, 10, BELOW, AT, MEGABYTE):
        yield bytearray(size), bytes(size), PickledOutOfBand(bytearray(b"x" * size))


class PickledOutOfBand:
    """What speaks protocol 5."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        import pickle  # noqa: PLC0415

        return PickledOutOfBand, (pickle.PickleBuffer(self.data),)


def reusing(count: int, size: int) -> Iterator[Any]:
    """Give the same array again and again, with another content."""
    array = np.empty(size, dtype=np.uint8)
    for number in range(count):
        array[:] = number % 251
        yield array


def growing(sizes: list[int]) -> Iterator[Any]:
    """Give an array of each of these sizes, full of its number."""
    for number, size in enumerate(sizes):
        yield np.full(size, number % 251, dtype=np.uint8)


def endless(size: int) -> Iterator[Any]:
    """Give new arrays, full of their numbers."""
    for number in itertools.count():
        yield np.full(size, number % 251, dtype=np.uint8)


def mapped(tell: Connection, size: int) -> Iterator[Any]:
    """Give arrays, and say how many segments this process has mapped at each."""
    for number in itertools.count():
        tell.send(segments())
        yield np.full(size, number % 251, dtype=np.uint8)


def segments() -> int:
    """Return how many pieces of anonymous shared memory this process has mapped, but for the board."""
    with Path("/proc/self/maps").open(encoding="utf-8") as maps:
        return max(0, sum("memfd:prefetch_generator" in line for line in maps) - 1)


def tensors() -> Iterator[tuple[str, Any]]:
    """Give PyTorch's tensors of all kinds."""
    import torch  # noqa: PLC0415

    large = torch.arange(100_000)
    for name in (
        "uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128 bool".split()  # noqa: SIM905
    ):
        yield name, large.to(getattr(torch, name))
    yield "no dimension", torch.tensor(7.5)
    yield "small", torch.arange(3)
    yield "empty", torch.empty(0, 4)
    yield "transposed", large.reshape(100, 1000).T
    yield "every second", large[::2]
    yield "expanded", torch.tensor([1.0]).expand(100_000)
    yield "conjugate", (large.to(torch.complex64) * 1j).conj()
    yield "requires grad", torch.ones(100_000, requires_grad=True)
    yield "small, requires grad", torch.ones(3, requires_grad=True)
    yield "parameter", torch.nn.Parameter(torch.ones(100_000))
    yield "sparse", torch.eye(300).to_sparse()
    yield "in a dict", {"x": [large, (large.float(), "y")]}
