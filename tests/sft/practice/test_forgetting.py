"""posttrain.sft.practice.forgetting: what is replayed is not measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from posttrain.sft.data.forgetting import general_chats
from posttrain.sft.practice import forgetting
from posttrain.sft.practice.forgetting import (
    BASE,
    MEASURED_CHATS,
    PLAIN,
    REMEDIES,
    parts,
    replayed,
    run,
)
from posttrain.sft.training.evaluation import tokenizer_of


def test_replayed_rows_are_not_those_that_are_measured() -> None:
    measured = general_chats(tokenizer_of(forgetting.CPU.model), MEASURED_CHATS)
    texts = {tuple(chat.input_ids) for chat in measured}
    for seed in range(3):
        drawn = replayed(0.2, 192, seed)
        assert len(drawn) == 48  # a fifth of 240
        assert not texts & {tuple(chat.input_ids) for chat in drawn}
    assert replayed(0.2, 288, 0) != replayed(0.2, 288, 1)
    assert replayed(0.0, 288, 0) == []
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match="share is"):
            replayed(share, 10, 0)
    with pytest.raises(ValueError, match="lower share"):
        replayed(0.9, 288, 0)


def test_the_base_model_is_measured_once() -> None:
    found = parts((0, 1, 2))
    assert found[0] == {"remedy": BASE, "seed": 0}
    assert len(found) == 1 + 3 * len(REMEDIES) and PLAIN in REMEDIES


@pytest.mark.parametrize("remedy", [BASE, "20 % replay", "full training"])
def test_a_part_measures_what_was_learned_and_lost(
    small: Callable[..., None], monkeypatch: pytest.MonkeyPatch, remedy: str
) -> None:
    small(forgetting, MEASURED_CHATS=3, MEASURED_PLAYS=2)
    monkeypatch.setitem(REMEDIES, "20 % replay", forgetting.Remedy(replay=0.2, rows=32))
    full = forgetting.Remedy(rows=32, rate=4e-4, full=True)
    monkeypatch.setitem(REMEDIES, "full training", full)
    (row,) = run({"remedy": remedy, "seed": 0})
    assert (len(row["chats"]), len(row["plays"]), len(row["right"])) == (3, 2, 320)
    names = {"remedy", "seed", "chats", "plays", "right", "steps", "diverged", "seconds"}
    assert row.keys() == names  # all rows of a record have the same
    assert row["steps"] == {BASE: 0, "20 % replay": 2, "full training": 2}[remedy]
