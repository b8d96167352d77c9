"""``posttrain sft``: from a file of examples to a model that can be used.

Chapter: sft/your_model.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from posttrain.core.errors import PosttrainError
from posttrain.core.storage.files import is_disk_full, plain
from posttrain.core.storage.paths import home
from posttrain.sft.runs.folder import RunFolder
from posttrain.sft.runs.own_run import RunRequest, execute_run, identity_of, prepare_run

PreparedT = TypeVar("PreparedT", bound="_Prepared")


class RunStopped(PosttrainError):
    """A run was ended from outside; the message says how it goes on."""


def sft_command(
    request: RunRequest,
    out: Path | None = None,
    *,
    resume: bool = False,
    dry_run: bool = False,
    arguments: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> None:
    """Run ``posttrain sft``.

    Args:
        request: What was asked for.
        out: Folder for the run; one in the store, named by what decides the result, where it
            is left out. That one goes on by itself.
        resume: Go on with the run that ``out`` holds.
        dry_run: Say what would be done, and do nothing.
        arguments: The command's own arguments, to say how a run goes on.
        say: Takes each line for people.

    Raises:
        RunStopped: At Ctrl-C, or where disk or memory ends.
        AssetError: If model, rows or folder cannot be had.
        ValueError: If a setting or a row is wrong, or this machine cannot run it.

    Chapter: sft/your_model.
    """  # noqa: DOC502, DOC503
    run_command(
        "sft",
        lambda plan_only: prepare_run(request, plan_only=plan_only),
        execute_run,
        identity_of,
        out,
        resume=resume,
        dry_run=dry_run,
        arguments=arguments,
        say=say,
    )


class _Prepared(Protocol):
    """A run that could begin now, of any stage."""

    @property
    def preset(self) -> Any:
        """What has a ``name``."""

    def lines(self) -> list[str]:
        """Say what will be done."""


class Finished(Protocol):
    """What is left of a run, of any stage.

    Chapter: sft/your_model.
    """

    def lines(self) -> list[str]:
        """Say what came out."""


def run_command(
    stage: str,
    prepare: Callable[[bool], PreparedT],
    execute: Callable[..., Finished],
    identity: Callable[[PreparedT], dict[str, Any]],
    out: Path | None,
    *,
    resume: bool,
    dry_run: bool,
    arguments: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Run a stage's command: the folder, the plan, the run, and what an interruption says.

    Args:
        stage: Its name, for a folder in the store.
        prepare: Reads and plans, given whether a plan is all that is wanted.
        execute: Trains what was prepared; see ``sft.runs.own_run.execute_run``.
        identity: Lists all that decides the result.
        out: See :func:`sft_command`.
        resume: See :func:`sft_command`.
        dry_run: See :func:`sft_command`.
        arguments: See :func:`sft_command`.
        say: See :func:`sft_command`.

    Raises:
        RunStopped: At Ctrl-C, or where disk or memory ends.
        ValueError: If ``resume`` comes without a folder.

    Chapter: sft/your_model.
    """  # noqa: DOC503
    if out is not None and not dry_run:
        RunFolder(out).check(resume=resume)
    if out is None and resume:
        raise ValueError("--resume without --out: name the folder of the run that is to go on")
    try:
        run = prepare(dry_run)
        for line in run.lines():
            say(line)
        if dry_run:
            say("nothing was trained (--dry-run)")
            return
        folder = out or _own_folder(stage, run.preset.name, identity(run))
        if out is None and (record := RunFolder(folder).record) is not None:
            if record["status"] == "finished":
                say(f"this run is finished already: {folder}")
                return
            resume = True
        for line in execute(run, folder, resume=resume, say=say).lines():
            say(line)
    except KeyboardInterrupt:
        raise RunStopped(_stopped(out, arguments, "stopped")) from None
    except OSError as error:
        if not is_disk_full(error):
            raise
        what = f"the disk is full ({error.filename or error}): make room"
        raise RunStopped(_stopped(out, arguments, what)) from None


def _own_folder(stage: str, preset: str, identity: dict[str, Any]) -> Path:
    text = json.dumps(identity, sort_keys=True, default=plain)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return home() / "runs" / f"{stage}-{preset}-{key}"


def _stopped(out: Path | None, arguments: Sequence[str], what: str) -> str:
    words = [word for word in arguments if word != "--resume"]
    if out is None:
        return f"{what}; the same command goes on from the last checkpoint"
    folder = RunFolder(out)
    if folder.record is None:
        return f"{what}; nothing was written"
    again = shlex.join(["posttrain", *words, "--resume"])
    return (
        f"{what} after step {folder.steps_done}; go on from the last checkpoint with: {again}"
    )


def facts_of(folder: Path) -> dict[str, Any]:
    """Read what a finished run measured.

    Args:
        folder: The run's folder.

    Returns:
        The content of ``evaluation.json``.

    Raises:
        PosttrainError: If there is none.

    Chapter: sft/your_model.
    """
    file = folder / "evaluation.json"
    if not file.is_file():
        raise PosttrainError(f"{folder} holds no evaluation.json: did the run end?")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
