"""Does the suite see? Break the package in one place at a time, and demand that a test fails.

``python -m verification.mutants`` makes every mutant that the tables below ask for, runs the tests against each in a
copy of the work tree, and prints the survivors and the score. It runs the tests that run the changed line, as `reach`
has found them: first what killed others in the same function, then the quickest. A survivor that `survivors.json` does
not explain is an error, and so is an explanation of a mutant that is not made any more.

The operators are those of `cosmic-ray`, which need no parser of our own, and one more that it does not have: to leave a
statement out. What is not mutated:

- annotations, docstrings, imports, ``__slots__``, ``if TYPE_CHECKING``, overloads: no test can see them, or every one;
- numbers with a decimal point: all of them are limits, of time or of what is worth a word;
- what only Windows, gevent or PyTorch runs.

Arguments: ``--list`` names the mutants and runs nothing; ``--only TEXT`` keeps those whose name has TEXT in it, and
may be repeated; ``--unexplained`` leaves out those that have a reason to survive; ``--workers N`` runs N at a time, 4
unless told, for most wait; ``--log FILE`` notes each outcome, and does not run again what was killed according to it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from types import CodeType
from typing import NamedTuple

from cosmic_ray.mutating import mutate_code  # type: ignore[import-not-found,import-untyped,unused-ignore]
from cosmic_ray.plugins import get_operator  # type: ignore[import-not-found,import-untyped,unused-ignore]

from verification import reach

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src", "prefetch_generator")
EXPLAINED = Path(__file__).with_name("survivors.json")  # the name of each, and why no test should fail

OPERATORS = (
    "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_Lt_GtE",
    "ReplaceComparisonOperator_LtE_Lt",
    "ReplaceComparisonOperator_LtE_Gt",
    "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_Gt_LtE",
    "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_GtE_Lt",
    "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_IsNot_Is",
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceUnaryOperator_USub_UAdd",
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ExceptionReplacer",
    "NumberReplacer",
    "RemoveDecorator",
    "ZeroIterationForLoop",
)
NEVER = {"TYPE_CHECKING", "sys.platform == 'win32'", "'torch' in sys.modules"}  # the conditions of what does not run
NOT_HERE = {  # what only Windows, gevent or PyTorch runs
    "_longest_wait",
    "_SLICED",
    "HubBell",
    "_gevent",
    "make_bell",
    "make_queue",
    "threads_are_greenlets",
    "_process_torch",
}

# What a survivor has to face besides: tests that are not traced, because they have a tracer of their own or count the
# memory, and one that looks at lines that only an import runs. One of the command: all of its own, of which some share
# what the first has made.
LAST = ("documents/test_public_names.py", "contract/test_c_dropping.py", "interrupts", "verification/test_explorer.py")
LIMIT = 1800  # seconds for all the tests of a mutant: should something hang that pytest cannot end


class Mutant(NamedTuple):
    """One change to one module."""

    name: str
    module: str
    code: str
    lines: range  # of the statement that it changes

    @property
    def function(self) -> str:
        """The function that it is in: what finds one mutant there may well find the next."""
        return self.name.partition(":")[0]


class Outcome(NamedTuple):
    """What became of it: killed, timeout or survived; and by which test."""

    state: str
    test: str


def mutants() -> Iterator[Mutant]:
    """Make every mutant, in the order of the files."""
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        if path.stem in NOT_HERE:
            continue
        module = path.relative_to(ROOT / PACKAGE).with_suffix("").as_posix()
        code = path.read_text(encoding="utf-8")
        tree = ast.parse(code)
        skipped = _skipped(tree)
        functions = _functions(tree)
        seen = {_meaning(code)}  # two operators may well make the same mutant, or none
        found: list[tuple[int, str, str]] = []
        for mutated in (*_by_cosmic_ray(code), *_by_leaving_out(code, tree)):
            line, old, new = _difference(code, mutated)
            if line in skipped or old.strip() == "@overload":
                continue
            try:
                meaning = _meaning(mutated)
            except SyntaxError:  # `while not x := f()`: an operator knows no precedence
                continue
            if meaning in seen:
                continue
            seen.add(meaning)
            found.append((line, f"{module}.{functions.get(line, '')}: `{old}` -> `{new}`", mutated))
        names: Counter[str] = Counter()
        for line, name, mutated in sorted(found):
            names[name] += 1
            unique = name if names[name] == 1 else f"{name} ({names[name]})"
            yield Mutant(unique, module, mutated, _statement(tree, line))


def _meaning(code: str) -> object:
    """Return what the code is compiled to, without the places in the file."""

    def of(compiled: CodeType) -> object:
        constants = [of(value) if isinstance(value, CodeType) else repr(value) for value in compiled.co_consts]
        return (
            compiled.co_code,
            compiled.co_names,
            compiled.co_varnames,
            getattr(compiled, "co_exceptiontable", None),
            tuple(constants),
        )

    return of(compile(code, "", "exec"))


def _by_cosmic_ray(code: str) -> Iterator[str]:
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        for occurrence in itertools.count():
            try:
                mutated = mutate_code(code, operator, occurrence)
            except AttributeError:  # one operator knows no dotted name among the exceptions that are caught
                continue
            if mutated is None:
                break
            if name != "NumberReplacer" or not _has_a_point(code, mutated):
                yield mutated


def _has_a_point(code: str, mutated: str) -> bool:
    """Tell whether the number that was replaced has a decimal point."""
    old, new = (
        [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)] for text in (code, mutated)
    )
    return any(
        isinstance(before, float) for before, after in zip(old, new, strict=False) if repr(before) != repr(after)
    )


def _by_leaving_out(code: str, tree: ast.Module) -> Iterator[str]:
    starts = [0]
    for line in code.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    kinds = (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete, ast.Return, ast.Raise, ast.Break)
    for parent in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(parent, name, [])
            for statement in statements if isinstance(statements, list) else []:
                if not isinstance(statement, kinds):
                    continue
                if isinstance(parent, ast.Module) and not isinstance(statement, (ast.Expr, ast.Delete)):
                    continue  # a name that is missing is found by every test
                if isinstance(statement, ast.AnnAssign) and statement.value is None:
                    continue
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    continue
                assert statement.end_lineno is not None
                assert statement.end_col_offset is not None
                start = starts[statement.lineno - 1] + statement.col_offset
                end = starts[statement.end_lineno - 1] + statement.end_col_offset
                yield (code.encode()[:start] + b"pass" + code.encode()[end:]).decode()


def _skipped(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that no mutant is made of."""
    skipped: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            skipped.append(node)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in NEVER:
            skipped += [*node.body, node.test]
        elif isinstance(node, ast.Assign):
            if ast.unparse(node.targets[0]) in {"__slots__", "__all__", *NOT_HERE} or ast.unparse(
                node.value
            ).startswith(("TypeVar(", "ParamSpec(")):
                skipped.append(node)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in NOT_HERE:
            skipped.append(node)
        elif isinstance(node, ast.FunctionDef) and any(
            ast.unparse(decorator) == "overload" for decorator in node.decorator_list
        ):
            skipped += [node, *node.decorator_list]
    return {
        line
        for node in skipped
        for line in range(getattr(node, "lineno", 0), (getattr(node, "end_lineno", 0) or 0) + 1)
    }


def _functions(tree: ast.Module) -> dict[int, str]:
    """Return the qualified name of the function that each line is in."""
    names: dict[int, str] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = f"{prefix}.{child.name}".lstrip(".")
                first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                names.update(dict.fromkeys(range(first, (child.end_lineno or 0) + 1), name))
            visit(child, name)

    visit(tree, "")
    return names


def _statement(tree: ast.Module, line: int) -> range:
    """Return the lines of the statement that this one belongs to, without those inside; none outside of a function."""
    lines, in_function = range(0), False
    for node in ast.walk(tree):  # from the outside to the inside
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            inside = getattr(node, "body", None)
            end = inside[0].lineno if inside else (node.end_lineno or 0) + 1
            lines = range(node.lineno, max(end, node.lineno + 1))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                in_function = line >= node.body[0].lineno
    return lines if in_function else range(0)


def _difference(code: str, mutated: str) -> tuple[int, str, str]:
    """Return the number of the first line that differs, and what is there before and after."""
    old, new = code.splitlines(), mutated.splitlines()
    for kind, start, end, new_start, new_end in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if kind != "equal":
            texts = [
                " ".join(line.split("  # ")[0].strip() for line in part)
                for part in (old[start:end], new[new_start:new_end])
            ]
            return start + 1, texts[0], texts[1]
    return 0, "", ""


SURVIVED = Outcome("survived", "")


class Copy:
    """A copy of the work tree, in which one mutant at a time is tested."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "build"))
        self.folder = folder
        self.chosen = folder / "chosen.json"
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder / "src", folder)))}
        where = self._run("-c", "import prefetch_generator; print(prefetch_generator.__file__)")
        if not where.stdout.startswith(str(folder)):
            sys.exit(f"the copy in {folder} is not the one that is imported, but {where.stdout}")

    def test(self, mutant: Mutant, tests: dict[str, float]) -> Outcome:
        """Run these tests, each with a limit in seconds, against one mutant, and then the last ones."""
        path = self.folder / PACKAGE / f"{mutant.module}.py"
        original = path.read_text(encoding="utf-8")
        try:
            self._write(path, mutant.code)
            outcome = self._tests(sorted({test.partition("::")[0] for test in tests}), tests)
            if outcome == SURVIVED:
                last = ["command"] if mutant.module.startswith("_command") else LAST
                outcome = self._tests([f"tests/{name}" for name in last], {})
        finally:
            self._write(path, original)
        return outcome

    def _write(self, path: Path, code: str) -> None:
        # Compiled code is trusted if date and size agree, and a mutant may well have both of the one before.
        shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
        path.write_text(code, encoding="utf-8")

    def _tests(self, files: list[str], chosen: dict[str, float]) -> Outcome:
        if not files:
            return SURVIVED
        self.chosen.write_text(json.dumps(chosen), encoding="utf-8")
        running = reach.running(self.chosen)
        running.write_text("none yet", encoding="utf-8")
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "verification.reach", "--timeout-method=thread"]
        try:
            run = self._run("-m", "pytest", *options, *files)
        except subprocess.TimeoutExpired:
            return Outcome("timeout", running.read_text(encoding="utf-8"))
        if run.returncode == 0:
            return SURVIVED
        state = "timeout" if "+ Timeout +" in run.stdout + run.stderr else "killed"
        return Outcome(state, running.read_text(encoding="utf-8"))

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        with subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            finally:
                # A mutant's own children may hang too, and would see the next one's files.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return subprocess.CompletedProcess(command, process.returncode, out, err)


def read_log(path: Path | None) -> dict[str, Outcome]:
    """Return what became of the mutants of the runs before."""
    if path is None or not path.exists():
        return {}
    entries = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {name: Outcome(state, test) for name, state, test in entries}


def run(chosen: list[Mutant], workers: int, log: Path | None) -> dict[str, Outcome]:
    """Test the mutants, so many at a time; return what became of each."""
    before = read_log(log)
    outcomes = {name: outcome for name, outcome in before.items() if outcome.state != "survived"}
    waiting: SimpleQueue[Mutant] = SimpleQueue()
    for mutant in sorted(chosen, key=lambda mutant: mutant.name in before):  # first what was never tested
        if mutant.name not in outcomes:
            waiting.put(mutant)
    reached = reach.find()
    kills: Counter[tuple[str, str]] = Counter()
    lock = threading.Lock()

    def tests(mutant: Mutant) -> dict[str, float]:
        found = reached.of(mutant.module, mutant.lines)
        found.sort(key=lambda test: (-kills[mutant.function, test], reached.seconds[test]))
        return {test: 5 + 10 * reached.seconds[test] for test in found}

    def work(copy: Copy) -> None:
        while True:
            try:
                mutant = waiting.get(block=False)
            except Empty:
                return
            outcome = copy.test(mutant, tests(mutant))
            with lock:
                outcomes[mutant.name] = outcome
                kills[mutant.function, outcome.test] += 1
                print(f"{waiting.qsize():4} left  {outcome.state:8}  {mutant.name}", flush=True)
                if log is not None:
                    with log.open("a", encoding="utf-8") as file:
                        file.write(json.dumps([mutant.name, *outcome]) + "\n")

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [Copy(Path(folder, str(number)).resolve()) for number in range(workers)]
        threads = [threading.Thread(target=work, args=(copy,)) for copy in copies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return outcomes


def main() -> None:
    """Make, run and count the mutants."""
    parser = argparse.ArgumentParser(description="Break the package in one place at a time: does a test fail?")
    parser.add_argument("--list", action="store_true", help="name the mutants and run nothing")
    parser.add_argument("--only", action="append", metavar="TEXT", help="those whose name has TEXT in it")
    parser.add_argument("--unexplained", action="store_true", help="leave out those that have a reason to survive")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="run N at a time")
    parser.add_argument("--log", type=Path, metavar="FILE", help="note the outcomes; go on where the last run ended")
    arguments = parser.parse_args()

    explained: dict[str, str] = json.loads(EXPLAINED.read_text(encoding="utf-8"))
    made = list(mutants())
    chosen = [mutant for mutant in made if any(text in mutant.name for text in arguments.only or [""])]
    if arguments.unexplained:
        chosen = [mutant for mutant in chosen if mutant.name not in explained]
    if arguments.list:
        print("\n".join(mutant.name for mutant in chosen))
        print(f"{len(chosen)} mutants")
        sys.exit(_is_outdated(explained, made))
    started = time.monotonic()
    outcomes = run(chosen, arguments.workers, arguments.log)
    results = Counter(outcomes[mutant.name].state for mutant in chosen)
    survivors = [mutant.name for mutant in chosen if outcomes[mutant.name].state == "survived"]
    unexplained = [name for name in survivors if name not in explained]
    print(f"\n{len(chosen)} mutants in {time.monotonic() - started:.0f} s: {results['killed']} killed by a failure,")
    print(f"{results['timeout']} by a timeout; {results['survived']} survived, {len(unexplained)} of them unexplained")
    for name in unexplained:
        print(f"  {name}")
    sys.exit(_is_outdated(explained, made) or bool(unexplained))


def _is_outdated(explained: dict[str, str], made: list[Mutant]) -> bool:
    """Return whether there is a reason for a mutant that is not made any more; print each."""
    outdated = explained.keys() - {mutant.name for mutant in made}
    for name in sorted(outdated):
        print(f"explained, and not made any more: {name}")
    return bool(outdated)


if __name__ == "__main__":
    main()
