"""The real code, compiled with a switch point before each access to shared state.

The functions of `_atomic.py` and `_channel.py`, the consumers in `_generator.py` and `_async_consumer.py`, the worker's
loop in `_worker.py` and the task in `_async_source.py` become generators: loads and stores of attributes that are
written outside a constructor, item stores, steps of a `map`, and methods of a queue or a set `yield` first; an `await`
becomes a `yield from`. Nothing else changes. That is finer than the GIL switches and as fine as a free-threaded build
does, and it is the same on every Python: a schedule found on one can be replayed on another.

Not instrumented: constructors (nobody shares the object yet), what puts an exception in order for who raises it, and
the counters of `Stats`, on which nothing depends.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import prefetch_generator

from . import primitives, tasks

SOURCE = Path(prefetch_generator.__file__).parent
PARTS = {
    "_generator.py": {"BackgroundGenerator", "next", "_raise_end"},
    "_worker.py": {
        "produce",
        "as_raised_by_source",
        "is_exit",
    },  # its loop; what comes after it, each scenario says for itself
}
ASYNC_PARTS = {
    "_async_consumer.py": {
        "AsyncConsumer",
        "__init__",
        "__anext__",
        "_raise_end",
        "_see_a_stop",
        "wait_for_end",
        "_wait",
    },
    "_async_source.py": {
        "_aclose",
        "_as_outcome",
        "_close",
        "_throw",
        "_Run",
        "to_the_end",
        "_step_until_stopped",
        "ring",
        "_cancel",
        "_is_current",
        "_Room",
        "__init__",
        "__enter__",
        "__exit__",
        "_receive",
        "wait",
        "_park",
    },
}
PLAIN = {
    "bool",
    "get_ident",
    "given_once",
    "isinstance",
    "issubclass",
    "make_bell",
    "make_queue",
    "map",
    "min",
    "monotonic",
    "partial",
    "perf_counter",
    "repeat",
    "SimpleQueue",
}
CONTAINERS = {"bells"}  # attributes that are set once, and whose truth value is shared state
UNSHARED = {
    "__init__",
    "__enter__",
    "__exit__",
    "_close",
    "_mend_context",
    "_chain",
    "call_held",
}  # nothing for others to see
STATISTICS = {"producer_wait", "consumer_wait"}
OF_ONE_TASK = {
    "_turn_ends",
    "_loop",
    "_task",
    "_in_step",
    "_reader",
    "heard",
    "is_its_task",
    "coroutine",
}  # nobody else looks

Node = TypeVar("Node", bound=ast.AST)

_numbers = count()


class Change(NamedTuple):
    """A bug: in `file`, `old` becomes `new`."""

    file: str
    old: str
    new: str


class Code(NamedTuple):
    """What a scenario needs."""

    Channel: Callable[[int, object], Any]
    Consumer: type[Any]
    produce: Callable[[Any, Any], primitives.Steps]  # the worker's loop
    AsyncConsumer: type[Any]
    AsyncRun: type[Any]  # the worker's loop over an asynchronous source
    Once: type[Any]


def load_code(*changes: Change) -> Code:
    """Compile the channel, its consumer and the worker, with these bugs, into fresh modules."""
    texts = {name: changed(name, changes) for name in ("_atomic.py", "_channel.py", *PARTS, *ASYNC_PARTS)}
    trees = {name: reduced(name, text) for name, text in texts.items()}
    alone = {name: stored_attributes(tree) for name, tree in trees.items()}
    synchronous = set().union(*(alone[name] for name in texts if name not in ASYNC_PARTS)) | CONTAINERS
    atomic, channel, consumer, worker, async_consumer, async_source = (
        run_module(name, texts[name], trees[name], synchronous | alone[name] - OF_ONE_TASK) for name in texts
    )
    channel["Once"] = atomic["Once"]
    consumer["raise_held"] = async_consumer["raise_held"] = atomic["raise_held"]
    async_consumer.update(tasks.MODELLED)
    async_source.update(tasks.MODELLED, as_raised_by_source=worker["as_raised_by_source"], is_exit=worker["is_exit"])
    async_source["NO_REQUEST"] = channel["NO_REQUEST"]
    return Code(
        channel["Channel"],
        consumer["BackgroundGenerator"],
        worker["produce"],
        async_consumer["AsyncConsumer"],
        async_source["_Run"],
        atomic["Once"],
    )


def changed(name: str, changes: tuple[Change, ...]) -> str:
    """Return the text of a source file after the changes; each must match exactly once."""
    text = (SOURCE / name).read_text("utf-8")
    for file, old, new in changes:
        if file == name:
            if text.count(old) != 1:
                raise ValueError(f"{name} must have this once, it has it {text.count(old)} times:\n{old}")
            text = text.replace(old, new)
    return text


def reduced(name: str, text: str) -> ast.Module:
    """Parse a source file, without what is not explored and what would register another hook for exit or fork."""
    parts = (PARTS | ASYNC_PARTS).get(name)
    tree = ast.parse(text)
    blocks: list[ast.Module | ast.ClassDef] = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    for block in blocks:
        block.body = [node for node in block.body if belongs(node, parts)]
        if isinstance(block, ast.ClassDef) and parts:
            block.bases = []
    Synchronous().visit(tree)
    return tree


def belongs(node: ast.stmt, parts: set[str] | None) -> bool:
    if parts is None or isinstance(node, (ast.Import, ast.ImportFrom)):
        return not isinstance(node, ast.If)
    return getattr(node, "name", None) in parts


def stored_attributes(tree: ast.Module) -> set[str]:
    """Return the attributes that are written outside constructors: what threads can race for."""
    return {
        node.attr
        for function in functions(tree)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    } - STATISTICS


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    # A decorated one is a property that `repr` has use for.
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name not in UNSHARED and not node.decorator_list:
            yield node


def run_module(name: str, text: str, tree: ast.Module, shared: set[str]) -> dict[str, Any]:
    """Instrument and run a module; its names for what it stands on are those of `primitives`."""
    for function in functions(tree):
        Instrument(shared).generic_visit(function)
    filename = f"<explored {name} {next(_numbers)}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__name__": filename}
    exec(compile(ast.fix_missing_locations(tree), filename, "exec"), namespace)
    namespace.update(MODELLED)
    return namespace


MODELLED: dict[str, Any] = {
    "StopIteration": primitives.End,
    "make_bell": primitives.Bell,
    "make_queue": primitives.Queue,
    "SimpleQueue": primitives.Queue,
    "set": primitives.Set,
    "map": primitives.Map,
    "next": primitives.next_,
    "threading": SimpleNamespace(get_ident=primitives.Current.get_ident),
    "perf_counter": float,
    "weakref": SimpleNamespace(ref=lambda owner, _: lambda: owner),
    "source_context": primitives.Current.source_context,
    "_process": None,
    "_call": primitives.call,
    "_advance": primitives.advance,
    "_DONE": primitives.DONE,
}


class Instrument(ast.NodeTransformer):
    """Make a generator of a function: `yield` before each access to a shared attribute, `yield from` each call."""

    def __init__(self, shared: set[str]) -> None:
        self.shared = shared

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in PLAIN:
            return node  # has no switch points; to treat it like the others would only take longer
        stepped = ast.Call(ast.Name("_call", ast.Load()), [node.func, *node.args], node.keywords)
        return located(node, ast.YieldFrom(stepped))

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        load = point(node.attr, "read", f"load {ast.unparse(node)}")
        if isinstance(node.value, ast.Attribute) and node.value.attr in CONTAINERS:
            return node  # its method is a switch point of its own
        self.generic_visit(node)
        if node.attr in self.shared and isinstance(node.ctx, ast.Load):
            return located(node, pair(load, node, 1))
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        (target,) = node.targets
        label = f"store {ast.unparse(target)}"
        self.generic_visit(node)
        if isinstance(target, ast.Subscript):
            node.value = located(node.value, pair(node.value, point("item", "write", label), 0))
        if isinstance(target, ast.Attribute) and target.attr in self.shared:
            node.value = located(node.value, pair(node.value, point(target.attr, "write", label), 0))
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AugAssign:
        if getattr(node.target, "attr", None) in self.shared:
            raise NotImplementedError(f"line {node.lineno}: an update of a shared attribute: load, then store")
        self.generic_visit(node)
        return node

    def visit_For(self, node: ast.For) -> list[ast.stmt]:
        if node.orelse:
            raise NotImplementedError(f"line {node.lineno}: for ... else")
        self.generic_visit(node)
        iterator = f"_iterator_{node.lineno}"
        start, loop = ast.parse(
            f"{iterator} = iter(ITERABLE)\n"
            "while True:\n"
            f"    _item = yield from _advance({iterator})\n"
            "    if _item is _DONE: break\n"
            "    TARGET = _item\n"
        ).body
        for line in (start, loop):
            for part in ast.walk(line):
                located(node, part)
        Fill({"ITERABLE": node.iter, "TARGET": node.target}).visit(ast.Module([start, loop], []))
        assert isinstance(loop, ast.While)
        loop.body += node.body
        return [start, loop]


class Synchronous(ast.NodeTransformer):
    """Make a plain function of an `async def`: its calls are stepped through anyway, the awaited ones too."""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        return located(node, ast.FunctionDef(**{field: getattr(node, field) for field in node._fields}))

    def visit_Await(self, node: ast.Await) -> ast.expr:
        self.generic_visit(node)
        if not isinstance(node.value, (ast.Call, ast.IfExp)):
            raise NotImplementedError(f"line {node.lineno}: only a call can be awaited here")
        return node.value


class Fill(ast.NodeTransformer):
    """Put expressions in the places of names."""

    def __init__(self, expressions: dict[str, ast.expr]) -> None:
        self.expressions = expressions

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.expressions.get(node.id, node)


def point(what: str, access: str, label: str) -> ast.expr:
    return ast.Yield(ast.Tuple([ast.Constant(part) for part in (what, access, label, None)], ast.Load()))


def pair(first: ast.expr, second: ast.expr, index: int) -> ast.expr:
    """Evaluate both, in this order, and have the value of one."""
    return ast.Subscript(ast.Tuple([first, second], ast.Load()), ast.Constant(index), ast.Load())


def located(node: ast.AST, new: Node) -> Node:
    return ast.copy_location(new, node)
