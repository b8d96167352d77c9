"""The first cell of a notebook: what it installs, and what it says of the machine."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from book._ext.chapters.launch_table import LaunchTableError, read_launch_table
from tools.notebooks.cells import Code
from tools.notebooks.inline import REVISION, NotebookError

HERE = Path(__file__).parent
GPU = """
import shutil

if shutil.which("nvidia-smi"):  # for the cells that use a GPU
    PACKAGES += {packages}
    ALONE += {alone}
"""
TITLE = "Run this cell first: it installs what the page needs"
SETUP = """\
import importlib
import importlib.metadata
import os
import subprocess
import sys

SOURCE = os.environ.get("POSTTRAIN_SOURCE", "git+{repository}@{revision}")
PACKAGES = {packages}
# Without what they ask for: it is large or hard to build, and not used here.
ALONE = {alone}
{gpu}

def _absent(requirement):
    name, _, version = requirement.partition("==")
    try:
        return importlib.metadata.version(name) != (version or importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return True


def _install(requirements, *options):
    if requirements:
        command = [sys.executable, "-m", "pip", "install", "--quiet", *options, *requirements]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"pip could not install the packages:\\n{{done.stderr[-2000:]}}")


_package = [f"posttrain @ {{SOURCE}}"] if _absent("posttrain") else []
_install(_package + list(filter(_absent, PACKAGES)))
_install(list(filter(_absent, ALONE)), "--no-deps")
importlib.invalidate_caches()

{stand_in}

# Before PyTorch is imported: its threads sleep while they wait.
from posttrain.core.threads import calm_threads

calm_threads()

from posttrain.core.doctor import examine

print(*examine(), sep="\\n")
"""


def head_of(root: Path) -> str:
    """Return the commit of the checkout whose top folder this is."""
    command = ["git", "rev-parse", "--show-toplevel", "HEAD"]
    try:
        asked = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        top, commit = asked.stdout.splitlines()
        if Path(top).samefile(root):
            return commit
    except (OSError, subprocess.CalledProcessError):
        pass
    raise NotebookError(
        "git is missing, or this is not the top folder of a git checkout with a commit: "
        "name the commit with --revision"
    )


def pinned(names: Iterable[str], table: dict[str, Any], root: Path) -> list[str]:
    """Add to names the versions of ``requirements.lock``, but for what is taken as found.

    Args:
        names: Names of packages.
        table: The launch table.
        root: The folder of ``requirements.lock``.

    Returns:
        Requirements as pip reads them.

    Raises:
        NotebookError: If the lock lacks a package.
    """
    lock = (root / "requirements.lock").read_text(encoding="utf-8")
    versions = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))
    if absent := sorted({*names} - versions.keys()):
        raise NotebookError(
            f"book/launch.yml installs {', '.join(absent)}, which requirements.lock lacks: "
            "add it to requirements.in and run make lock, or mend the name"
        )
    found = table.get("as_found", ())
    return [name if name in found else f"{name}=={versions[name]}" for name in names]


def requirements_of(docname: str, table: dict[str, Any], part: str) -> list[str]:
    """Return what a page installs: what all pages need, what its folder needs, its own.

    Args:
        docname: The page, such as ``book/sft/lora``.
        table: The launch table.
        part: ``packages``, or ``alone`` for those without their own requirements; with
            ``gpu_`` before it, what is installed where there is a GPU.

    Returns:
        Names of packages in alphabetical order.
    """
    folder, _, _ = docname.rpartition("/")
    entries = (table["install"].get(key, {}) for key in ("all", folder, docname))
    return sorted({name for entry in entries for name in entry.get(part, ())})


def stand_in() -> str:
    """Return the code of the stand-in for `myst_nb.glue`, without its introduction."""
    text = (HERE / "glue_stand_in.py").read_text(encoding="utf-8")
    introduction, _, code = text.partition('"""\n\n')
    sentence = introduction.removeprefix('"""').splitlines()[0]
    return f"# {sentence}\n{code.removeprefix('import sys').strip()}"


def first_cell(docname: str, repository: str, root: Path) -> Code:
    """Make the first cell of a page.

    Args:
        docname: The page.
        repository: The repository's address.
        root: The repository's folder, for the versions and the launch table.

    Returns:
        The cell, with a place for the revision.

    Raises:
        NotebookError: If the launch table is missing, or names what the lock lacks.
    """
    try:
        table = read_launch_table(root)
    except LaunchTableError as error:
        raise NotebookError(str(error)) from error
    packages, alone, gpu_packages, gpu_alone = (
        pinned(requirements_of(docname, table, part), table, root)
        for part in ("packages", "alone", "gpu_packages", "gpu_alone")
    )
    gpu = GPU.format(packages=_indented(gpu_packages), alone=_indented(gpu_alone))
    source = SETUP.format(
        repository=repository,
        revision=REVISION,
        packages=_list(packages),
        alone=_list(alone),
        gpu=gpu if gpu_packages or gpu_alone else "",
        stand_in=stand_in(),
    )
    return Code(source.rstrip(), title=TITLE)


def _list(names: list[str]) -> str:
    quoted = ", ".join(f'"{name}"' for name in names)
    if len(quoted) < 70:
        return f"[{quoted}]"
    return "[\n" + "".join(f'    "{name}",\n' for name in names) + "]"


def _indented(names: list[str]) -> str:
    return _list(names).replace("\n", "\n    ")
