"""The command, as a script and as `python -m prefetch_generator`: arguments, what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from prefetch_generator._command import command_line, plot
from tests.helpers import posix, python

from .invented import Terminal, WriteModule, at_a_terminal

ROOT = Path(__file__).parents[2]
MODULE = ("-m", "prefetch_generator")
COMMAND = [sys.executable, "-X", "dev", "-W", "error", *MODULE, "--items", "1"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--items", "0", "argument --items: must be an integer of at least 1, got '0'"),
        ("--items", "x", "argument --items: must be an integer of at least 1, got 'x'"),
        ("--max-prefetch", "1.5", "argument --max-prefetch: invalid int value: '1.5'"),
        ("--consumer", "3601", "argument --consumer: must be seconds from 0 to 3600, got '3601'"),
        ("--consumer", "-1", "argument --consumer: must be seconds from 0 to 3600, got '-1'"),
        ("--consumer", "nan", "argument --consumer: must be seconds from 0 to 3600, got 'nan'"),
        ("--consumer", "inf", "argument --consumer: must be seconds from 0 to 3600, got 'inf'"),
        ("--consumer", "x", "argument --consumer: must be seconds from 0 to 3600, got 'x'"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and what is allowed and what was given."""
    with pytest.raises(SystemExit) as caught:
        command_line.main([f"{option}={value}"])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_options_have_defaults() -> None:
    """As little as possible has to be said."""
    options = command_line.parse([])
    assert (options.source, options.items, options.max_prefetch, options.consumer) == (None, None, 2, None)
    assert (options.json, options.plot) == (False, None)
    assert command_line.parse(["--consumer", "3600"]).consumer == 3600


def test_without_a_source_the_standard_library_is_measured() -> None:
    """README: the command alone gives a report, nothing on standard error, status 0."""
    out, err = python(*MODULE, "--items", "5")
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("source: the standard library of Python 3.")
    assert lines[0].endswith(", 5 items, max_prefetch=2")
    assert lines[-1].startswith("advice: ")


def test_a_module_of_the_current_folder_is_found(
    tmp_path: Path, write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """README: SOURCE is imported as any script would import it; a source without an end is no problem."""
    name = write_module("import itertools\nload = itertools.count")
    monkeypatch.chdir(tmp_path)
    out, err = python(*MODULE, f"{name}:load", "--items", "5", "--max-prefetch", "0", "--consumer", "0.001")
    assert err == ""
    assert out.startswith(f"source: '{name}:load', 5 items, max_prefetch=0\n")


def test_a_folder_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """README: put a folder behind it; its files are the items."""
    (tmp_path / "a").write_bytes(b"a" * 1000)
    assert command_line.main([str(tmp_path), "--consumer", "0"]) == 0
    assert capsys.readouterr().out.startswith(f"source: the files of {str(tmp_path)!r}, 1 items")


@pytest.mark.parametrize("name", ["python -m prefetch_generator", "prefetch-generator"])
def test_the_help_names_the_command_and_what_it_takes(name: str, script: str) -> None:
    """README: `--help` has more. Help and messages begin with what the user has typed."""
    command = MODULE if "-m" in name else (script,)
    out, _ = python(*command, "--help")
    assert out.startswith(f"usage: {name} ")
    for word in ("SOURCE", "--items", "--max-prefetch", "--consumer", "--json", "--plot", "Exit status"):
        assert word in out
    assert f"\n{name}: error: argument --items: " in python(*command, "--items", "x", returncode=2)[1]
    assert python(*command, "x", returncode=2)[1].startswith(f"{name}: error: SOURCE must be ")


def test_the_script_is_the_one_that_pip_installs(script: str) -> None:
    """What the tests run as the script calls what the package says that the script is to call."""
    called = re.search(r'^prefetch-generator = "(.+):(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert called
    assert f"from {called[1]} import {called[2]}\n" in Path(script).read_text(encoding="utf-8")


def test_the_script_finds_the_modules_of_the_current_folder(
    tmp_path: Path, write_module: WriteModule, script: str
) -> None:
    """As `python -m` does, and a process does so too; with `-P`, none of them does."""
    asked = (f"{write_module(NO_THREAD.format(step=''))}:load", "--items", "5", "--consumer", "0.01")
    out, err = python(script, *asked, folder=tmp_path)
    assert err == ""
    assert "\nprocess: with @background(" in out
    if sys.version_info >= (3, 11):
        for command in (MODULE, (script,)):
            message = python("-P", *command, *asked, folder=tmp_path, returncode=2)[1]
            assert "SOURCE must name a module that can be found" in message


def test_json_is_all_there_is_on_standard_output(tmp_path: Path, write_module: WriteModule) -> None:
    """docs/command.md: what the source prints goes to standard error, from a process too."""
    name = write_module(NO_THREAD.format(step="print(os.getpid(), flush=True)"))
    out, err = python(*MODULE, f"{name}:load", "--items", "5", "--consumer", "0.01", "--json", folder=tmp_path)
    printed = set(err.splitlines())
    assert len(printed) > 1, "the number of the command, and that of each process"
    assert all(number.isdecimal() for number in printed)
    assert json.loads(out)["source"] == repr(f"{name}:load")


@posix
@pytest.mark.parametrize("closed", ["<&- >&-", "<&- >&- 2>&-", "2>&-"])
def test_json_needs_no_open_streams(closed: str, tmp_path: Path, write_module: WriteModule) -> None:
    """As under a service manager that opens none of them; what the source prints is in the way of nothing."""
    command = [*COMMAND, f"{write_module('def load(): print(5); yield 5')}:load", "--json"]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
    done = subprocess.run(shell, stdout=subprocess.PIPE, timeout=30, check=False, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == b"" if ">&- " in f"{closed} " and "<" in closed else json.loads(done.stdout)


def test_nothing_is_measured_if_the_picture_cannot_be_drawn(
    write_module: WriteModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/command.md: that is said at once, in one line, with status 2."""
    name = write_module("raise ZeroDivisionError")
    assert command_line.main([f"{name}:load", "--plot", str(tmp_path / "picture.gif")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("prefetch-generator: error: --plot must be a file that ends in .svg or .png, got ")
    assert output.err.count("\n") == 1


def test_the_picture_is_drawn_beside_what_is_printed(
    write_module: WriteModule, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/command.md: --plot goes with the report and with --json."""
    drawn: list[tuple[str, Path]] = []
    monkeypatch.setattr(plot, "check", lambda file: None)
    monkeypatch.setattr(plot, "save", lambda measured, file: drawn.append((measured.title, file)))
    source = f"{write_module('def load(): yield from range(3)')}:load"
    for form, beginning in [((), "source: "), (("--json",), "{")]:
        assert command_line.main([source, "--plot", "who.svg", *form]) == 0
        assert capsys.readouterr().out.startswith(beginning)
    assert drawn == [(repr(source), Path("who.svg"))] * 2


@posix
def test_a_person_at_a_terminal_sees_progress_and_colours(tmp_path: Path, write_module: WriteModule) -> None:
    """docs/command.md: the time left in a line that is wiped out, and the colours; none of this in a pipe."""
    name = write_module("def load(): yield from range(3)")
    for environment, painted in [({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]:
        text = at_a_terminal(*MODULE, f"{name}:load", folder=tmp_path, environment=environment)
        assert "\rconsumer waits, background: up to 1 s left" in text
        assert text.count("\n") == text.count("\r\n"), "the line of the progress never ends"
        assert ("\x1b[36msource\x1b[0m" in text) is painted
        assert ("\x1b" in text) is painted


def test_output_fits_any_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the encoding of standard output has no letters for is escaped."""
    (tmp_path / "d\u00e9j\u00e0").mkdir()
    (tmp_path / "d\u00e9j\u00e0" / "a").write_bytes(b"a")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("PYTHONUTF8", "1")
    out, err = python(*MODULE, "d\u00e9j\u00e0", "--consumer", "0")
    assert err == ""
    assert r"'d\xe9j\xe0'" in out


@posix
def test_a_closed_pipe_ends_the_command_quietly() -> None:
    """Neither a traceback nor a complaint at interpreter exit."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(COMMAND, stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@posix
def test_closed_standard_streams_are_no_failure() -> None:
    """As under a service manager that opens none of them."""
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND], timeout=30, check=False)
    assert done.returncode == 0


def test_a_wrong_source_is_one_clear_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--help: status 2, and no traceback; on a terminal the line that told the progress is wiped out before."""
    assert command_line.main([str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("prefetch-generator: error: SOURCE must ")
    assert output.err.endswith(f"got none from the files of {str(tmp_path)!r}\n")
    assert output.err.count("\n") == 1

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert command_line.main([str(tmp_path)]) == 2
    assert terminal.getvalue() == "\rfirst pass\r\r          \r" + output.err


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("def load():\n    yield 1\n    raise OSError('the disk is gone')", "OSError: the disk is gone"),
        ("def load():\n    raise TypeError('my own mistake')", "TypeError: my own mistake"),
        (
            "class load:\n    def __iter__(self):\n        raise TypeError('my other mistake')",
            "TypeError: my other mistake",
        ),
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("import data_of_a_test.part", "ModuleNotFoundError: No module named 'data_of_a_test.part'"),
        ("def load():\n    yield 1\n    raise SystemExit(0)", "SystemExit: 0"),
        ("load = lambda: map(int, ['1', 'x'])", "ValueError: invalid literal for int()"),
    ],
)
def test_a_failure_in_the_source_is_a_traceback_and_status_1(
    code: str, last: str, write_module: WriteModule, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user sees the own line that failed; nothing may look like a result."""
    assert command_line.main([f"{write_module(code)}:load"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("Traceback (most recent call last):\n")
    assert output.err.splitlines()[-1].startswith(last)


def test_the_traceback_starts_in_the_users_code(write_module: WriteModule, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the source fails in the background; this program's own lines are no help."""
    name = write_module(
        "import threading\n"
        "def load():\n"
        "    yield 1\n"
        "    if threading.current_thread() is not threading.main_thread():\n"
        "        raise OSError('the disk is gone')\n"
        "    yield 2\n"
    )
    assert command_line.main([f"{name}:load", "--consumer", "0"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert f"{name}.py" in lines[1]
    assert not any("prefetch_generator" in line for line in lines)


def test_an_interrupt_is_status_130(write_module: WriteModule, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a traceback."""
    name = write_module("def load():\n    raise KeyboardInterrupt")
    assert command_line.main([f"{name}:load"]) == 130
    assert capsys.readouterr() == ("", "")


def test_after_an_interrupt_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sys.exit` would wait for threads; every other status goes through it."""

    class LeftAtOnceError(Exception):
        pass

    def leave(status: int) -> NoReturn:
        raise LeftAtOnceError(status)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(command_line, "main", lambda prog: 130)
    with pytest.raises(LeftAtOnceError, match="130"):
        command_line.run_and_exit("any")
    monkeypatch.setattr(command_line, "main", lambda prog: 1)
    with pytest.raises(SystemExit, match="1"):
        command_line.run_and_exit("any")


@posix
@pytest.mark.parametrize("where", ["is", "is not"])
def test_ctrl_c_ends_the_command_at_once(
    where: str, tmp_path: Path, write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--help: status 130 and nothing printed, though the source is stuck, here or in the background."""
    name = write_module(
        "import os, signal, threading, time\n"
        "def load():\n"
        "    yield 1\n"
        f"    if threading.current_thread() {where} threading.main_thread():\n"
        "        threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "        while True:\n"  # insist: one that comes between Python's last look and the system call ends no wait
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "            time.sleep(5)\n"
        "    yield 2\n"
    )
    monkeypatch.chdir(tmp_path)
    assert python(*MODULE, f"{name}:load", "--consumer", "0", returncode=130) == ("", "")


# A source that is slow on any thread but the main one, so that no thread gains anything.
NO_THREAD = """
import multiprocessing, os, signal, threading, time
def load():
    while True:
        time.sleep(0.01 if threading.current_thread() is threading.main_thread() else 0.1)
        {step}
        yield os.getpid()
"""


def test_a_process_is_measured_where_a_thread_gains_little(
    tmp_path: Path, write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """README: it has a row in the table, a pair of lines in the picture, and a line that says how it was done."""
    name = write_module(NO_THREAD.format(step=""))
    monkeypatch.chdir(tmp_path)
    out, err = python(*MODULE, f"{name}:load", "--items", "5", "--consumer", "0.01")
    assert err == ""
    table, waits = out.split("\n\n")[1:3]
    # Not those of the consumer that computes: on a busy machine it may take so long that there is nothing to gain.
    *rows, last = [line.split()[0] for line in table.splitlines()]
    assert rows[:3] == ["consumer", "waits", "process"]
    assert last == "process:"
    assert [line.split()[0] for line in waits.splitlines()][1::2] == ["plain", "background", "process"]


@posix
def test_ctrl_c_ends_the_command_and_the_process(
    tmp_path: Path, write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--help: status 130 and nothing printed, though the source is stuck in a process; that ends too."""
    name = write_module(
        NO_THREAD.format(
            step="parent = multiprocessing.parent_process()\n"
            "        parent and (os.kill(parent.pid, signal.SIGINT), time.sleep(600))"
        )
    )
    monkeypatch.chdir(tmp_path)
    # What it writes is read to the end, which comes when no process is left that could write.
    assert python(*MODULE, f"{name}:load", "--items", "5", "--consumer", "0.01", returncode=130) == ("", "")
