"""Every schedule of the channel, not some; and the proof that the search finds bugs.

`primitives` models what the code stands on, `instrument` compiles the real text of `_handoff.py` and of the worker's
loop with a switch point before every access to shared state, `scheduler` runs it, one thread at a time, in an order
that it was told, `scenarios` says what must hold, `mutants` is a list of bugs. `model` is the algorithm again, by
hand, small enough to be searched to the end, interrupts included.

`PREFETCH_EXPLORE=1 pytest tests/exploration` runs the long part too: up to half an hour.

Why none of the tools on PyPI: `interleave-test` 0.1 (Python 3.12 and later) takes every bytecode for a switch point and
merges no states, so that it needs minutes for two preemptions; `frontrun` 0.7 cannot see into C queues; `ploom` 0.1
(3.13 and later) switches only in primitives of its own, and so not at `if handoff.open`.
"""
