"""posttrain.sft.command: what a run left. The runs themselves: sft/runs/test_own_run.py."""

from pathlib import Path

import pytest

from posttrain.core.errors import PosttrainError
from posttrain.sft.command import facts_of


def test_facts_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(PosttrainError, match=r"holds no evaluation.json: did the run end"):
        facts_of(tmp_path)
    (tmp_path / "evaluation.json").write_text('{"rows": 3}')
    assert facts_of(tmp_path) == {"rows": 3}
