"""``posttrain dpo``: from a file of pairs to a model that prefers as they do.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from posttrain.dpo.runs.own_run import (
    PairsRequest,
    execute_pairs,
    identity_of_pairs,
    prepare_pairs,
)
from posttrain.sft.command import run_command


def dpo_command(
    request: PairsRequest,
    out: Path | None = None,
    *,
    resume: bool = False,
    dry_run: bool = False,
    arguments: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> None:
    """Run ``posttrain dpo``.

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
        AssetError: If model, adapter, pairs or folder cannot be had.
        ValueError: If a setting or a row is wrong, or this machine cannot run it.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    run_command(
        "dpo",
        lambda plan_only: prepare_pairs(request, plan_only=plan_only),
        execute_pairs,
        identity_of_pairs,
        out,
        resume=resume,
        dry_run=dry_run,
        arguments=arguments,
        say=say,
    )
