"""The folder of a run: what may be written there, and which run it holds.

A run writes ``run.json`` before its first step. It says what decides the result, so that the
run goes on after an interruption, also on another machine, and no other run is taken for it.

Chapter: sft/your_model.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.core.errors import AssetError
from posttrain.core.machine import run_record
from posttrain.core.storage.files import plain, write_json_atomic
from posttrain.core.training.run_log import METRICS_NAME, read_metrics

RUN_NAME = "run.json"
WORK_NAME = "checkpoint"  # the engines' own folder; it goes when the run has ended


class RunFolder:
    """A folder that holds one run.

    Args:
        path: The folder; it need not exist.

    Chapter: sft/your_model.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / WORK_NAME

    @property
    def record(self) -> dict[str, Any] | None:
        """What ``run.json`` holds, or ``None`` where there is none."""
        file = self.path / RUN_NAME
        if not file.is_file():
            return None
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or not {"identity", "status"} <= found.keys():
                raise ValueError("it is no run's record")
        except (OSError, ValueError) as error:
            raise AssetError(
                f"{file} cannot be read ({error}): remove the folder to start anew"
            ) from None
        return found

    @property
    def steps_done(self) -> int:
        """Steps that the log holds."""
        return max((row["step"] for row in read_metrics(self.path / METRICS_NAME)), default=0)

    def check(self, *, resume: bool) -> None:
        """Refuse a folder that cannot hold the run, before any work is done for it.

        Args:
            resume: Whether the run that it holds is to go on.

        Raises:
            AssetError: If it is a file or cannot be written, holds other things or another run,
                or holds no run where one is to go on.
        """
        path = self.path
        if path.is_file():
            raise AssetError(f"{path} is a file: give a folder for the run")
        above = path
        while not above.exists():
            above = above.parent
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise AssetError(f"{path} cannot be written: {above} allows no new files")
        record = self.record if path.is_dir() else None
        if record is None:
            if resume:
                raise AssetError(f"{path} holds no run that could go on: leave --resume out")
            held = sorted(x.name for x in path.iterdir()) if path.is_dir() else []
            if held:
                raise AssetError(
                    f"{path} holds other files ({held[0]} first): give a new or empty folder"
                )
            return
        if record["status"] == "finished":
            raise AssetError(
                f"{path} holds a finished run: its adapter is there; give another folder for a "
                "new one"
            )
        if not resume:
            raise AssetError(
                f"{path} holds a run that was stopped after step {self.steps_done}: add "
                "--resume to go on with it, or give another folder"
            )

    def begin(self, identity: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Write which run this is, or see that it is the one that is there.

        Args:
            identity: All that decides the result, as plain values.
            facts: What else is worth keeping, such as the command.

        Raises:
            AssetError: If the folder holds a run with another identity; it names what differs.
        """
        identity = json.loads(json.dumps(identity, default=plain))  # tuples become lists
        record = self.record
        if record is not None:
            ours, theirs = _flat(identity), _flat(record["identity"])
            if differ := [n for n in {**ours, **theirs} if ours.get(n) != theirs.get(n)]:
                name = differ[0]
                raise AssetError(
                    f"{self.path} holds another run: {name} is {ours.get(name)!r} now and was "
                    f"{theirs.get(name)!r} there"
                    f"{f' ({len(differ) - 1} more differ)' if differ[1:] else ''}; give the "
                    "same again, or another folder"
                )
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._write(
            {"status": "running", "identity": identity, **facts, "machine": run_record()}
        )

    def note(self, **facts: Any) -> None:
        """Add facts to ``run.json``.

        Args:
            **facts: Plain values by name.
        """
        record = self.record
        assert record is not None, "begin comes first"
        self._write({**record, **facts})

    def finish(self) -> None:
        """Say that the run has ended, and remove what only a run in progress needs."""
        self.note(status="finished")
        shutil.rmtree(self.work, ignore_errors=True)

    def _write(self, record: dict[str, Any]) -> None:
        write_json_atomic(self.path / RUN_NAME, record)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        name: inner
        for key, below in value.items()
        for name, inner in _flat(below, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def model_digest(folder: Path) -> str:
    """Tell models apart by their configuration, and size, start and end of their weights.

    Reading all weights would take as long as loading them. It guards against mistakes, not
    against malice.

    Args:
        folder: A model in Hugging Face's format.

    Returns:
        Sixteen hexadecimal digits.

    Chapter: sft/your_model.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(f"{file.name} {file.stat().st_size}".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(1 << 20))
            opened.seek(-min(1 << 20, file.stat().st_size), os.SEEK_END)
            digest.update(opened.read())
    config = folder / "config.json"
    digest.update(config.read_bytes() if config.is_file() else b"")
    return digest.hexdigest()[:16]
