"""Every check of the project, one session each.

``nox -l`` lists them, ``nox -s lint types`` runs two.
Arguments after ``--`` go to the session's own tool: ``nox -s tests-3.12 -- -k close``.
"""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from pathlib import Path

import nox
from nox.command import CommandFailed

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14", "3.15", "3.13t", "3.14t", "3.15t"]
PYTHON = ("python", "-X", "dev", "-W", "error")

COVERAGE = "coverage[toml]>=7.10"
# Pinned: a newer checker that finds more is a change of its own, not somebody else's red build.
MYPY = "mypy==2.4.*"
PYRIGHT = "pyright[nodejs]==1.1.414"  # with its own Node, so that pip alone is enough
RUFF = "ruff==0.17.*"

# What users have around the package. Of torch the +cpu build or none: the plain one is gigabytes of GPU libraries.
PARTNERS = ["aiohttp", "django", "fastapi", "gevent", "grpcio", "gunicorn", "httpx", "ipykernel", "nbclient"]
PARTNERS += ["nbformat", "opencv-python-headless", "pandas", "psycopg[binary]", "pyarrow", "requests", "rich"]
PARTNERS += ["torch==2.13.0+cpu", "tqdm", "trio", "uvicorn"]
PARTNERS += ["keras", "lightning torch==2.13.0+cpu", "ray"]  # Lightning would bring the plain torch

WHEEL_BYTES = 95_000  # what is there, and some room; more means that something is in it that nobody needs

nox.needs_version = ">=2025.11.12"
nox.options.default_venv_backend = "venv"
nox.options.download_python = "never"  # one that is missing is skipped
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "tests", "wheel", "docs", "examples", "coverage"]


def find_pyenv_pythons() -> None:
    """Put every pyenv Python on PATH, before pyenv's shims.

    A shim exists for each version that is installed, but fails for those that are not also
    activated, so nox alone would not find them. Free-threaded builds come last: they bring a
    plain ``python3.13`` too.
    """
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = sorted(
        root.glob("versions/[0-9]*/bin"),
        key=lambda folder: (
            not folder.parent.name.endswith("t"),
            [int(number) for number in re.findall(r"\d+", folder.parent.name)],
        ),
        reverse=True,
    )
    os.environ["PATH"] = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])


find_pyenv_pythons()


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the suite on one Python."""
    session.install(".[test]")
    session.run(*PYTHON, "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the sdist, the wheel from it, check both, and run the suite against the installed wheel."""
    folder = Path(session.create_tmp()).resolve()
    for old in folder.glob("prefetch_generator-*"):
        old.unlink()
    session.install("build", "check-wheel-contents", "twine")
    session.run("python", "-m", "build", "--outdir", str(folder))
    (sdist,) = folder.glob("*.tar.gz")
    (built,) = folder.glob("*.whl")
    session.run("twine", "check", "--strict", str(sdist), str(built))
    session.run("check-wheel-contents", str(built))
    if built.stat().st_size >= WHEEL_BYTES:
        session.error(f"the wheel has {built.stat().st_size} bytes, and should have less than {WHEEL_BYTES}")

    with tarfile.open(sdist) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    for name in ("LICENSE", "README.md", "noxfile.py", "tests/documents/test_examples.py"):
        if name not in packed:
            session.error(f"{name} is missing from the sdist")
    with zipfile.ZipFile(built) as archive:
        shipped = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in shipped if name.endswith("/METADATA"))
    if "](" in metadata:
        session.error("PyPI would show a link that leads to a file of this project, which is not there")
    package = {
        path.relative_to("src").as_posix()
        for path in Path("src/prefetch_generator").rglob("*")
        if path.suffix in {".py", ".typed"}
    }
    if package != {name for name in shipped if ".dist-info/" not in name}:
        session.error(f"the wheel should have exactly {sorted(package)}, not {sorted(shipped)}")

    session.install(f"{built}[test]")
    session.run(
        "python",
        "-c",
        "import pathlib, sysconfig, prefetch_generator as package;"
        "site = pathlib.Path(sysconfig.get_path('purelib')).resolve();"
        "found = pathlib.Path(package.__file__).resolve();"
        "assert found.is_relative_to(site), f'{found} is not the installed one';"
        "print(f'testing {found.parent}')",
    )
    session.run("prefetch-generator", "--items", "3", silent=True)
    session.run(*PYTHON, "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(RUFF)
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the code, and of what a user sees of it."""
    session.install(".[test]", MYPY, PYRIGHT, COVERAGE)
    session.run("mypy", *session.posargs)
    session.run("pyright", "--warnings")
    session.run("pyright", "--verifytypes", "prefetch_generator", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into build/docs; a warning, such as a link that leads nowhere, is an error."""
    session.install(".[docs]")
    session.run(
        "sphinx-build", "-W", "--keep-going", "-E", "-b", "html", "docs", str(Path("build", "docs")), *session.posargs
    )


@nox.session
def examples(session: nox.Session) -> None:
    """Run each example; arguments are further requirements, such as torch's CPU build."""
    session.install(".", *session.posargs)
    for script in sorted(Path("examples").glob("*.py")):
        session.run("python", "-X", "dev", str(script))


@nox.session
def integrations(session: nox.Session) -> None:
    """Run the package together with those that its users have around it, as far as they are to be had."""
    session.install(".[test]")
    missing = []
    for requirement in PARTNERS:
        try:
            session.install(*requirement.split())
        except CommandFailed:
            missing.append(requirement)
    session.run("python", "-m", "pip", "list")
    for requirement in missing:
        session.warn(f"NOT TESTED: {requirement} is not to be had here; what needs it only skips")
    # Some of the examples need one of them, and so do arrays that cross from a process.
    tests = ["tests/integrations", "tests/documents/test_examples.py"]
    tests += [f"tests/documents/test_{it}.py" for it in ("recipes", "recipe_notebooks", "recipe_servers")]
    tests += ["tests/contract/test_i_buffers.py", "tests/contract/test_i_resources.py"]
    session.run(*PYTHON, "-m", "pytest", "-rs", *tests, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the suite and demand that it takes every branch of the package."""
    # Editable, so that the report names the files in src/; gevent, for the lines that run only beside it.
    session.install("-e", ".[test]", COVERAGE, "gevent")
    session.run("coverage", "erase")
    # Without what runs a rewritten copy of the package, or starts a thousand processes: both take minutes when traced,
    # and cover nothing more. Nor what counts memory, of which coverage needs some too; signals at random in a process
    # of its own, which coverage's tracer, that has a lock, does not always bear; and sub-interpreters, which coverage
    # cannot be imported in.
    names = ("leaks_nothing", "ctrl_c_under_asyncio_run", "sub_interpreter")
    untraced = ["--ignore=tests/verification", "--ignore=tests/interrupts/test_processes.py"]
    untraced += ["-k", " and ".join(f"not {name}" for name in names)]
    # One after the other: a child that is killed because the machine is busy does not report what it has run.
    session.run(*PYTHON, "-m", "coverage", "run", "-m", "pytest", *untraced, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


# The long ones, run by name; what they found last stands in verification/README.md and docs/benchmarks.md.


@nox.session
def explore(session: nox.Session) -> None:
    """Explore the channel's schedules far beyond what the suite does: up to half an hour."""
    session.install(".[test]")
    tests = ["tests/verification/test_explorer.py", "tests/verification/test_seeded_bugs.py"]
    session.run(*PYTHON, "-m", "pytest", *tests, *session.posargs, env={"PREFETCH_EXPLORE": "1"})


@nox.session
def soak(session: nox.Session) -> None:
    """Use everything at once, at random, for two minutes or ``-- --minutes N``."""
    session.install(".[test]")
    session.run(*PYTHON, "-m", "verification.soak", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, and rewrite the tables and the picture in docs/; ``-- --quick`` for a first impression."""
    peers = str(Path("build", "peers"))
    session.install(".", "numpy")
    session.install("--target", peers, "-r", "benchmarks/requirements.txt")
    session.run("python", "-m", "benchmarks", "--peers", peers, *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Break the package in one place at a time: a test has to fail. Two hours or so; ``-- --log FILE`` resumes."""
    session.install(".[test]", "cosmic-ray==8.7.*", COVERAGE)
    session.run("python", "-m", "verification.mutants", *session.posargs)
