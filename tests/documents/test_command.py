"""docs/command.md is true: its commands run as they stand, and its tables name all there is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from prefetch_generator._command import command_line, figures
from tests.command.invented import measured, with_process
from tests.helpers import needs, posix

from .programs import ROOT, Block, blocks, expected, run_program

PAGE = (ROOT / "docs" / "command.md").read_text(encoding="utf-8")
BLOCKS = list(blocks(PAGE))
SCRIPT = f"""#!/bin/sh
exec {shlex.quote(sys.executable)} -W error -c \
'from prefetch_generator._command.command_line import run_script; run_script()' "$@"
"""


def code(language: str) -> list[Block]:
    """Return the blocks in this language."""
    return [block for block in BLOCKS if block.language == language]


def commands() -> list[str]:
    """Return each command of the page."""
    return [line for block in code("sh") for line in block.code.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the page's file, and have the script where a shell finds it."""
    (tmp_path / "overlap.py").write_text(code("python")[0].code, encoding="utf-8")
    script = tmp_path / "bin" / "prefetch-generator"
    script.parent.mkdir()
    script.write_text(SCRIPT, encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def shell(command: str, folder: Path) -> str:
    """Run a command as a user does, and return what it printed; it may say nothing else."""
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_block_is_tested() -> None:
    """No block is in a language that nothing below runs, and the first program is the file behind the picture."""
    assert {block.language for block in BLOCKS} == {"python", "sh", "text"}
    assert code("python")[0].code == (ROOT / "docs" / "overlap.py").read_text(encoding="utf-8")
    assert len(code("python")) == 2
    (report,) = code("text")
    assert len(shape(report.code)) == 8


@posix
@pytest.mark.parametrize("command", [it for it in commands() if "--plot" not in it and "--json" not in it])
def test_a_command_gives_a_report(command: str, folder: Path) -> None:
    """With the parts that the page shows and explains; in a pipe there are no colours."""
    printed = shell(command, folder)
    shown = code("text")[0].code
    if command == "prefetch-generator overlap:load":
        # On a busy machine there may be more: what is printed where a thread gains little.
        assert shape(shown) <= shape(printed)
    assert "\nadvice: " in printed
    assert "\x1b" not in printed


def shape(report: str) -> set[str]:
    """Return the lines of a report that are the same in each run, but for the figures and the rows of either side."""
    lines = [line for line in report.splitlines() if line and not line.startswith((" ", "advice: "))]
    return {re.sub(r"[\d.]+", "0", " ".join(line.split())) for line in lines}


@posix
@needs("matplotlib")
@pytest.mark.parametrize("command", [it for it in commands() if "--plot" in it])
def test_a_command_draws_a_picture(command: str, folder: Path) -> None:
    """Into the file that it names."""
    assert "\nadvice: " in shell(command, folder)
    drawn = (folder / command.rpartition(" ")[2]).read_text(encoding="utf-8")
    for word in ("source", "consumer", "plain loop", "thread", "consumer waits", "consumer computes"):
        assert f">{word}</text>" in drawn


@posix
def test_a_script_gets_figures(folder: Path) -> None:
    """The page's program prints what it says, from what the page's command has written."""
    (command,) = [it for it in commands() if "--json" in it]
    assert shell(command, folder) == ""
    program = code("python")[1]
    assert run_program(program, folder / "script.py", folder=folder) == expected(program.code)


def test_the_tables_name_every_figure() -> None:
    """And none that there is not."""
    everything = measured(0.0, 0.0, tuned=0.0)
    everything = everything._replace(computes=with_process(everything.computes, 1.0))
    found = figures.figures(everything)
    computes = found["consumers"]["computes"]
    names = [*found, *computes, *dict.fromkeys(name for run in computes["runs"].values() for name in run)]
    section = PAGE.partition("\n## The figures for a script\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == names
    for name in (*found["consumers"], *computes["runs"]):
        assert f"`{name}`" in section


def test_the_table_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """In any order."""
    with pytest.raises(SystemExit):
        command_line.parse(["--help"])
    options = set(re.findall(r"^  (--\w+(?:-\w+)*(?: [A-Z]+)?|SOURCE)\b", capsys.readouterr().out, re.MULTILINE))
    section = PAGE.partition("\n| Option |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)) == options
    assert len(options) == 6


def test_the_pictures_file_is_small_and_made_by_the_command() -> None:
    """It goes into the README: below 30 KB; text in it is text, and nothing in it says when it was made."""
    picture = (ROOT / "docs" / "overlap.svg").read_text(encoding="utf-8")
    assert len(picture.encode()) < 30_000
    assert "matplotlib.axis_1" in picture
    for word in ("source", "consumer", "plain loop", "thread"):
        assert f">{word}</text>" in picture
    assert "dc:date" not in picture
