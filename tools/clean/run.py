"""Run one notebook per stage where nothing is installed but what its first cell installs.

For each stage the shortest page (by ``seconds`` in ``book/launch.yml``) is run from its first
cell to its last in a new virtual environment. That holds ipykernel, which Colab and Jupyter
bring along, and then what the first cell installs: the project's own wheel, which stands for
the pinned revision through ``POSTTRAIN_SOURCE``, and packages held to the versions of
``requirements.lock`` by ``PIP_CONSTRAINT``. Results of earlier runs come from the usual store.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from book._ext.chapters.launch_table import LaunchTableError, read_launch_table
from posttrain.core.errors import PosttrainError
from posttrain.core.goals import Goal
from posttrain.core.storage.files import write_json_atomic
from tools.clean.environment import HIDDEN, Environment
from tools.notebooks.run import Run, run_with

ROOT = Path(__file__).parents[2]


class CleanRunError(PosttrainError):
    """A clean run could not begin."""


def shortest_pages(root: Path) -> list[str]:
    """Return the page of each stage that runs in the least time.

    A stage is a folder of the book that the package has too.

    Args:
        root: The folder of the repository.

    Returns:
        Pages such as ``book/sft/lora``, in the order of the launch table.

    Raises:
        CleanRunError: If the launch table is missing.
    """
    shortest: dict[str, str] = {}
    try:
        pages = read_launch_table(root)["pages"]
    except LaunchTableError as error:
        raise CleanRunError(str(error)) from error
    for page in pages:
        stage = page.rpartition("/")[0]
        if not (root / "code" / "posttrain" / stage.removeprefix("book/")).is_dir():
            continue
        best = shortest.setdefault(stage, page)
        if pages[page]["seconds"] < pages[best]["seconds"]:
            shortest[stage] = page
    return list(shortest.values())


def build_wheel(root: Path, folder: Path) -> Path:
    """Build the project's wheel without the network, from a copy that setuptools may write to.

    Args:
        root: The folder of ``pyproject.toml``.
        folder: Where the wheel goes.

    Returns:
        The wheel.

    Raises:
        CleanRunError: If it cannot be built.
    """
    copy = folder / "source"
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(root / "code", copy / "code", ignore=left_out)
    for file in (root / "pyproject.toml", *root.glob("README*"), *root.glob("LICENSE*")):
        shutil.copy2(file, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--wheel-dir", folder, copy], capture_output=True, text=True, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise CleanRunError(f"the wheel could not be built: {done.stderr.strip()[-500:]}")
    return wheels[-1]


def constraints(root: Path, folder: Path) -> Path:
    """Write the versions that pip must keep to: the lock's, and torch's.

    Args:
        root: The folder of the lock.
        folder: Where the file goes.

    Returns:
        The file.
    """
    asked = (root / "requirements.in").read_text(encoding="utf-8").splitlines()
    torch = [line.split("#")[0].strip() for line in asked if line.startswith("torch==")]
    lock = (root / "requirements.lock").read_text(encoding="utf-8")
    file = folder / "constraints.txt"
    file.write_text("\n".join([*torch, lock]), encoding="utf-8")
    return file


def environment(python: Path, wheel: Path, limits: Path, scratch: Path) -> dict[str, str]:
    """Return the variables for the kernel: this process's, without its own Python."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "POSTTRAIN_HOME" or not name.startswith(HIDDEN)
    }
    return kept | {
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PIP_CONSTRAINT": str(limits),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "POSTTRAIN_SOURCE": wheel.resolve().as_uri(),
        "POSTTRAIN_GOALS": str(scratch / "goals"),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }


def brought_along() -> list[str]:
    """Return what pip installs before the first cell runs, as a runtime such as Colab's has it.

    Returns:
        ipykernel; and torch, where ``TORCH`` names a build of it with options for pip, which
        the first cell does not know.
    """
    torch = shlex.split(os.environ.get("TORCH", ""))
    return ["ipykernel", *(torch if len(torch) > 1 else [])]


def new_python(folder: Path, limits: Path) -> Path:
    """Make a virtual environment that holds what a notebook's runtime brings along.

    Args:
        folder: Where it goes.
        limits: Versions to keep to.

    Returns:
        Its interpreter.

    Raises:
        PosttrainError: If that fails.
    """  # noqa: DOC502
    Environment(folder).pip("--constraint", str(limits), *brought_along())
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def run_notebook(file: Path, page: str, wheel: Path, limits: Path, scratch: Path) -> Run:
    """Run a notebook in a new environment.

    Args:
        file: The notebook.
        page: The page it was made from.
        wheel: The project's wheel.
        limits: Versions to keep to.
        scratch: An empty folder, for the environment and what the cells write.

    Returns:
        How it fared.
    """
    python = new_python(scratch / "env", limits)
    work = scratch / "work"
    work.mkdir()
    return run_with(python, environment(python, wheel, limits, scratch), file, page, work)


def clean_runs(
    root: Path, notebooks: Path, pages: list[str], wheel: Path | None = None
) -> list[Run]:
    """Run notebooks, each in an environment of its own.

    Args:
        root: The folder of the repository.
        notebooks: The folder that ``make notebooks`` has written.
        pages: The pages whose notebooks are run.
        wheel: The project's wheel; built here where it is left out.

    Returns:
        How each fared.

    Raises:
        CleanRunError: If a notebook is missing, or an environment cannot be made.
    """
    missing = [page for page in pages if not (notebooks / f"{page}.ipynb").is_file()]
    if missing:
        raise CleanRunError(
            f"{notebooks} has no notebook of {', '.join(missing)}: run make notebooks, "
            "and name pages as _toc.yml does"
        )
    runs = []
    with tempfile.TemporaryDirectory(prefix="posttrain-clean-") as name:
        folder = Path(name)
        limits = constraints(root, folder)
        wheel = wheel or build_wheel(root, folder)
        for number, page in enumerate(pages):
            with tempfile.TemporaryDirectory(prefix=f"{number}-", dir=folder) as scratch:
                file = notebooks / f"{page}.ipynb"
                runs.append(run_notebook(file, page, wheel, limits, Path(scratch)))
    return runs


def site_goals(root: Path) -> list[Goal]:
    """Run the shortest notebook of each stage, for ``make site-check``.

    Args:
        root: The folder of the repository; ``make notebooks`` has run there.

    Returns:
        The share of notebooks that ran to their end.
    """
    runs = clean_runs(root, root / "_build" / "notebooks", shortest_pages(root))
    record(root, runs)
    passed = sum(run.passed for run in runs) / len(runs)
    text = "notebooks, one per stage, that run where only their first cell installs"
    return [Goal("site.notebook_clean_run", text, passed, 1.0, "==", n=len(runs))]


def record(root: Path, runs: list[Run]) -> None:
    """Write and print how the notebooks fared."""
    write_json_atomic(root / "_build" / "clean_run.json", [asdict(run) for run in runs])
    for run in runs:
        print(json.dumps(asdict(run), ensure_ascii=False))


def main() -> None:
    """Run the shortest page of each stage, or the pages that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="*", help="by default the shortest of each stage")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "_build" / "notebooks")
    parser.add_argument("--wheel", type=Path, help="by default it is built here")
    asked = parser.parse_args()
    try:
        pages = asked.pages or shortest_pages(ROOT)
        runs = clean_runs(ROOT, asked.notebooks, pages, asked.wheel)
    except PosttrainError as error:
        sys.exit(f"clean_run: {error}")
    record(ROOT, runs)
    if not all(run.passed for run in runs):
        sys.exit(1)


if __name__ == "__main__":
    main()
