"""Every schedule of the channel, not some; and the proof that the search finds bugs.

`primitives` and `tasks` model what the code stands on. `instrument` compiles the real text of the channel, of its
consumers and of the worker's loops, with a switch point before every access to shared state. `scheduler` runs it, one
thread at a time, in an order that it was told. `scenarios` and `asynchronous` say what must hold. `seeded_bugs` and
`asynchronous_bugs` are lists of bugs, each with the scenario that has to find it.

Why none of the tools on PyPI: `interleave-test` 0.1 (Python 3.12 and later) takes every bytecode for a switch point and
merges no states, so that it needs minutes for two preemptions; `frontrun` 0.7 cannot see into C queues; `ploom` 0.1
(3.13 and later) switches only in primitives of its own, and so not at `if channel.cancelled`.
"""
