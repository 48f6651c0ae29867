"""Contract, section I, sentence 7: which segment of shared memory a buffer is put into; both ends in one process."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from prefetch_generator._process_wire import (
    _HAS_MEMORY,
    DROPPED,
    FREE,
    ITEM,
    LARGE,
    LENT,
    SPENT,
    Receiver,
    Sender,
    _most_segments,
    dumps,
    make_pair,
)

pytestmark = pytest.mark.skipif(not _HAS_MEMORY, reason="only Linux has memory without a name")


class Wire:
    """A sender and a receiver, and what crosses between them."""

    def __init__(self) -> None:
        here, there = make_pair()
        here.setblocking(False)
        self.ends = here, there
        self.sender, self.receiver = Sender(there), Receiver(here, lambda: False)
        self.sender.spare = 9

    def cross(self, *contents: bytes) -> Any:
        """Send these, as one item; return what arrives."""
        buffers: list[memoryview] = []
        self.sender.send(ITEM, dumps([pickle.PickleBuffer(bytearray(it)) for it in contents], buffers), buffers)
        assert len(buffers) == len(contents)
        assert self.receiver.receive() == ITEM
        return self.receiver.load()

    def states(self) -> list[int]:
        """Return in which state each segment is that there is."""
        assert self.sender._board is not None
        return [self.sender._board[number] for number in sorted(self.sender._segments)]


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Give two ends, with room for nine unused segments."""
    wire = Wire()
    yield wire
    for end in wire.ends:
        end.close()


A, B, C = (bytes([it]) * LARGE for it in (1, 2, 3))


def test_a_segment_is_used_again_once_its_item_is_gone(wire: Wire) -> None:
    """I7: and another one as long as it is not."""
    first = wire.cross(A)
    assert wire.states() == [LENT]
    del first
    assert wire.states() == [FREE]
    first = wire.cross(B)
    assert wire.states() == [LENT]
    second = wire.cross(C)
    assert wire.states() == [LENT, LENT]
    assert [bytes(it[0]) for it in (first, second)] == [B, C]


def test_the_buffers_of_one_item_begin_at_multiples_of_64(wire: Wire) -> None:
    """I7: as NumPy has it, and the instructions that work on many numbers at once."""
    numpy = pytest.importorskip("numpy")
    addresses = [numpy.frombuffer(it, numpy.uint8).ctypes.data for it in wire.cross(A + b"a", B + b"b", C)]
    assert [address % 64 for address in addresses] == [0, 0, 0]


def test_what_is_lent_at_a_fork_is_never_filled_again(wire: Wire) -> None:
    """I7, E1: the other process has it too; the number is given to a new one, of which the old item knows nothing."""
    kept = wire.cross(A)
    wire.receiver.part()
    assert wire.states() == [SPENT]
    first = wire.cross(B)
    assert wire.states() == [LENT]
    assert bytes(kept[0]) == A
    del kept
    assert wire.states() == [LENT]
    second = wire.cross(C)
    assert [bytes(it[0]) for it in (first, second)] == [B, C]


def test_what_is_free_at_a_fork_is_used_again(wire: Wire) -> None:
    """I7, E1: what nobody holds, nobody holds in the other process either."""
    wire.cross(A)
    segment = wire.sender._segments[0]
    wire.receiver.part()
    assert wire.states() == [FREE]
    wire.cross(B)
    assert wire.sender._segments[0] is segment


def test_what_lies_unused_is_given_back_and_its_number_used_again(wire: Wire) -> None:
    """I7: no more segments lie unused than there are items ahead."""
    wire.sender.spare = 1
    held = [wire.cross(A) for _ in range(3)]
    held.clear()
    held.append(wire.cross(B))
    assert wire.states() == [LENT, FREE]
    assert wire.sender._board is not None
    assert wire.sender._board[2] == DROPPED
    held += [wire.cross(C), wire.cross(A)]
    assert wire.states() == [LENT] * 3
    assert sorted(wire.receiver._segments) == [0, 1, 2]
    assert [bytes(it[0]) for it in held] == [B, C, A]


def test_there_are_no_more_segments_than_a_sixteenth_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """I7: of those that this process may have, which may be fewer than it could ask for."""
    resource = pytest.importorskip("resource")
    for allowed, most in (((160, 1_000_000), 10), ((resource.RLIM_INFINITY,) * 2, 256), ((1_000_000,) * 2, 256)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, allowed=allowed: allowed)
        assert _most_segments() == most


def test_a_segment_takes_one_descriptor_at_each_end(wire: Wire) -> None:
    """I7, I8: the board too; what it came by is closed."""

    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - it is no file that is wanted

    before = count()
    held = [wire.cross(A), wire.cross(B)]
    assert count() == before + 2 * 3
    del held
