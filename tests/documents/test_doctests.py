"""Every example in a docstring of the package is true."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import prefetch_generator


def examples() -> Iterator[doctest.DocTest]:
    """Find them in the files: `doctest.testmod` overlooks classes that name another module as theirs, as ours do."""
    parser = doctest.DocTestParser()
    public = {name: getattr(prefetch_generator, name) for name in prefetch_generator.__all__}
    root = Path(prefetch_generator.__file__).parent
    for path in sorted(root.rglob("*.py")):
        dotted = ".".join(["prefetch_generator", *path.relative_to(root).with_suffix("").parts])
        module = import_module(dotted.removesuffix(".__init__"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node) or ""
                name = f"{path.stem}.{getattr(node, 'name', '')}"
                test = parser.get_doctest(text, {**vars(module), **public}, name, str(path), None)
                if test.examples:
                    yield test


@pytest.mark.parametrize("test", [pytest.param(test, id=test.name) for test in examples()])
def test_examples_in_docstrings(test: doctest.DocTest) -> None:
    """Docstrings: an example runs and gives what it says."""
    doctest.DebugRunner().run(test)


def test_examples_are_found() -> None:
    """Docstrings: the way of looking for examples finds those of the class, of its methods and of the functions."""
    found = {test.name for test in examples()}
    assert found >= {"_generator.BackgroundGenerator", "_generator.close", "_generator.aclose", "_decorator.background"}
