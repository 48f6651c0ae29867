"""The recipe for signals is true about sub-interpreters too, which no program on the page makes."""

from __future__ import annotations

import sys
import textwrap

from tests.helpers import python

# Before `concurrent.interpreters`, which came with Python 3.14, there was only what it is built on.
if sys.version_info >= (3, 13):
    MAKE = "import _interpreters as them; run, kinds = them.exec, {'isolated': ['isolated'], 'sharing': ['legacy']}"
else:
    MAKE = "import _xxsubinterpreters as them; run, kinds = them.run_string, {'isolated': [], 'sharing': []}"

SCRIPT = """
import sys
inside = '''
from prefetch_generator import BackgroundGenerator

def source():
    global touched
    touched = True
    yield from range(3)

touched = False
try:
    with BackgroundGenerator(source()) as numbers:
        print(*numbers)
except RuntimeError:
    print("refused, the source", "touched" if touched else "untouched")
'''
for kind, arguments in kinds.items():
    one = them.create(*arguments, **({} if arguments else {"isolated": kind == "isolated"}))
    print(kind, flush=True)
    failure = run(one, inside)
    assert failure is None, failure
    them.destroy(one)
"""


def test_sub_interpreters() -> None:
    """An isolated one refuses a generator before the source is touched; one that shares the GIL has generators."""
    said = "isolated\nrefused, the source untouched\nsharing\n0 1 2\n"
    assert python("-c", MAKE + textwrap.dedent(SCRIPT)) == (said, "")
