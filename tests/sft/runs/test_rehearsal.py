"""posttrain.sft.runs.rehearsal: a real kill, a move, and the same bits."""

from pathlib import Path

import pytest

from posttrain.cli import command
from posttrain.core.errors import PosttrainError
from posttrain.sft.runs import rehearsal as module
from posttrain.sft.runs.rehearsal import rehearse


@pytest.mark.slow
def test_a_killed_run_ends_as_a_whole_one(tmp_path: Path) -> None:
    found = rehearse(tmp_path / "work", command, steps=60, kill_after=12)
    assert found.equal and 12 <= found.killed_after < 60 and found.steps == 60


def test_a_run_that_does_not_start_is_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.sys, "executable", "false")
    with pytest.raises(PosttrainError, match="the run that was to be killed ended by itself"):
        module._kill("sft", tmp_path, 3)
