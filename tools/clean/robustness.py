"""Run chapters again under other conditions, and record which goals and claims held.

``make robustness [CHAPTERS=book/sft/lora,…] [RUNS=avx2-fp32,seed-1000,…]``. Each run has a
store and a folder of rows of its own in ``_build/robustness/<run>``, and a fresh kernel for
each chapter. Before the first cell the kernel is asked whether the run's limits are in force.
The outcome goes to ``book/results/robustness/<stage>/<chapter>.json``.
"""

import argparse
import ast
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml

import posttrain
from posttrain.core.errors import PosttrainError
from posttrain.core.goals import collect_goals
from posttrain.core.machine import INSTRUCTION_SETS, describe_cpu, instruction_set
from posttrain.core.robustness import (
    RobustnessRecord,
    key_of_page,
    read_record,
    robustness_file,
)
from posttrain.core.storage.files import write_json_atomic
from posttrain.core.storage.paths import home
from posttrain.core.threads import calm_threads

ROOT = Path(__file__).resolve().parents[2]
LONGEST_CELL = 1800  # seconds, as in _config.yml
GOAL_ID = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
CLAIM_ROLE = re.compile(r"\{claim\}`(?:[^`<]*<)?([a-z][a-z0-9-]*)>?`")
PROBE = """\
import json
from posttrain.core.robustness import environment_in_force
print(json.dumps(environment_in_force()))
"""


class RobustnessError(PosttrainError):
    """A run cannot be made as it was asked for."""


@dataclass(frozen=True)
class Conditions:
    """What a run changes, and how to see in the kernel that it did.

    Attributes:
        variables: Environment variables.
        wanted: Values that `environment_in_force` must report.
        onednn: What oneDNN must not say that it uses.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    wanted: Mapping[str, Any] = field(default_factory=dict)
    onednn: str = ""


RUNS = {
    "native": Conditions(),
    "avx2-fp32": Conditions(
        {
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",  # products in float32; MKL heeds it on Intel
            "POSTTRAIN_DTYPE": "float32",
        },
        {"instruction_set": "AVX2", "aten": "AVX2", "dtype": "float32"},
        "AVX-512",
    ),
    "avx512": Conditions(
        {
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
            "ATEN_CPU_CAPABILITY": "avx512",
            "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        },
        {"instruction_set": "AVX-512", "aten": "AVX512", "dtype": "float32"},
        "bfloat16",
    ),
    "one-thread": Conditions({"OMP_NUM_THREADS": "1"}, {"threads": 1}),
    "seed-1000": Conditions({"POSTTRAIN_SEED": "1000"}, {"base_seed": 1000}),
    "seed-2000": Conditions({"POSTTRAIN_SEED": "2000"}, {"base_seed": 2000}),
}
CHANGED = {name for conditions in RUNS.values() for name in conditions.variables}


def chapters_of(root: Path) -> list[str]:
    """Return the chapters that have goals: all pages of the contents that check some.

    Args:
        root: The folder of the repository.

    Returns:
        Paths below ``book/``, in the book's order.
    """
    found = []
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    for part in toc.get("parts", [toc]):
        for entry in part.get("chapters", ()):
            page = root / f"{entry.get('file', '')}.md"
            if page.is_file() and re.search(
                r"^`{3,}\{code-cell\}.*^check_goals\(", page.read_text("utf-8"), re.M | re.S
            ):
                found.append(str(entry["file"]).removeprefix("book/"))
    return found


def chosen(asked: str, known: Sequence[str], what: str) -> list[str]:
    """Read a list that was given with commas.

    Args:
        asked: The list; empty for all that are known.
        known: What may be asked for.
        what: What the list names, for the message.

    Returns:
        What was asked for, in the order of `known`.

    Raises:
        RobustnessError: If something unknown is asked for.
    """
    names = [name.strip() for name in asked.split(",") if name.strip()]
    names = [name.removeprefix("book/").removesuffix(".md") for name in names]
    if unknown := [name for name in names if name not in known]:
        raise RobustnessError(
            f"{', '.join(unknown)}: no such {what}; there are {', '.join(known)}"
        )
    return [name for name in known if not names or name in names]


def impossible_here(name: str) -> str:
    """Say why this processor cannot make a run.

    Args:
        name: The run.

    Returns:
        One sentence; empty if it can.
    """
    wanted, has = RUNS[name].wanted.get("instruction_set"), instruction_set()
    known = list(INSTRUCTION_SETS)
    if wanted is None or (has in known and known.index(wanted) <= known.index(has)):
        return ""
    return f"{name} needs a processor with {wanted}, and this one is: {describe_cpu()}"


def variables_of(conditions: Conditions, store: Path, goals: Path) -> dict[str, str]:
    """Return the environment of a run's kernels.

    Args:
        conditions: What the run changes; what other runs would change is unset.
        store: Its store.
        goals: The folder for the rows of one chapter.

    Returns:
        All variables.
    """
    own = {name: value for name, value in os.environ.items() if name not in CHANGED}
    places = {"POSTTRAIN_HOME": str(store), "POSTTRAIN_GOALS": str(goals)}
    return {**own, "PYDEVD_DISABLE_FILE_VALIDATION": "1", **places, **conditions.variables}


def check_conditions(name: str, conditions: Conditions, found: Mapping[str, Any]) -> None:
    """Insist that the limits of a run are in force in its kernel.

    Args:
        name: The run.
        conditions: What it should change.
        found: What `environment_in_force` returned there.

    Raises:
        RobustnessError: If one of them is not.
    """
    here = Path(str(posttrain.__file__)).parent
    if Path(found["package"]) != here:
        raise RobustnessError(
            f"{name}: the kernel imports posttrain from {found['package']}, not from {here}: "
            "run make install, or unset PYTHONPATH"
        )
    for what, wanted in conditions.wanted.items():
        if found.get(what) != wanted:
            raise RobustnessError(
                f"{name}: {what} is {found.get(what)!r} in the kernel, not {wanted!r}: "
                f"the limit is not in force, or this processor ({found['cpu']}) cannot do it"
            )
    if conditions.onednn and conditions.onednn in found["onednn"]:
        raise RobustnessError(
            f"{name}: oneDNN uses {found['onednn']!r} in the kernel, in spite of the limit "
            f"ONEDNN_MAX_CPU_ISA={conditions.variables.get('ONEDNN_MAX_CPU_ISA')}"
        )


def named_ids(text: str, chapter: str) -> dict[str, str]:
    """Find the goals and claims that a page names, whether or not its cells reach them.

    Args:
        text: The page.
        chapter: Its path below ``book/``.

    Returns:
        Kinds by id.
    """
    stage = chapter.partition("/")[0]
    found = {}
    for cell in _code_of(text):
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:
            continue  # its error is recorded when it runs
        for node in ast.walk(tree):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and GOAL_ID.fullmatch(value):
                if value.partition(".")[0] == stage:
                    found[value] = "goal"
    for sentence in CLAIM_ROLE.findall(text):
        found[f"{chapter.replace('/', '.')}.{sentence}"] = "claim"
    return found


def _code_of(text: str) -> list[Any]:
    cells = jupytext.reads(text, fmt="md:myst").cells
    return [cell for cell in cells if cell.cell_type == "code"]


def run_chapter(
    root: Path, chapter: str, name: str, conditions: Conditions, work: Path
) -> dict[str, Any]:
    """Run the cells of a chapter and look at its goals and claims.

    A cell that raises is recorded, and the next one is run. What the page names and no cell
    reached for that reason counts as not held.

    Args:
        root: The folder of the repository.
        chapter: The chapter's path below ``book/``.
        name: Name of the run.
        conditions: What the run changes.
        work: The run's folder.

    Returns:
        The run, as it stands in the record.

    Raises:
        RobustnessError: If a limit is not in force.
    """
    page = root / "book" / f"{chapter}.md"
    text = page.read_text(encoding="utf-8")
    goals = work / "goals" / chapter.replace("/", "__")
    shutil.rmtree(goals, ignore_errors=True)
    goals.mkdir(parents=True)
    _share_assets(work)
    started = time.perf_counter()
    machine, errors = _execute(text, page.parent, name, conditions, work, goals)
    seconds = round(time.perf_counter() - started, 1)
    rows = [
        {
            "id": row["id"],
            "kind": str(row.get("kind", "goal")),
            "value": row["value"],
            "passed": row["passed"],
            **({"missed_aim": True} if row.get("attempts") and not row["passed"] else {}),
        }
        for row in collect_goals(goals)
    ]
    if errors:
        reached = {row["id"] for row in rows}
        rows += [
            {"id": goal_id, "kind": kind, "value": None, "passed": False, "reached": False}
            for goal_id, kind in named_ids(text, chapter).items()
            if goal_id not in reached
        ]
    return {
        "commit": _commit(root),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": seconds,
        "variables": dict(conditions.variables),
        "machine": machine,
        "rows": rows,
        "errors": errors,
    }


def _share_assets(work: Path) -> None:
    """Give a run's store the converted models of the reader's own."""
    shared, own = home() / "assets", work / "assets"
    shared.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    if not own.exists():
        own.unlink(missing_ok=True)  # a link that leads nowhere any more
        own.symlink_to(shared.resolve(), target_is_directory=True)


def _execute(
    text: str, folder: Path, name: str, conditions: Conditions, work: Path, goals: Path
) -> tuple[dict[str, Any], list[str]]:
    """Run the cells in a kernel of their own; return what it ran on, and what was raised."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import run_sync
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager = AsyncKernelManager()
    manager._kernel_spec = KernelSpec(
        argv=[*argv, "--log-level=40"], display_name="Rebuild", language="python"
    )
    probe = nbformat.v4.new_code_cell(PROBE)
    cells = _code_of(text)
    notebook = nbformat.v4.new_notebook(cells=[probe, *cells])
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=LONGEST_CELL,
        resources={"metadata": {"path": str(folder)}},
    )
    errors: list[str] = []
    try:
        with client.setup_kernel(env=variables_of(conditions, work, goals)):
            client.execute_cell(probe, 0)
            machine = json.loads("".join(out.get("text", "") for out in probe.outputs))
            check_conditions(name, conditions, machine)
            for number, cell in enumerate(cells, 1):
                try:
                    client.execute_cell(cell, number)
                except CellExecutionError as error:
                    errors.append(f"cell {number}: {error.ename}: {error.evalue}"[:500])
                except Exception as error:  # a dead kernel, a cell that takes too long
                    said = " ".join(str(error).split())
                    errors.append(f"cell {number}: {type(error).__name__}: {said}"[:500])
                    break
    except CellExecutionError as error:
        raise RobustnessError(f"{name}: the kernel cannot be asked: {error.evalue}") from error
    finally:
        if manager.has_kernel:  # the client leaves alone what it did not start
            run_sync(manager.shutdown_kernel)(now=True)
    for name in ("package", "created", "seconds"):  # a path of this machine; times of the probe
        del machine[name]
    return machine, errors


def _commit(root: Path) -> str:
    """Return the commit of the checkout, marked where the package or the book differ."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    changed = git("status", "--porcelain", "--", "code", "book", "requirements.lock")
    changed = re.sub(r"^.. book/results/.*$", "", changed, flags=re.MULTILINE).strip()
    return git("rev-parse", "--short=12", "HEAD") + (" and later edits" if changed else "")


def save_run(file: Path, chapter: str, key: str, name: str, run: Mapping[str, Any]) -> None:
    """Put a run into the record of its chapter.

    It replaces an earlier run of its name. Other runs stay if they are of the same page.

    Args:
        file: The record, which may be missing.
        chapter: The chapter's path below ``book/``.
        key: The page's key.
        name: Name of the run.
        run: What `run_chapter` returned.
    """
    runs: dict[str, Any] = {}
    try:
        before = read_record(file, chapter)
        runs = dict(before.runs) if before.page_key == key else {}
    except (FileNotFoundError, ValueError):
        pass  # it is written anew
    runs[name] = dict(run)
    runs = {known: runs[known] for known in sorted(runs, key=_place)}
    summary = RobustnessRecord(chapter, key, runs).summary().values()
    counts = {h.id: {"kind": h.kind, "held": h.held, "of": h.of} for h in summary}
    content = {"chapter": chapter, "page_key": key, "summary": counts, "runs": runs}
    write_json_atomic(file, content)


def _place(name: str) -> tuple[int, str]:
    known = list(RUNS)
    return (known.index(name) if name in known else len(known), name)


def faults_of(records: Iterable[RobustnessRecord], names: Sequence[str]) -> list[list[str]]:
    """List what did not hold in some of the runs.

    Args:
        records: The records.
        names: The runs that count.

    Returns:
        Rows of text: an id, in which runs it failed, what was measured there. What a cell
        raised is a row too. Missed aims, which the pages document, are none.
    """
    table = []
    for record in records:
        runs = {name: run for name, run in record.runs.items() if name in names}
        for held in RobustnessRecord(record.chapter, record.page_key, runs).summary().values():
            if held.failed_in and not held.missed_aim:
                values = []
                for name in held.failed_in:
                    rows = runs[name]["rows"]
                    row: dict[str, Any] = next((r for r in rows if r["id"] == held.id), {})
                    value = row.get("value")
                    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
                    values.append(shown if row.get("reached", bool(row)) else "not reached")
                counted = f"{held.held} of {held.of}"
                table.append([held.id, counted, ", ".join(held.failed_in), ", ".join(values)])
        for name, run in runs.items():
            table += [[record.chapter, "", name, str(error)[:120]] for error in run["errors"]]
    return table


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the command.

    Args:
        arguments: The command line; by default that of the process.
        root: The folder of the repository.

    Returns:
        1 if a goal or claim failed in a run, or a cell raised; else 0.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chapters", default="", help="with commas; by default all")
    parser.add_argument("--runs", default="", help=f"with commas; of {', '.join(RUNS)}")
    asked = parser.parse_args(arguments)
    chapters = chosen(asked.chapters, chapters_of(root), "chapter")
    names = chosen(asked.runs, list(RUNS), "run")
    if refused := [reason for name in names if (reason := impossible_here(name))]:
        if asked.runs:
            raise RobustnessError("; ".join(refused))
        names = [name for name in names if not impossible_here(name)]
        print("\n".join(f"Left out: {reason}" for reason in refused))
    calm_threads()
    results = root / "book" / "results" / "robustness"
    for chapter in chapters:
        key = key_of_page(root / "book" / f"{chapter}.md", root / "requirements.lock")
        for name in names:
            print(f"{chapter:32} {name:12} ", end="", flush=True)
            work = root / "_build" / "robustness" / name
            run = run_chapter(root, chapter, name, RUNS[name], work)
            save_run(robustness_file(results, chapter), chapter, key, name, run)
            held = sum(row["passed"] for row in run["rows"])
            print(f"{run['seconds']:8.1f} s  {held} of {len(run['rows'])} held", end="")
            print(f", {len(run['errors'])} cells raised" if run["errors"] else "", flush=True)
    records = [read_record(robustness_file(results, chapter), chapter) for chapter in chapters]
    table = faults_of(records, names)
    if not table:
        print("Every goal and claim held in every run.")
        return 0
    table.insert(0, ["did not hold", "held", "in", "measured, or what was raised"])
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    for row in table:
        print("  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip())
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PosttrainError as error:
        sys.exit(f"robustness: {error}")
