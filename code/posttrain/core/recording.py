"""Making records: which there are, and how one is run part by part.

Each stage lists its recipes in ``posttrain/<stage>/records.py``. A recipe names a module with
three things: ``CONFIG`` (what is run, as plain data), ``parts(seeds)`` (settings, each run on
its own) and ``run(part)`` (the outcomes of one of them). And it names a function that computes
numbers from the outcomes; that one may change, and nothing is run again. The seeds stand in the
recipe too, so that more can be added and the parts that are there stay.

Chapter: start/how_this_book_works.
"""

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from tqdm.auto import tqdm

import posttrain
from posttrain.core.artifacts import get_or_build
from posttrain.core.errors import RecordError
from posttrain.core.machine import describe_cpu, preferred_dtype, run_record
from posttrain.core.records import (
    NAME,
    SCHEMA,
    Record,
    Row,
    checkout,
    read_record,
    record_file,
    records_folder,
    write_record,
)
from posttrain.core.storage.code_hash import module_hashes
from posttrain.core.storage.files import plain, write_json_atomic

_RUN = (
    "import importlib, json, pathlib, sys; "
    "rows = importlib.import_module(sys.argv[1]).run(json.loads(sys.argv[2])); "
    "pathlib.Path(sys.argv[3]).write_text(json.dumps(rows), encoding='utf-8')"
)


class Experiment(Protocol):
    """What the module of a recipe holds."""

    CONFIG: dict[str, Any]

    def parts(self, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """List the settings; each is run, stored and found again on its own."""

    def run(self, part: dict[str, Any]) -> list[Row]:
        """Run one setting; each outcome names its seed."""


@dataclass(frozen=True)
class Recipe:
    """How a record is made.

    Attributes:
        stage: The stage's folder, such as ``sft``.
        name: Name within the stage.
        title: What is run, in a few words.
        minutes: How long it takes on two slow cores, about.
        seeds: Seeds of the runs.
        module: Dotted name of the module that runs it.
        summary: What computes its numbers, as ``module:function``.
        measured: Names of outcomes that no two runs share to the last digit, such as bytes of
            memory: a part that is run again may differ in them by a tenth. Outcomes whose name
            begins with ``seconds`` may differ by any amount.
    """

    stage: str
    name: str
    title: str
    minutes: float
    seeds: tuple[int, ...]
    module: str
    summary: str
    measured: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that no file can have, and times that nothing can take."""
        if not NAME.fullmatch(self.stage) or not NAME.fullmatch(self.name):
            raise ValueError(
                f"the record {self.stage}/{self.name} is malformed: write lower-case letters, "
                "digits and underscores"
            )
        if self.minutes <= 0:
            raise ValueError(f"{self.label}: {self.minutes} minutes: give a number above 0")

    @property
    def label(self) -> str:
        """Stage and name, as the command line takes them."""
        return f"{self.stage}/{self.name}"

    def load(self) -> Experiment:
        """Import the module that runs it.

        Returns:
            The module.
        """
        return cast(Experiment, importlib.import_module(self.module))

    def summarize(self, outcomes: Sequence[Row]) -> dict[str, Any]:
        """Compute the numbers of a record from its outcomes, and from nothing else.

        Args:
            outcomes: The outcomes, as they stand in a record.

        Returns:
            The numbers, by name.
        """
        module, _, function = self.summary.partition(":")
        summary = getattr(importlib.import_module(module), function)(outcomes)
        return cast(dict[str, Any], json.loads(json.dumps(summary, default=plain)))


def recipes() -> list[Recipe]:
    """List every record that can be made, without importing what makes them.

    Returns:
        The recipes of all stages, by stage and name.

    Raises:
        ValueError: If a stage lists a recipe of another one.
    """
    found: list[Recipe] = []
    for file in sorted(Path(posttrain.__file__).parent.glob("*/records.py")):
        stage = file.parent.name
        if stage == "core":
            continue
        listed = importlib.import_module(f"posttrain.{stage}.records").RECORDS
        if strange := [recipe.label for recipe in listed if recipe.stage != stage]:
            raise ValueError(f"posttrain.{stage}.records lists {strange[0]}, of another stage")
        found += listed
    return sorted(found, key=lambda recipe: recipe.label)


def find_recipe(label: str) -> Recipe:
    """Look up a recipe.

    Args:
        label: ``stage/name``, or the name alone.

    Returns:
        The recipe.

    Raises:
        ValueError: If there is none of that name, or several.
    """
    known = recipes()
    found = [recipe for recipe in known if label in (recipe.label, recipe.name)]
    if len(found) != 1:
        names = ", ".join(recipe.label for recipe in found or known)
        raise ValueError(f"there is no record {label!r}: choose one of {names}")
    return found[0]


def recorded(recipe: Recipe) -> Record | None:
    """Read what a recipe has made.

    Args:
        recipe: The recipe.

    Returns:
        The record, or None where there is none yet.

    Raises:
        RecordError: If its file is damaged.
    """  # noqa: DOC502
    if record_file(recipe.stage, recipe.name) is None:
        return None
    return read_record(recipe.stage, recipe.name)


def make_record(recipe: Recipe, out: Path | None = None) -> Path:
    """Run a recipe and write its record.

    Each part is stored when it is finished: after an interruption, the next call goes on with
    the parts that are missing.

    Args:
        recipe: What to run.
        out: The file to write; by default the record's own, in
            :func:`posttrain.core.records.records_folder`.

    Returns:
        The file.

    Raises:
        RecordError: If the code changed meanwhile, or the outcomes are not what a record holds.

    Chapter: start/how_this_book_works.
    """
    experiment = recipe.load()
    commit, clean = commit_of_code()
    code = module_hashes([recipe.module])
    parts, outcomes, seconds = experiment.parts(recipe.seeds), [], 0.0
    bar = tqdm(parts, desc=recipe.label, unit="part")
    for part in bar:
        rows, took = _stored_part(recipe, part)
        outcomes += rows
        seconds += took
    if module_hashes([recipe.module]) != code:
        raise RecordError(f"the code of {recipe.label} was changed while it ran: run it again")
    record = Record(
        schema=SCHEMA,
        stage=recipe.stage,
        name=recipe.name,
        title=recipe.title,
        commit=commit,
        clean=clean,
        created=_now(),
        seconds=round(seconds, 1),
        machine=run_record(),
        module=recipe.module,
        config=json.loads(json.dumps(experiment.CONFIG, default=plain)),
        seeds=sorted({row["seed"] for row in outcomes}),
        code=code,
        repeated=None,
        summary=recipe.summarize(outcomes),
        outcomes=outcomes,
    )
    del record.machine["seconds"], record.machine["created"]  # of this process
    file = records_folder() / recipe.stage / f"{recipe.name}.json" if out is None else out
    write_record(record, file)
    return file


def repeat_parts(recipe: Recipe, count: int = 1) -> Record:
    """Run some parts of a record again; where they give the same, the code is as good as old.

    After a change that should not matter, such as a module that moved, this takes a fraction
    of the time of a new record. It works on the machine of the record: another one rounds
    differently.

    Args:
        recipe: Whose record.
        count: How many parts, spread evenly over all.

    Returns:
        The record, written anew with the hashes of the present code.

    Raises:
        RecordError: If there is no record, or an outcome differs.
    """
    old = read_record(recipe.stage, recipe.name)
    experiment = recipe.load()
    parts = experiment.parts(recipe.seeds)
    count = max(1, min(count, len(parts)))
    chosen = [round(i * (len(parts) - 1) / max(1, count - 1)) for i in range(count)]
    bar = tqdm([parts[index] for index in chosen], desc=recipe.label, unit="part")
    with _threads(int(old.machine.get("threads", 0))):
        for part in bar:
            for row in _run_part(recipe, part):
                if not any(_same(row, before, recipe.measured) for before in old.outcomes):
                    raise RecordError(
                        f"{recipe.label} came out differently in the part {part}: make the "
                        f"record anew with posttrain record {recipe.label}"
                    )
    commit, clean = commit_of_code()
    made = {"created": _now(), "commit": commit, "clean": clean, "parts": count}
    values = {name: getattr(old, name) for name in Record.__dataclass_fields__}
    values |= {
        "module": recipe.module, "code": module_hashes([recipe.module]), "repeated": made,
        "summary": recipe.summarize(old.outcomes),
    }  # fmt: skip
    record = Record(**values)
    file = record_file(recipe.stage, recipe.name)
    assert file is not None
    write_record(record, file)
    return record


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many threads, here and in new processes: others round differently."""
    import torch

    before, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    if count:
        torch.set_num_threads(count)
        os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        os.environ.pop("OMP_NUM_THREADS", None)
        if variable is not None:
            os.environ["OMP_NUM_THREADS"] = variable


def _same(row: Row, before: Row, measured: Sequence[str]) -> bool:
    """Whether two outcomes agree, times aside and measured ones nearly."""
    return row.keys() == before.keys() and all(
        math.isclose(row[key], before[key], rel_tol=0.1)
        if key in measured
        else row[key] == before[key]
        for key in row
        if not key.startswith("seconds")
    )


def _now() -> str:
    return str(run_record()["created"])


def _stored_part(recipe: Recipe, part: dict[str, Any]) -> tuple[list[Row], float]:
    """Run a part, or find it in the store; return its rows and the seconds that it took."""

    def build(out: Path, scratch: Path) -> None:
        write_json_atomic(out / "rows.json", _run_part(recipe, part))

    artifact = get_or_build(
        f"record-{recipe.stage}-{recipe.name}",
        build,
        config={"part": part, "cpu": describe_cpu(), "dtype": str(preferred_dtype())},
        modules=[recipe.module],
    )
    rows: list[Row] = json.loads((artifact.folder / "rows.json").read_text(encoding="utf-8"))
    return rows, float(artifact.record["seconds"])


def _run_part(recipe: Recipe, part: dict[str, Any]) -> list[Row]:
    """Run a part; in a process of its own where it asks for an environment.

    A processor can be limited only before torch is imported, by the variables that
    ``part["environment"]`` names.
    """
    environment: dict[str, str] = part.get("environment") or {}
    if not environment:
        rows = recipe.load().run(part)
        return cast(list[Row], json.loads(json.dumps(rows, default=plain)))
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        file = Path(folder, "rows.json")
        command = [sys.executable, "-c", _RUN, recipe.module, json.dumps(part), str(file)]
        done = subprocess.run(command, env={**os.environ, **environment}, check=False)
        if done.returncode:
            raise RecordError(
                f"{recipe.label}: the process of the part {part} ended with {done.returncode}: "
                "its message stands above"
            )
        return cast(list[Row], json.loads(file.read_text(encoding="utf-8")))


def commit_of_code() -> tuple[str | None, bool]:
    """Name the commit of the checkout.

    Returns:
        The commit, or None outside of a checkout or without git; and whether ``code`` is as
        that commit has it.
    """
    root = checkout()
    if root is None:
        return None, False
    with suppress(OSError, subprocess.CalledProcessError):
        head = _git(root, "rev-parse", "HEAD").strip()
        return head, not _git(root, "status", "--porcelain", "--", "code").strip()
    return None, False


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def table_rows() -> Iterator[tuple[str, str, str, str]]:
    """Describe each record for ``posttrain record``.

    Yields:
        Name, minutes, title, and when it was recorded and whether its code has changed.
    """
    for recipe in recipes():
        state = "not recorded yet"
        if record := recorded(recipe):
            count = len(record.stale)
            changed = f"{count} module{'s' if count > 1 else ''} changed since"
            state = f"{record.created[:10]}, {changed if count else 'code unchanged'}"
        yield recipe.label, f"{recipe.minutes:g}", recipe.title, state


def record_command(
    names: Sequence[str], everything: bool, out: Path | None, repeat: int
) -> Iterator[str]:
    """Run ``posttrain record``.

    Args:
        names: Records to make, ``stage/name``; several may stand in one word, with commas.
        everything: Make all of them.
        out: File for a single record.
        repeat: Run so many parts again instead; 0 makes the whole record.

    Yields:
        A line for each finished record.

    Raises:
        ValueError: If a name is not known, or ``out`` is given for several records.
    """
    wanted = [part for name in names for part in name.split(",") if part]
    chosen = recipes() if everything else [find_recipe(label) for label in wanted]
    if out is not None and (len(chosen) != 1 or repeat):
        raise ValueError("--out takes the file of one new record: name one record")
    for recipe in chosen:
        if repeat:
            yield str(repeat_parts(recipe, repeat).label)
            continue
        file = make_record(recipe, out)
        yield f"{recipe.label}: written to {file}"
