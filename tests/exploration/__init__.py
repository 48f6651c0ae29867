"""Every schedule of the hand-off, not some; and the proof that the search finds bugs.

`primitives` models what the code stands on, `instrument` compiles the real text of `_handoff.py` and of the worker's
loop with a switch point before every access to shared state, `scheduler` runs it, one thread at a time, in an order
that it was told, `scenarios` says what must hold, `mutants` is a list of bugs. `model` is the algorithm again, by
hand, small enough to be searched to the end.

Why none of the tools on PyPI: `interleave-test` 0.1 (Python 3.12 and later) and `frontrun` 0.7 switch at bytecodes, so
what they find cannot be replayed on another Python, and they explore some hundred schedules a second, not thousands;
`ploom` 0.1 (3.13 and later) switches only in primitives of its own, and so cannot see `if handoff.open`. None looks
into a `map` object that holds a queue's method, which is where this hand-off meets.
"""
