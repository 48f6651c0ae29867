"""Hash the files of the standard library: read in the background, hash in the foreground.

Reading waits for the disk and hashing computes in C, so each lets go of the interpreter lock
while the other works.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from prefetch_generator import background

FOLDER = Path(sysconfig.get_path("stdlib"))


@background(max_prefetch=16)
def read(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield each Python file of the folder with its content."""
    for path in sorted(folder.glob("*.py")):
        yield path, path.read_bytes()


def main() -> None:
    """Hash every file and check the digests against a plain loop."""
    digests: dict[Path, str] = {}
    size = 0
    with read(FOLDER) as files:
        for path, content in files:
            digests[path] = hashlib.sha256(content).hexdigest()
            size += len(content)
    stats = files.stats

    plain = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.glob("*.py")}
    if not digests or digests != plain:
        raise RuntimeError("the digests differ from a plain loop's")
    print(f"hashed {stats.delivered} files, {size / 1e6:.1f} MB")
    print(f"reading waited {stats.producer_wait:.3f} s, hashing {stats.consumer_wait:.3f} s")


if __name__ == "__main__":
    main()
