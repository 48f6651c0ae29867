"""The picture of who worked when."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from prefetch_generator._command import plot
from tests.helpers import needs, python

from .invented import compared, plain, with_process

# In a process of its own: what matplotlib brings with it makes every collection of the garbage take longer.
DRAW = """
import sys
from pathlib import Path
from prefetch_generator._command import plot
from tests.command.invented import compared, measured, plain, with_process

slow = measured(0.0, 0.0, tuned=0.0)
slow = slow._replace(waits=with_process(slow.waits, 1.0), computes=with_process(slow.computes, 0.5))
quick = measured()
short = plain([0.01] * 3 + [0.00001], [0.02] * 4)
quick = quick._replace(
    waits=compared(1.0)._replace(plain=short, others={"background": short}),
    computes=compared(1.0)._replace(plain=short, others={"further": short}),
)
for name, measurement in {"slow": slow, "quick": quick, "again": slow}.items():
    for suffix in ("svg", "png", "SVG"):
        plot.save(measurement, Path(f"{name}.{suffix}"))
assert "matplotlib.pyplot" not in sys.modules
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures of times that nobody has measured."""
    folder = tmp_path_factory.mktemp("pictures")
    root = str(Path(__file__).parents[2])
    out, err = python("-c", f"import sys; sys.path.insert(0, {root!r})\n{DRAW}", folder=folder, strict=False)
    assert (out, err) == ("", "")
    return folder


def texts(picture: Path) -> list[str]:
    """Return what is written in an SVG file, in the order of the file."""
    return re.findall(r">([^<>]+)</text>", picture.read_text(encoding="utf-8"))


@needs("matplotlib")
def test_each_run_is_drawn_and_named(pictures: Path) -> None:
    """docs/command.md: a part for each consumer; in it the plain loop, and the others with their speed-up."""
    written = texts(pictures / "slow.svg")
    names = [it for it in written if not re.fullmatch(r"[\d.]+", it)]
    parts = ["plain loop", "thread", "1.00x", "process", "1.82x", "consumer waits"]
    parts += ["plain loop", "thread", "1.00x", "process", "1.41x", "seconds", "consumer computes"]
    assert sorted(names) == sorted([*parts, "source", "consumer"])
    assert "further" in texts(pictures / "quick.svg")


@needs("matplotlib")
def test_the_first_items_have_their_bars_and_numbers(pictures: Path) -> None:
    """docs/command.md: as many as the text shows, in the colour of the side; one that is too short has no number."""
    drawn = (pictures / "slow.svg").read_text(encoding="utf-8")
    assert drawn.count("fill: #2f6db3") == drawn.count("fill: #b8500a") == 6 * 6 + 1, "six runs, and the legend"
    assert "7" not in texts(pictures / "slow.svg")
    numbers = [it for it in texts(pictures / "quick.svg") if re.fullmatch(r"[1-6]", it)]
    assert [numbers.count(number) for number in "123456"] == [8, 8, 8, 4, 0, 0]


@needs("matplotlib")
def test_the_scale_has_a_unit_that_suits_it(pictures: Path) -> None:
    """Seconds, or milliseconds below one."""
    slow = texts(pictures / "slow.svg")
    assert [slow.count(str(number)) for number in range(0, 80, 10)] == [1] * 8
    assert slow.index("consumer waits") < slow.index("seconds"), "it stands below the second part"
    assert "milliseconds" in texts(pictures / "quick.svg")
    written = texts(pictures / "quick.svg")
    assert [written.count(number) for number in ("0", "20", "40", "60", "80")] == [1] * 5, "one scale for both parts"


@needs("matplotlib")
def test_the_same_times_give_the_same_file(pictures: Path) -> None:
    """On any day: nothing in it says when it was made, or by what."""
    for suffix in ("svg", "png"):
        drawn = (pictures / f"slow.{suffix}").read_bytes()
        assert drawn == (pictures / f"again.{suffix}").read_bytes()
        assert b"Matplotlib" not in drawn
        assert b"dc:date" not in drawn
    assert (pictures / "slow.SVG").read_bytes() == (pictures / "slow.svg").read_bytes()
    assert (pictures / "slow.png").read_bytes().startswith(b"\x89PNG")


def test_the_names_are_those_of_the_runs() -> None:
    """A variant that has no other name goes by its own."""
    comparison = with_process(compared(0.0), 1.0)
    comparison = comparison._replace(others={**comparison.others, "further": plain([1.0] * 10, [1.0] * 10)})
    names = [plot.row_name(comparison, name) for name in ("plain", "background", "process", "further")]
    assert names == ["plain loop", "thread\n1.00x", "process\n1.82x", "further\n1.00x"]


@pytest.fixture
def with_matplotlib(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType | None], None]:
    """Have this be what is imported as matplotlib; None is what is not installed."""

    def put(module: ModuleType | None) -> None:
        for name in ("matplotlib", "matplotlib.figure"):
            monkeypatch.setitem(sys.modules, name, module)

    return put


def test_a_file_that_can_become_a_picture_is_accepted(
    tmp_path: Path, with_matplotlib: Callable[[ModuleType | None], None]
) -> None:
    """And left as it is, or left out."""
    with_matplotlib(ModuleType("matplotlib"))
    (tmp_path / "old.png").write_bytes(b"old")
    for name in ("old.png", "new.svg", "new.PNG"):
        plot.check(tmp_path / name)
    assert [(it.name, it.read_bytes()) for it in tmp_path.iterdir()] == [("old.png", b"old")]


@pytest.mark.parametrize("name", ["picture", "picture.pdf", ".svg"])
def test_a_wrong_ending_is_refused(name: str, tmp_path: Path) -> None:
    """E6: the message says what is allowed, and what was given."""
    with pytest.raises(plot.PlotError) as caught:
        plot.check(tmp_path / name)
    given = repr(str(tmp_path / name))
    assert str(caught.value) == f"--plot must be a file that ends in .svg or .png, got {given}"


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """With the reason: the folder is not there, or is no folder, or the file is one."""
    (tmp_path / "folder.svg").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing" / "a.svg", tmp_path / "folder.svg", tmp_path / "file" / "a.svg"):
        with pytest.raises(plot.PlotError) as caught:
            plot.check(path)
        message = f"--plot must be a file that can be written, got {str(path)!r}: "
        assert str(caught.value).startswith(message)
        assert len(str(caught.value)) > len(message)


def test_a_missing_matplotlib_is_one_line_that_says_what_to_install(
    tmp_path: Path, with_matplotlib: Callable[[ModuleType | None], None]
) -> None:
    """docs/command.md: before anything is measured."""
    with_matplotlib(None)
    with pytest.raises(plot.PlotError) as caught:
        plot.check(tmp_path / "a.svg")
    assert str(caught.value) == "--plot needs matplotlib: pip install 'prefetch_generator[plot]'"
    assert list(tmp_path.iterdir()) == []


def test_the_command_does_not_import_matplotlib_unless_it_draws(tmp_path: Path) -> None:
    """It takes a second or so."""
    code = (
        "import sys\n"
        "from prefetch_generator._command import command_line\n"
        "command_line.main(['.', '--items', '1', '--consumer', '0'])\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    (tmp_path / "a").touch()
    python("-c", code, folder=tmp_path)
