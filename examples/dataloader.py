"""Prepare PyTorch batches ahead of the training step: one line on top of `DataLoader`.

The batches are the loader's own, in its order. Leaving an epoch early stops the background thread
and lets go of the loader's iterator, and with it of its worker processes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

from prefetch_generator import BackgroundGenerator

try:
    import torch
    from torch.utils.data import DataLoader, TensorDataset
except ImportError:
    print("skipped: PyTorch is not installed")
    sys.exit(0)

EPOCHS = 3
BATCHES = 20
BATCH_SIZE = 8


class DataLoaderX(DataLoader):
    """A DataLoader that works ahead."""

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        """Start an epoch."""
        return BackgroundGenerator(super().__iter__(), max_prefetch=10)


def check(batch: list[torch.Tensor], number: int) -> None:
    """Raise unless this is the batch with that number."""
    (values,) = batch
    start = number * BATCH_SIZE
    if values.tolist() != list(range(start, start + BATCH_SIZE)):
        raise RuntimeError(f"batch {number} is wrong: {values.tolist()}")


def main() -> None:
    """Train three epochs and the beginning of a fourth, with and without worker processes."""
    dataset = TensorDataset(torch.arange(BATCHES * BATCH_SIZE))
    for num_workers in 0, 2:
        loader = DataLoaderX(dataset, batch_size=BATCH_SIZE, num_workers=num_workers)
        before = set(threading.enumerate())

        for _ in range(EPOCHS):
            numbers = 0
            for number, batch in enumerate(loader):
                check(batch, number)
                numbers += 1
            if numbers != BATCHES:
                raise RuntimeError(f"{numbers} batches instead of {BATCHES}")
        for number, batch in enumerate(loader):
            check(batch, number)
            if number == 2:
                break

        # An epoch that is left early never waits: the thread ends by itself, a moment later.
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
            if thread.is_alive():
                raise RuntimeError(f"{thread.name} was left behind")
        print(f"num_workers={num_workers}: {EPOCHS} epochs of {BATCHES} batches, one break")


if __name__ == "__main__":
    main()
