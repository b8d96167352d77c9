"""Records of perturbed rebuilds: under which processors, formats and seeds a claim held.

``make robustness`` runs a chapter again with less of the processor, another number format or
other seeds, and writes a file for it, ``book/results/robustness/<stage>/<chapter>.json``. This
module reads them, and says whether a record is older than its page.

Chapter: start/how_this_book_works.
"""

import json
import os
import sys
import tempfile
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.core.machine import run_record
from posttrain.core.page_key import page_key

_RUN = {"date": str, "seconds": int | float, "machine": dict, "rows": list, "errors": list}
_ROW = {"id": str, "kind": str, "passed": bool}


@dataclass(frozen=True)
class Held:
    """How one goal or claim fared in the rebuilds.

    Attributes:
        id: The goal's or claim's id.
        kind: ``goal`` or ``claim``.
        held: In how many rebuilds it held.
        of: How many rebuilds there are. One that did not reach it counts, as one in which it
            did not hold.
        failed_in: Names of the rebuilds in which it did not hold.
        missed_aim: Whether the page documents attempts that did not reach it.
    """

    id: str
    kind: str
    held: int
    of: int
    failed_in: tuple[str, ...] = ()
    missed_aim: bool = False


@dataclass(frozen=True)
class RobustnessRecord:
    """The rebuilds of one chapter.

    Attributes:
        chapter: Its path below ``book/``, such as ``sft/lora``.
        page_key: Key of the page that was run, see `key_of_page`.
        runs: By name, what each rebuild found: ``commit``, ``date``, ``seconds``, ``machine``,
            ``rows`` (``id``, ``kind``, ``value``, ``passed``) and ``errors``.
    """

    chapter: str
    page_key: str
    runs: Mapping[str, Mapping[str, Any]]

    def summary(self) -> dict[str, Held]:
        """Count for each goal and claim in how many rebuilds it held.

        Returns:
            The counts by id, in the order in which ids first occur.
        """
        rows: dict[str, dict[str, Any]] = {}
        for name, run in self.runs.items():
            for row in run["rows"]:
                rows.setdefault(row["id"], {})[name] = row
        found = {}
        for goal_id, by_run in rows.items():
            held = {name for name, row in by_run.items() if row["passed"]}
            found[goal_id] = Held(
                id=goal_id,
                kind=next((r["kind"] for r in by_run.values() if r["kind"]), ""),
                held=len(held),
                of=len(self.runs),
                failed_in=tuple(name for name in self.runs if name not in held),
                missed_aim=any(row.get("missed_aim", False) for row in by_run.values()),
            )
        return found


def robustness_file(folder: Path, chapter: str) -> Path:
    """Return the file of a chapter's record.

    Args:
        folder: The folder of all records, ``book/results/robustness``.
        chapter: The chapter's path below ``book/``.

    Returns:
        A path that need not exist.
    """
    return Path(folder) / f"{chapter}.json"


def read_record(file: Path, chapter: str) -> RobustnessRecord:
    """Read the record of one chapter.

    Args:
        file: An existing file.
        chapter: The chapter that it must belong to.

    Returns:
        The record.

    Raises:
        ValueError: If it holds no record, or that of another chapter. The message says what
            is wrong.
    """
    remedy = "remove it and run make robustness"
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {remedy}") from error
    if not isinstance(read, dict) or not isinstance(read.get("runs"), dict):
        raise ValueError(f"{file} holds no runs: {remedy}")
    if read.get("chapter") != chapter:
        raise ValueError(f"{file} is the record of {read.get('chapter')!r}: {remedy}")
    if not isinstance(read.get("page_key"), str):
        raise ValueError(f"{file} does not say which page was run (page_key): {remedy}")
    for name, run in read["runs"].items():
        wrong = _wrong_field(run, _RUN)
        for row in () if wrong else run["rows"]:
            wrong = wrong or _wrong_field(row, _ROW)
        if wrong:
            raise ValueError(f"{file}: the run {name!r} has no valid {wrong!r}: {remedy}")
    return RobustnessRecord(chapter, read["page_key"], read["runs"])


def _wrong_field(value: Any, fields: Mapping[str, Any]) -> str:
    """Return the name of the first field that is missing or of another type, or nothing."""
    if not isinstance(value, dict):
        return "rows"
    return next((k for k, kind in fields.items() if not isinstance(value.get(k), kind)), "")


def read_robustness(folder: Path) -> tuple[dict[str, RobustnessRecord], list[str]]:
    """Read the records of all chapters.

    Args:
        folder: ``book/results/robustness``; it may be missing.

    Returns:
        The records by chapter, and one sentence on each file that is malformed.
    """
    records, faults = {}, []
    for file in sorted(Path(folder).rglob("[!.]*.json")):
        chapter = file.relative_to(folder).with_suffix("").as_posix()
        try:
            records[chapter] = read_record(file, chapter)
        except ValueError as error:
            faults.append(str(error))
    return records, faults


def key_of_page(page: Path, lock: Path) -> str:
    """Return a page's key: it changes with what its cells compute, not with the machine.

    Args:
        page: The chapter's file.
        lock: ``requirements.lock``.

    Returns:
        Hexadecimal digits.

    Raises:
        FileNotFoundError: If one of the files is missing.
    """  # noqa: DOC502
    return page_key(page, lock).key


def stale(record: RobustnessRecord, root: Path) -> bool:
    """Say whether a record is older than its page.

    Args:
        record: The record of a chapter.
        root: The folder of the repository.

    Returns:
        True where the page, what it imports or the locked versions have changed since, or where
        the page is no more.
    """
    page, lock = root / "book" / f"{record.chapter}.md", root / "requirements.lock"
    return not page.is_file() or key_of_page(page, lock) != record.page_key


def held_text(
    goal_id: str, records: Mapping[str, RobustnessRecord], older: Container[str] = ()
) -> str:
    """Write in how many rebuilds a goal or claim held, for the scoreboard.

    Args:
        goal_id: Its id.
        records: What `read_robustness` found.
        older: The chapters whose record is stale.

    Returns:
        Such as ``2 of 2 rebuilds``, ``older than the page`` or ``not tried``.
    """
    for chapter, record in records.items():
        held = record.summary().get(goal_id)
        if held is not None:
            if chapter in older:
                return "older than the page"
            return f"{held.held} of {held.of} rebuild{'s' if held.of > 1 else ''}"
    return "not tried"


def environment_in_force() -> dict[str, Any]:
    """Say what the libraries of this process obey, asked of the libraries where that can be.

    Returns:
        What `posttrain.core.machine.run_record` returns; beside it ``aten``, the instruction
        set of PyTorch's own kernels, ``onednn``, what oneDNN says it uses (empty where it says
        nothing), and ``package``, the folder of the package that was imported.
    """
    import torch

    import posttrain

    return {
        **run_record(),
        "aten": torch.backends.cpu.get_cpu_capability(),
        "onednn": _onednn_says(),
        "package": str(Path(str(posttrain.__file__)).parent),
    }


def _onednn_says() -> str:
    """Let oneDNN work once while it is told to say what it does, and read that."""
    import torch

    if not torch.backends.mkldnn.is_available():
        return ""
    verbose: Any = torch.backends.mkldnn.verbose
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        own = os.dup(1)
        os.dup2(said.fileno(), 1)  # oneDNN writes to the process's own output
        try:
            with verbose(torch.backends.mkldnn.VERBOSE_ON):
                torch.ones(64, 64).to_mkldnn()
        finally:
            os.dup2(own, 1)
            os.close(own)
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    return next((line.partition("isa:")[2] for line in lines if "cpu,isa:" in line), "")
