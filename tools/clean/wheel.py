"""Build the wheel and use it as a stranger would: alone, in a clean environment.

``python -m tools.clean.wheel`` takes a minute or two: it installs the package with its
dependencies, torch among them. ``TORCH`` names what to install as torch, as for
``make install``.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from posttrain import __version__
from posttrain.core.errors import PosttrainError
from posttrain.core.goals import Goal
from tools.clean.environment import Environment

ROOT = Path(__file__).resolve().parents[2]
BUILDERS = ("build==1.6.1", "twine==7.0.0")
COMMANDS = ("pretrain", "sft", "record", "goals", "doctor", "artifacts")
BOOK_TOOLS = ("jupyter_book", "sphinx", "transformers", "matplotlib", "pytest")
HEAVY = ("torch", "numpy", "transformers", "matplotlib")
IMPORT_LIMIT = 0.3  # seconds
SHARED = "share/posttrain/results"
DATA = re.compile(r"^[^/]+\.data/data/")  # of a wheel: what goes beside Python's own files
LEFT_OUT = (".*", "_build", "build", "dist", "__pycache__", "*.egg-info")

TIME_IMPORT = """
import time
start = time.perf_counter()
import posttrain
print(time.perf_counter() - start)
"""
LOADED = """
import sys, posttrain, posttrain.cli
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
FOUND = """
import importlib.util, sys
print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name)])
"""
PLACE = """
import pathlib, posttrain
print(posttrain.__version__, pathlib.Path(posttrain.__file__).with_name("py.typed").is_file())
"""
RECORD = """
from posttrain.core.records import read_record
print(read_record("pretraining", "explosion").label)
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What should hold.
        passed: Whether it does.
        seen: What was seen, in a few words.
    """

    name: str
    passed: bool
    seen: str = ""


def torch_requirement(root: Path) -> list[str]:
    """Return what to install as torch.

    Args:
        root: The repository.

    Returns:
        The words of the variable ``TORCH``, or the pin of ``requirements.in``.

    Raises:
        PosttrainError: If neither names it.
    """
    if wanted := os.environ.get("TORCH"):
        return shlex.split(wanted)
    text = (root / "requirements.in").read_text(encoding="utf-8")
    pins: list[str] = re.findall(r"^torch==[\w.]+", text, re.MULTILINE)
    if len(pins) != 1:
        raise PosttrainError("requirements.in must pin torch on one line, as torch==1.2.3")
    return pins


def build(root: Path, builder: Environment, folder: Path) -> tuple[Path, Check]:
    """Build from a copy of the source and let twine look at the result.

    Args:
        root: The repository.
        builder: Where build and twine are installed.
        folder: An empty place for the copy and for what is built.

    Returns:
        The wheel, and what twine says.

    Raises:
        PosttrainError: If it cannot be built.
    """
    shutil.copytree(root, folder / "source", ignore=shutil.ignore_patterns(*LEFT_OUT))
    out = folder / "dist"
    words = ("python", "-m", "build", "--outdir", str(out), str(folder / "source"))
    built = builder.command(*words)
    if built.returncode:
        printed = built.stdout + built.stderr
        raise PosttrainError(f"python -m build failed:\n{printed[-2000:]}")
    files = [str(path) for path in sorted(out.iterdir())]
    looked = builder.command("python", "-m", "twine", "check", "--strict", *files)
    (wheel,) = out.glob("*.whl")
    seen = "" if looked.returncode == 0 else last_line(looked)
    return wheel, Check("twine accepts sdist and wheel", looked.returncode == 0, seen)


def contents_check(wheel: Path, package: Path, results: Path | None = None) -> Check:
    """Compare a wheel with the source: modules, data rows, ``py.typed``, records, nothing else.

    Args:
        wheel: The wheel.
        package: The source of `posttrain`.
        results: The folder of the recorded runs, where there is one.

    Returns:
        The check; it names up to three files that are missing or too many.
    """
    wanted = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and (path.suffix in {".py", ".jsonl"} or path.name == "py.typed")
    }
    if results is not None:
        stages = {path.name for path in package.iterdir() if path.is_dir()}
        files = [path for path in results.glob("*/*.json") if path.parent.name in stages]
        wanted |= {f"{SHARED}/{path.relative_to(results).as_posix()}" for path in files}
    with zipfile.ZipFile(wheel) as packed:
        names = (DATA.sub("", name) for name in packed.namelist())
        found = {name for name in names if ".dist-info/" not in name}
    odd = [f"missing: {n}" for n in sorted(wanted - found)]
    odd += [f"too many: {n}" for n in sorted(found - wanted)]
    typed = f"{package.name}/py.typed"
    if typed not in wanted:
        odd.insert(0, f"no {typed} in the source")
    return Check(
        "the wheel holds the package and nothing else",
        not odd,
        ", ".join(odd[:3]) or f"{len(found)} files",
    )


def use(reader: Environment) -> Iterator[Check]:
    """Use the installed package.

    Args:
        reader: Where it is installed.

    Yields:
        A check after the other.
    """
    done = reader.command("python", "-m", "pip", "check")
    yield Check("its dependencies agree", done.returncode == 0, done.stdout.strip())
    done = reader.command("python", "-c", FOUND, *BOOK_TOOLS)
    absent = done.returncode == 0 and not done.stdout.strip()
    yield Check("the book's tools are absent", absent, last_line(done))
    done = reader.command("python", "-c", PLACE)
    yield Check(
        "its version and py.typed are there",
        done.stdout.split() == [__version__, "True"],
        last_line(done),
    )
    done = reader.command("python", "-c", RECORD)
    found = done.stdout.startswith("Recorded run:")
    yield Check("a recorded run of the book is found", found, last_line(done))
    loaded = reader.command("python", "-c", LOADED)
    heavy = sorted(set(HEAVY) & set(loaded.stdout.split()))
    light = bool(loaded.stdout) and not heavy
    yield Check("importing it loads no heavy library", light, " ".join(heavy))
    times = [reader.command("python", "-c", TIME_IMPORT).stdout for _ in range(5)]
    seconds = min((float(text) for text in times if text), default=float("inf"))
    yield Check(
        f"import posttrain takes less than {IMPORT_LIMIT} s",
        seconds < IMPORT_LIMIT,
        f"{seconds:.4f} s, best of {len(times)}",
    )
    done = reader.command("posttrain", "--version")
    right = done.stdout == f"posttrain {__version__}\n"
    yield Check("posttrain --version", right, last_line(done))
    done = reader.command("posttrain", "--help")
    lacking = [name for name in COMMANDS if not re.search(rf"\b{name}\b", done.stdout)]
    yield Check("posttrain --help", done.returncode == 0 and not lacking, " ".join(lacking))
    done = reader.command("posttrain", "doctor")
    named = "preset cpu" in done.stdout and "Optional packages that are missing" in done.stdout
    yield Check("posttrain doctor", done.returncode == 0 and named, last_line(done)[:60])


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that a program printed."""
    return next(reversed((done.stdout + done.stderr).strip().splitlines()), "")


def wheel_checks(root: Path) -> list[Check]:
    """Build, install and use the wheel, and print each check.

    Args:
        root: The repository.

    Returns:
        The checks.
    """
    checks: list[Check] = []
    start = time.monotonic()

    def note(check: Check) -> None:
        checks.append(check)
        seen = f": {check.seen}" if check.seen else ""
        print(f"{'ok  ' if check.passed else 'FAIL'} {check.name}{seen}", flush=True)

    with tempfile.TemporaryDirectory(prefix="posttrain-wheel-") as name:
        folder = Path(name)
        builder = Environment(folder / "builder")
        builder.pip(*BUILDERS)
        wheel, twine = build(root, builder, folder)
        note(twine)
        note(contents_check(wheel, root / "code" / "posttrain", root / "book" / "results"))
        reader = Environment(folder / "reader")
        reader.pip(*torch_requirement(root))
        reader.pip("--constraint", str(root / "requirements.lock"), str(wheel))
        for check in use(reader):
            note(check)
    print(f"{sum(c.passed for c in checks)} of {len(checks)} checks of the wheel passed, "
          f"{time.monotonic() - start:.0f} s")  # fmt: skip
    return checks


def goals_of(checks: list[Check]) -> list[Goal]:
    """Return the goal that the checks stand for."""
    return [
        Goal(
            "site.wheel_clean_install",
            "checks passed by the wheel, alone in a clean environment",
            sum(check.passed for check in checks),
            len(checks),
            "==",
            n=len(checks),
        )
    ]


def site_goals(root: Path = ROOT) -> list[Goal]:
    """Check the wheel for ``make site-check``.

    Args:
        root: The repository.

    Returns:
        The goal `site.wheel_clean_install`.
    """
    return goals_of(wheel_checks(root))


def main(arguments: list[str] | None = None) -> int:
    """Check the wheel; see the module's docstring.

    Args:
        arguments: Of the command line; None takes the program's own.

    Returns:
        0 where every check passed, 1 where one did not, 2 where it could not be tried.
    """
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    try:
        return 0 if all(goal.passed for goal in site_goals()) else 1
    except PosttrainError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
