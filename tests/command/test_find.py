"""SOURCE: a folder, package.module:callable, or the standard library."""

from __future__ import annotations

import errno
import os
import pickle
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefetch_generator._command import find
from tests.helpers import posix

from .invented import WriteModule


def test_only_what_is_in_the_package_is_ours() -> None:
    """What is installed beside it is the user's: an error there is shown from there on."""
    assert find._OURS[0] == str(Path(find.__file__).parent.parent / "_")[:-1]


def test_the_default_is_the_standard_library() -> None:
    """Its files are there wherever Python is."""
    source = find.find_source(None)
    assert source.title.startswith("the standard library of Python 3.")
    assert isinstance(next(source.begin()), bytes)


def test_the_files_of_a_folder_come_in_the_same_order_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorted, a folder's own files before those of the folders in it, each read and compressed."""
    walk = os.walk

    def walk_backwards(top: str) -> Iterator[tuple[str, list[str], list[str]]]:
        for parent, folders, names in walk(top):
            folders.sort(reverse=True)
            yield parent, folders, sorted(names, reverse=True)

    monkeypatch.setattr(os, "walk", walk_backwards)
    for path in ["b", "a", "z/a", "c/b", "c/a"]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path, encoding="utf-8")
    contents = [zlib.decompress(item).decode() for item in find.files(str(tmp_path))]
    assert contents == ["a", "b", "c/a", "c/b", "z/a"]


def test_only_the_beginning_of_a_huge_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One item must not take the whole time."""
    monkeypatch.setattr(find, "FILE_SIZE", 3)
    (tmp_path / "a").write_bytes(b"12345")
    assert [zlib.decompress(item) for item in find.files(str(tmp_path))] == [b"123"]


def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file without permission is no reason to measure nothing."""
    really_open = Path.open

    def refuse(path: Path, mode: str, buffering: int = -1) -> object:
        if path.name == "a" and mode == "rb":
            raise PermissionError(errno.EACCES, "no")
        return really_open(path, mode, buffering)

    monkeypatch.setattr(Path, "open", refuse)
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    assert [zlib.decompress(item) for item in find.files(str(tmp_path))] == [b"b"]


@posix
def test_a_pipe_in_a_folder_does_not_block(tmp_path: Path) -> None:
    """Opening a named pipe would wait for somebody to write."""
    os.mkfifo(tmp_path / "pipe")
    assert list(find.files(str(tmp_path))) == []


def test_a_source_can_be_sent_to_another_process(tmp_path: Path, write_module: WriteModule) -> None:
    """Whatever it is: a function goes by the name it was given by, and need not be one that pickle finds."""
    (tmp_path / "a").write_bytes(b"a")
    name = write_module("load = lambda: [5]\n")
    for text, first in [(None, None), (str(tmp_path), zlib.compress(b"a", 9)), (f"{name}:load", 5)]:
        source = find.find_source(text)
        item = next(pickle.loads(pickle.dumps(source.begin))())
        assert item == (first or next(source.begin()))
        assert next(iter(source.function())) == item


def test_the_function_behind_a_decorated_one_can_be_named(write_module: WriteModule) -> None:
    """What the message about @background advises works."""
    name = write_module("from prefetch_generator import background\n@background\ndef load(): yield 5\n")
    source = find.find_source(f"{name}:load.__wrapped__")
    assert list(source.begin()) == [5]
    assert source.function.__name__ == "load"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nocolon", "be package.module:callable or a folder"),
        ("", "be package.module:callable or a folder"),
        (":load", "be package.module:callable or a folder"),
        ("data:", "be package.module:callable or a folder"),
        (".data:load", "be package.module:callable or a folder"),
        ("no_such_thing:load", "name a module that can be found"),
        ("os.no_such_thing:load", "name a module that can be found"),
        ("data_of_a_test:missing", "name something in its module"),
        ("data_of_a_test:number", "name something callable"),
        ("data_of_a_test:needy", "be callable without arguments"),
        ("builtins:range", "be callable without arguments"),
        ("data_of_a_test:single", "return an iterable"),
        ("data_of_a_test:ahead", "not run in the background already"),
    ],
)
def test_a_wrong_source_is_told_what_is_allowed_and_what_was_given(
    source: str, message: str, write_module: WriteModule
) -> None:
    """E6: the message names SOURCE, what it must be, and what it is."""
    write_module(
        "from prefetch_generator import background\n"
        "number = 3\n"
        "def needy(path): yield path\n"
        "def single(): return 3\n"
        "@background\n"
        "def ahead(): yield 1\n"
    )
    with pytest.raises(find.SourceError) as caught:
        find.find_source(source).begin()
    assert str(caught.value).startswith(f"SOURCE must {message}, got {source!r}")
    assert "\n" not in str(caught.value)
