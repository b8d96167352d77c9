"""Recorded runs: experiments too long for a build, kept with what their numbers rest on.

A record is a JSON file, ``book/results/<stage>/<name>.json``: what was run, on what, by which
code, and one row for each outcome, raw enough to compute every number and interval again. A
page reads it and shows its label::

    record = read_record("sft", "rank_and_rate")
    record.label

`posttrain.core.recording` makes records.

Chapter: start/how_this_book_works.
"""

import datetime
import html
import importlib.metadata
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import posttrain
from posttrain.core.errors import RecordError
from posttrain.core.storage.code_hash import module_hashes
from posttrain.core.storage.files import write_text_atomic
from posttrain.core.storage.paths import home

SCHEMA = 1
"""Version of the form; a record of another one is refused."""

NAME = re.compile(r"[a-z][a-z0-9_]*")
_HASH = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHOWN = 3  # changed modules that a label names

Row = dict[str, Any]


@dataclass(frozen=True)
class RecordLabel:
    """The line that stands beside whatever a page shows of a record.

    Attributes:
        text: What was recorded, when, on what, and whether its code has changed since.
        stale: Whether it has.
    """

    text: str
    stale: bool

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        look = "pt-record pt-record-stale" if self.stale else "pt-record"
        return f'<p class="{look}"><small>{html.escape(self.text)}</small></p>'

    def _repr_markdown_(self) -> str:
        return f"*{self.text}*"


@dataclass(frozen=True)
class Record:
    """A recorded run.

    Attributes:
        schema: Version of the form.
        stage: The stage's folder, such as ``sft``.
        name: Name within the stage.
        title: What was run, in a few words.
        commit: The commit whose code ran; None outside of a checkout.
        clean: Whether the code was that of the commit, without a change.
        created: When it was finished, in UTC, ISO 8601.
        seconds: Time of all its parts, added up.
        machine: What it ran on; see :func:`posttrain.core.machine.run_record`.
        module: The module that ran.
        config: What was run, as plain data.
        seeds: The seeds of the runs.
        code: SHA-256 of the module and of every module of the package that it imports.
        repeated: Where code has changed since: ``created``, ``commit`` and ``parts``, the
            number of parts that were run again and gave the same outcomes; else None.
        summary: Numbers computed from the outcomes, and from nothing else.
        outcomes: One row for each outcome, all with the same keys.
    """

    schema: int
    stage: str
    name: str
    title: str
    commit: str | None
    clean: bool
    created: str
    seconds: float
    machine: dict[str, Any]
    module: str
    config: dict[str, Any]
    seeds: list[int]
    code: dict[str, str]
    repeated: dict[str, Any] | None
    summary: dict[str, Any]
    outcomes: list[Row]

    @cached_property
    def stale(self) -> tuple[str, ...]:
        """Modules that have changed since, came in or are gone; empty where none has."""
        try:
            now = module_hashes([self.module])
        except ValueError:  # moved or removed
            return (self.module,)
        names = sorted({*now, *self.code})
        return tuple(name for name in names if now.get(name) != self.code.get(name))

    @property
    def label(self) -> RecordLabel:
        """What a page says of the record, beside what it shows of it."""
        day = datetime.datetime.fromisoformat(self.created)
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        minutes = f"{max(1, round(self.seconds / 60))} min"
        parts = [f"{day.day} {day:%B %Y}", str(self.machine["cpu"]), seeds, minutes]
        text = f"Recorded run: {', '.join(parts)}; {self._code_text()}."
        return RecordLabel(text, bool(self.stale))

    def _code_text(self) -> str:
        if not self.stale:
            text = "its code is unchanged since"
        else:
            short = [name.removeprefix("posttrain.") for name in self.stale]
            more = f" and {len(short) - _SHOWN} more" if len(short) > _SHOWN else ""
            text = f"its code has changed since: {', '.join(short[:_SHOWN])}{more}"
        if self.repeated is not None:
            day = datetime.datetime.fromisoformat(self.repeated["created"])
            count = self.repeated["parts"]
            parts = f"{count} part{'s were' if count > 1 else ' was'}"
            again = f" {day.day} {day:%B %Y}, when {parts} run again with the same outcomes"
            text += "" if self.stale else again
        return text

    def select(self, **wanted: Any) -> list[Row]:
        """Pick outcomes.

        Args:
            **wanted: Keys and the values that they must have.

        Returns:
            The rows that have all of them, in their order.

        Raises:
            ValueError: If no row has a key of that name.
        """
        if unknown := [key for key in wanted if key not in self.outcomes[0]]:
            raise ValueError(
                f"the outcomes of {self.stage}/{self.name} have no {unknown[0]!r}: they have "
                f"{', '.join(self.outcomes[0])}"
            )
        return [
            row
            for row in self.outcomes
            if all(row[key] == value for key, value in wanted.items())
        ]

    def _repr_html_(self) -> str:
        return self.label._repr_html_()

    def __repr__(self) -> str:
        return f"Record({self.stage}/{self.name}, {len(self.outcomes)} outcomes)"


def checkout() -> Path | None:
    """Find the repository that this package lies in.

    Returns:
        Its top folder, or None where the package was installed from a wheel.
    """
    root = Path(posttrain.__file__).resolve().parents[2]
    return root if (root / "book").is_dir() and (root / "pyproject.toml").is_file() else None


def records_folder() -> Path:
    """Say where records are written: ``book/results`` of a checkout, else in the store.

    Returns:
        An absolute path; the folder need not exist yet.
    """
    root = checkout()
    return home() / "records" if root is None else root / "book" / "results"


def record_file(stage: str, name: str, folder: Path | None = None) -> Path | None:
    """Find the file of a record.

    It is looked for in the repository. Where the package was installed from a wheel, as in the
    notebooks, a record of the reader's own in the store comes first, then what came with the
    wheel.

    Args:
        stage: The stage's folder.
        name: The record's name.
        folder: Look here and nowhere else.

    Returns:
        The file, or None where there is none.

    Raises:
        ValueError: If a name has other characters than lower-case letters, digits and
            underscores.
    """
    for part in (stage, name):
        if not NAME.fullmatch(part):
            raise ValueError(
                f"{part!r} names no record: write lower-case letters, digits and underscores, "
                'such as read_record("sft", "rank_and_rate")'
            )
    file = (records_folder() if folder is None else Path(folder)) / stage / f"{name}.json"
    if file.is_file():
        return file
    return None if folder is not None or checkout() else _installed(f"{stage}/{name}.json")


def _installed(path: str) -> Path | None:
    """Find a file of ``book/results`` that a wheel has put beside its data files."""
    try:
        files = importlib.metadata.files("posttrain") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [f for f in files if f.as_posix().endswith(f"share/posttrain/results/{path}")]
    return Path(str(found[0].locate())) if found else None


def read_record(stage: str, name: str, folder: Path | None = None) -> Record:
    """Read a record and check its form.

    Args:
        stage: The stage's folder, such as ``sft``.
        name: The record's name, such as ``rank_and_rate``.
        folder: Where to look; see :func:`record_file`.

    Returns:
        The record.

    Raises:
        RecordError: If there is none, or it has not the form of a record.
    """
    file = record_file(stage, name, folder)
    if file is None:
        raise RecordError(
            f"there is no record {stage}/{name}: make it with posttrain record {stage}/{name}"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{file} is no JSON: {error}") from error
    if fault := find_fault(content):
        raise RecordError(f"{file} is not a record: {fault}")
    if (content["stage"], content["name"]) != (stage, name):
        raise RecordError(
            f"{file} is the record {content['stage']}/{content['name']}: a record's file has "
            "its name, in the folder of its stage"
        )
    return Record(**content)


_FORM: dict[str, tuple[type, ...]] = {
    "schema": (int,), "stage": (str,), "name": (str,), "title": (str,),
    "commit": (str, type(None)), "clean": (bool,), "created": (str,), "seconds": (int, float),
    "machine": (dict,), "module": (str,), "config": (dict,), "seeds": (list,), "code": (dict,),
    "repeated": (dict, type(None)), "summary": (dict,), "outcomes": (list,),
}  # fmt: skip


def find_fault(content: Any) -> str | None:
    """Say what is wrong with the content of a record's file.

    Args:
        content: What JSON gave.

    Returns:
        The first fault, in a few words; None where there is none.
    """
    if not isinstance(content, dict):
        return "it holds no object"
    if content.get("schema") != SCHEMA:
        return f"its schema is {content.get('schema')!r} and this package reads {SCHEMA}"
    names = {field.name for field in fields(Record)}
    if odd := sorted(names ^ content.keys()):
        return f"{odd[0]!r} is {'missing' if odd[0] in names else 'not known'}"
    for name, types in _FORM.items():
        if not isinstance(content[name], types):
            return f"{name} is {content[name]!r}"
    return _fault_of_facts(content) or _fault_of_rows(content["outcomes"])


def _fault_of_facts(content: Mapping[str, Any]) -> str | None:
    if not (NAME.fullmatch(content["stage"]) and NAME.fullmatch(content["name"])):
        return f"its name is {content['stage']}/{content['name']}"
    times: list[Any] = [content["created"], (content["repeated"] or content).get("created")]
    for text in times:
        try:
            datetime.datetime.fromisoformat(text)
        except (TypeError, ValueError):
            return f"{text!r} is no time"
    commit = content["commit"]
    if commit is not None and not _COMMIT.fullmatch(commit):
        return f"its commit is {commit!r}"
    if not isinstance(content["machine"].get("cpu"), str):
        return "its machine has no cpu"
    if not content["seeds"] or not all(type(seed) is int for seed in content["seeds"]):
        return f"its seeds are {content['seeds']!r}"
    if not content["code"] or not all(
        _HASH.fullmatch(str(h)) for h in content["code"].values()
    ):
        return "its code has no hashes"
    return _not_finite({"seconds": content["seconds"], "summary": content["summary"]})


def _fault_of_rows(rows: list[Any]) -> str | None:
    if not rows or not all(isinstance(row, dict) and row for row in rows):
        return "it has no outcomes, or one of them is no row"
    for number, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            return f"outcome {number} has other keys than outcome 0"
    return _not_finite({"outcomes": rows})


def _not_finite(value: Any, place: str = "") -> str | None:
    """Name the first number that is NaN or infinite; None stands for a value that is not."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{place} is {value}"
    if isinstance(value, dict):
        pairs = [(f"{place}.{key}" if place else str(key), part) for key, part in value.items()]
    elif isinstance(value, list):
        pairs = [(f"{place}[{index}]", part) for index, part in enumerate(value)]
    else:
        return None
    return next((fault for key, part in pairs if (fault := _not_finite(part, key))), None)


def write_record(record: Record, file: Path) -> None:
    """Write a record: the whole of it, or nothing; each outcome on a line.

    Args:
        record: The record.
        file: Where it goes.

    Raises:
        RecordError: If it has not the form of a record.
    """
    content = {field.name: getattr(record, field.name) for field in fields(Record)}
    if fault := find_fault(json.loads(json.dumps(content))):
        raise RecordError(f"{record.stage}/{record.name} cannot be written: {fault}")
    rows = [json.dumps(row, ensure_ascii=False) for row in content.pop("outcomes")]
    head = json.dumps(content, ensure_ascii=False, indent=1)
    text = head.removesuffix("\n}") + ',\n "outcomes": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n"
    write_text_atomic(file, text)


def describe_changes(record: Record) -> str:
    """Say in one sentence how a record stands to the present code.

    Args:
        record: The record.

    Returns:
        The sentence, for a list of records or a test.
    """
    return f"{record.stage}/{record.name}: {record._code_text()}"
