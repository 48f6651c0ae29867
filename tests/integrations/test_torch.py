"""Contract C7 and J2: PyTorch's DataLoader, around the package and inside it. `examples/dataloader.py` has the rest."""

from __future__ import annotations

import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers import python

# Not `importorskip`: torch warns as soon as it is imported where NumPy is missing, and takes seconds.
pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")


def run(tmp_path: Path, script: str) -> str:
    """Run the script from a file, which the loader's processes may import; return what it printed."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script), encoding="utf-8")
    out, _ = python("-W", "ignore", str(path))  # what others warn of is not the subject
    return out


def test_persistent_workers_start_each_epoch_at_its_first_batch(tmp_path: Path) -> None:
    """J2: with persistent_workers=True the loader hands out the same iterator again, which a left epoch is still in."""
    script = """
        import time
        from torch.utils.data import DataLoader, Dataset
        from prefetch_generator import BackgroundIterable

        class Numbers(Dataset):
            def __len__(self):
                return 24

            def __getitem__(self, number):
                time.sleep(0.01)  # so that a loop that is left leaves the worker inside the iterator
                return number

        if __name__ == "__main__":
            for _ in range(3):
                loader = DataLoader(Numbers(), batch_size=2, num_workers=2, persistent_workers=True)
                batches = BackgroundIterable(loader)
                for _ in range(4):
                    taken = []
                    for batch in batches:
                        taken.append(batch.tolist())
                        if len(taken) == 3:
                            break
                    print(taken)
                print(sum(batch.tolist() == [2 * n, 2 * n + 1] for n, batch in enumerate(batches)), len(batches))
    """
    assert run(tmp_path, script) == ("[[0, 1], [2, 3], [4, 5]]\n" * 4 + "12 12\n") * 3


def test_a_generator_in_each_of_the_loaders_processes_closes_its_source(tmp_path: Path) -> None:
    """C7: an IterableDataset that works ahead in the loader's processes gives all, and closes its sources there."""
    script = """
        import multiprocessing, os, pathlib, sys, time
        from torch.utils.data import DataLoader, IterableDataset, get_worker_info
        from prefetch_generator import background

        folder = pathlib.Path(sys.argv[0]).with_name("locks")

        class Shards(IterableDataset):
            @background(max_prefetch=3)
            def __iter__(self):
                worker = get_worker_info()
                lock = folder / f"{os.getpid()} {time.monotonic_ns()}"
                lock.touch()
                try:
                    yield from range(worker.id, 40, worker.num_workers)
                finally:
                    time.sleep(0.1)
                    lock.unlink()

        def left():
            for process in multiprocessing.active_children():
                process.join()
            return [*folder.iterdir()]

        if __name__ == "__main__":
            folder.mkdir()
            loader = DataLoader(Shards(), batch_size=4, num_workers=2)
            for _ in range(2):
                print(sorted(number for batch in loader for number in batch.tolist()) == [*range(40)], left())
            for _ in range(2):
                for batch in loader:
                    break
                print(len(batch), left())
    """
    assert run(tmp_path, script) == "True []\n" * 2 + "4 []\n" * 2
