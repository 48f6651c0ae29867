"""Use the library in every way at once, at random, for a while, and check everything that can be checked.

`python -m verification.soak --minutes 2` runs rounds until the time is up. Each round is a handful of episodes side by
side, under a switch interval between 1 µs and 5 ms. Consumers, be they threads or tasks of asyncio or trio, take all,
break, close, stop, time out, are cancelled or interrupted, or lose their event loop; sources, asynchronous ones among
them, end, fail, stop, wait or come in chains. After each round no thread may be left, and now and then no file
descriptor and no memory either. A hang is a violation too: it prints the stacks of all threads.

`--seed` repeats the same episodes; threads will still meet in other ways. The exit status is 0 if all went well.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import math
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from verification.soak_episodes import HANG, Counters, Strike
from verification.soak_tasks import TASK_KINDS, TaskEpisode

PROGRESS = 10.0  # seconds between two lines
WORKERS = "BackgroundGenerator-soak"
FILES = Path("/proc/self/fd")
BLOCKS_ALLOWED = 3000  # of memory, more than after the warm-up: caches still fill

KINDS = [
    "all_of_it",
    "failure",
    "result",
    "leave",
    "close",
    "close_inside",
    "failing_close",
    "stop",
    "timeouts",
    "chain",
    *TASK_KINDS,
    *(["in_process"] if hasattr(os, "fork") else []),
]
ON_MAIN = ["all_of_it", "leave", "chain", *(["storm", "task_storm"] if hasattr(signal, "setitimer") else [])]


class Soak:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.counters = Counters()
        self.rounds = 0
        self.blocks = math.inf
        self.files = math.inf
        self.threads = threading.active_count()
        self.strays: SimpleQueue[str] = SimpleQueue()
        threading.excepthook = lambda args: self.strays.put(f"thread hook: {args.exc_value!r}")
        sys.unraisablehook = self.hear_of

    def hear_of(self, args: sys.UnraisableHookArgs) -> None:
        """Note what was raised where nobody can catch it."""
        # A handler may strike a finalizer of somebody else's, or between the call of an `async def` and its `await`.
        if not issubclass(args.exc_type, Strike) and "never awaited" not in str(args.exc_value):
            self.strays.put(f"unraisable: {args.exc_value!r}")

    def round(self) -> list[str]:
        """Run some episodes side by side; return what they violated."""
        self.rounds += 1
        chance = random.Random(f"{self.seed}-{self.rounds}")
        sys.setswitchinterval(10 ** chance.uniform(-6, math.log10(0.005)))
        kinds = [chance.choice(ON_MAIN), *chance.choices(KINDS, k=chance.randrange(4))]
        episodes = [
            TaskEpisode(kind, f"{self.seed}-{self.rounds}-{number}", self.counters) for number, kind in enumerate(kinds)
        ]
        self.counters.episodes.update(kinds)
        faulthandler.dump_traceback_later(HANG, exit=True)
        threads = [threading.Thread(target=episode) for episode in episodes[1:]]
        for thread in threads:
            thread.start()
        episodes[0]()
        for thread in threads:
            thread.join()
        violations = [
            f"round {self.rounds}, {episode.kind}: {episode.violation!r}"
            for episode in episodes
            if episode.violation is not None
        ]
        del episodes, threads
        self.wait_for_workers()
        faulthandler.cancel_dump_traceback_later()
        self.counters.collect()
        while not self.strays.empty():
            violations.append(f"round {self.rounds}, {self.strays.get()}")
        return violations

    def wait_for_workers(self) -> None:
        """Wait until every worker is gone; those that are left for good are a hang."""
        for thread in threading.enumerate():
            if thread.name == WORKERS:
                thread.join(0)
        if threading.active_count() > self.threads:
            gc.collect()
        for thread in threading.enumerate():
            if thread.name == WORKERS:
                thread.join()

    def leaks(self) -> list[str]:
        """Compare descriptors and memory with what they were after the warm-up."""
        gc.collect()
        files = len(list(FILES.iterdir())) if FILES.exists() else 0
        blocks = sys.getallocatedblocks()
        if self.blocks == math.inf:
            self.files, self.blocks = files, blocks
        found = []
        if files > self.files:
            found.append(f"{files - self.files} file descriptors left open")
        if blocks > self.blocks + BLOCKS_ALLOWED:
            found.append(f"{blocks - self.blocks:.0f} blocks of memory not freed")
        if threading.active_count() > self.threads:
            found.append(f"{threading.active_count() - self.threads} threads left")
        return found

    def summary(self) -> str:
        total = self.counters.total
        return (
            f"{self.rounds} rounds, {self.counters.episodes.total()} episodes, {total['generators']:,} generators, "
            f"{total['items']:,} items, {total['strikes']:,} interrupts, {threading.active_count()} threads, "
            f"{sys.getallocatedblocks():,} blocks"
        )


def run(minutes: float, seed: int, say: Callable[[str], object] = print) -> int:
    """Run for so long; return the exit status."""
    # Under `-X dev` asyncio takes a traceback at every call: many times slower, and no sharper here.
    asyncio.coroutines._is_debug_mode = lambda: False  # type: ignore[attr-defined]
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # 3.12 and later, of a fork among threads
    say(f"Python {sys.version.split()[0]}, seed {seed}")
    interval = sys.getswitchinterval()
    soak = Soak(seed)
    violations: list[str] = []
    started = reported = time.monotonic()
    while time.monotonic() < started + minutes * 60 and not violations:
        violations += soak.round()
        if soak.rounds % 50 == 0 and (soak.rounds >= 200 or soak.blocks != math.inf):
            violations += soak.leaks()
        if time.monotonic() > reported + PROGRESS:
            reported = time.monotonic()
            say(f"{reported - started:5.0f} s: {soak.summary()}")
    sys.setswitchinterval(interval)
    if soak.blocks != math.inf:
        violations += soak.leaks()
    for violation in violations:
        say(f"VIOLATION: {violation}")
    say(f"{'FAILED' if violations else 'passed'}: {soak.summary()}, seed {seed}")
    return 1 if violations else 0


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description="Use the library in every way at once, at random, for a while.")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="repeat the episodes of another run")
    arguments = parser.parse_args()
    seed = int.from_bytes(os.urandom(4), "big") if arguments.seed is None else arguments.seed
    return run(arguments.minutes, seed, lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(main())
