"""The key of a page: a hash of all that the outputs of its cells depend on.

A page whose key is unchanged need not be run again, and a record of a page is of today's page
if the keys agree. The key is made of the cells' code, of every module of the package that they
import, of the locked versions, of recorded results where the page reads them and, for a build,
of the processor and of the environment variables that change results. Prose, tags, docstrings
and comments of modules do not count; a comment in a cell does, as it is shown.

Chapter: start/how_this_book_works.
"""

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.core.machine import describe_cpu, has_native_bf16
from posttrain.core.storage.code_hash import PACKAGE, module_hashes, modules_in

CELL = re.compile(
    r"^(?P<fence>`{3,}|~{3,})\{code-cell\}[^\n]*\n(?P<text>.*?)^(?P=fence)[`~]*[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
OPTIONS = re.compile(r"\A(?:---\n.*?^---[ \t]*\n|(?:[ \t]*:[\w-]+:[^\n]*\n)+)", re.M | re.S)
RUN_TAGS = re.compile(r"\b(?:skip-execution|raises-exception)\b")
MAGIC = re.compile(r"^[ \t]*[%!].*", re.MULTILINE)
RECORDS = "core.records"
OWN_VARIABLES = "POSTTRAIN_"
PLACES = frozenset({"POSTTRAIN_HOME", "POSTTRAIN_DATA", "POSTTRAIN_GOALS", "POSTTRAIN_SOURCE"})
"""Variables of the project that only say where something lies; all others change results."""
OTHER_VARIABLES = (
    "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "OMP_NUM_THREADS",
)  # fmt: skip
"""Environment variables of libraries that change what cells compute."""


@dataclass(frozen=True)
class PageKey:
    """A page's key and what it was made of.

    Attributes:
        key: SHA-256 of `parts`, in hexadecimal digits.
        parts: ``cells``, a hash of each cell; ``modules`` and ``records``, a hash by name;
            ``lock``, a hash; ``processor``, as given. JSON can hold it.
    """

    key: str
    parts: dict[str, Any]

    @property
    def has_cells(self) -> bool:
        """Whether the page has anything to run."""
        return bool(self.parts["cells"])

    def differs_in(self, older: Mapping[str, Any]) -> list[str]:
        """Say what has changed since another key of the page.

        Args:
            older: The parts of that key.

        Returns:
            Such as ``["cells", "posttrain.sft.adapters.lora", "lock"]``; empty for equal keys.
        """
        changed = []
        for part, now in self.parts.items():
            before = older.get(part)
            if isinstance(now, dict) and isinstance(before, dict):
                names = sorted(now.keys() | before.keys())
                changed += [name for name in names if now.get(name) != before.get(name)]
            elif now != before:
                changed.append(part)
        return changed


def page_key(
    page: Path,
    lock: Path,
    processor: Mapping[str, str] | None = None,
    *,
    package: str = PACKAGE,
) -> PageKey:
    """Compute the key of a page from what lies on the disk; nothing is run.

    Where the cells, or what they import, import ``posttrain.core.records``, the recorded
    results of the page's stage count too: for ``book/sft/lora.md``, ``book/results/sft``.

    Args:
        page: The page's MyST file.
        lock: The file of locked versions.
        processor: What `describe_processor` returns, for the key of a build; None for a key
            that is the same on all machines, such as that of a record.
        package: The package whose modules count.

    Returns:
        The key.

    Raises:
        FileNotFoundError: If the page or the lock is missing.
    """  # noqa: DOC502
    cells = cells_of(Path(page).read_text(encoding="utf-8"))
    modules = module_hashes(_modules(cells, package), named=True)
    results = Path(page).resolve().parents[1] / "results" / Path(page).resolve().parent.name
    parts: dict[str, Any] = {
        "cells": [_hash(cell.encode()) for cell in cells],
        "modules": modules,
        "lock": _hash(_without_comments(Path(lock).read_text(encoding="utf-8")).encode()),
        "records": _results(results, labels=processor is not None)
        if f"{package}.{RECORDS}" in modules
        else {},
        "processor": None if processor is None else dict(processor),
    }
    return PageKey(_hash(json.dumps(parts, sort_keys=True).encode()), parts)


def cells_of(text: str) -> list[str]:
    """Return the code of a page's cells.

    Args:
        text: The page in MyST.

    Returns:
        The code of each cell without its options. A tag that changes what is run, such as
        ``skip-execution``, stands before it.
    """
    cells = []
    for match in CELL.finditer(text):
        options = OPTIONS.match(match["text"])
        head = options[0] if options else ""
        tags = sorted(set(RUN_TAGS.findall(head)))
        cells.append("".join(f"# {tag}\n" for tag in tags) + match["text"][len(head) :].strip())
    return cells


def describe_processor() -> dict[str, str]:
    """Describe what results may depend on besides code and versions.

    Returns:
        The processor's name, the instruction set and the number of threads that PyTorch uses,
        whether bf16 is native, Python's version, and the environment variables that change
        results, where they are set.
    """
    import torch

    own = (name for name in sorted(os.environ) if name.startswith(OWN_VARIABLES))
    variables = [*(name for name in own if name not in PLACES), *OTHER_VARIABLES]
    return {
        "name": describe_cpu(),
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "native bf16": str(has_native_bf16()),
        "python": platform.python_version(),
        **{name: os.environ[name] for name in variables if os.environ.get(name)},
    }


def _modules(cells: list[str], package: str) -> list[str]:
    """Return the modules that cells import; all of them where a cell may reach any."""
    found: set[str] = set()
    for cell in cells:
        magics = " ".join(MAGIC.findall(cell))
        try:
            found.update(modules_in(MAGIC.sub("pass", cell), package))
            reaches_all = re.search(rf"\b{package}\b", magics) is not None
            # The command line, started from a cell: ["posttrain", "doctor"].
            reaches_all |= re.search(rf"[\"']{package}[\"' ]", cell) is not None
        except (SyntaxError, ValueError):
            reaches_all = re.search(rf"\b{package}\b", cell) is not None
        if reaches_all:
            found.update(_all_modules(package))
    return sorted(found)


def _all_modules(package: str) -> list[str]:
    """Return all modules of a package, without importing it."""
    import importlib.util

    spec = importlib.util.find_spec(package)
    names = []
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(location).rglob("*.py"):
            parts = path.relative_to(location).with_suffix("").parts
            if parts[-1] != "__init__":
                names.append(".".join((package, *parts)))
    return names


def _results(folder: Path, *, labels: bool) -> dict[str, str]:
    """Hash the records in a folder, if it exists: what was measured, with `labels` all of it.

    What a page says of a record beside its numbers, such as whether its code has changed since,
    depends on more than the outcomes.
    """
    return {
        file.relative_to(folder).as_posix(): _hash(_result(file.read_bytes(), labels))
        for file in sorted(folder.rglob("*.json"))
    }


def _result(content: bytes, labels: bool) -> bytes:
    try:
        record = json.loads(content)
        measured = {name: record[name] for name in ("config", "outcomes", "summary")}
    except (ValueError, TypeError, KeyError):  # no record: all of it counts
        return content
    if not labels:
        return json.dumps(measured, sort_keys=True).encode()
    try:
        code = module_hashes([record["module"]])
    except (ValueError, KeyError):  # moved or removed
        code = {}
    return content + json.dumps(code).encode()


def _without_comments(lock: str) -> str:
    lines = (line.partition(" #")[0].strip() for line in lock.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
