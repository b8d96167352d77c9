"""posttrain.pretraining.training.side_by_side: the same runs, several at once."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from posttrain.core.artifacts import list_artifacts
from posttrain.core.errors import AssetError
from posttrain.pretraining.presets import NANO
from posttrain.pretraining.training import side_by_side as module
from posttrain.pretraining.training.run import pretrained
from posttrain.pretraining.training.side_by_side import train_side_by_side

TINY = replace(
    NANO,
    model=replace(NANO.model, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                  num_attention_heads=2, max_position_embeddings=8),
    batch_size=2,
    training=replace(NANO.training, max_steps=2, warmup_steps=1, eval_steps=0, save_steps=0),
)  # fmt: skip


def test_two_processes_train_what_one_would(store: Path) -> None:
    train_side_by_side([(TINY, 0), (TINY, 1), (TINY, 0)], processes=2)
    assert len(list_artifacts()) == 2
    found = [pretrained(TINY, seed) for seed in (0, 1)]
    assert len(list_artifacts()) == 2  # and none was trained again
    folder = found[1].artifact.folder
    before = {name: value.clone() for name, value in found[1].model.state_dict().items()}
    shutil.rmtree(folder)
    assert torch.get_num_threads() == 1
    again = pretrained(TINY, 1).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in before.items())


def test_one_process_is_this_one(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[object, int]] = []
    monkeypatch.setattr(
        module, "pretrained", lambda preset, seed: trained.append((preset, seed))
    )
    train_side_by_side([(TINY, 0), (TINY, 1)], processes=1)
    train_side_by_side([(TINY, 2)], processes=2)
    train_side_by_side([])
    assert trained == [(TINY, 0), (TINY, 1), (TINY, 2)]


def test_a_run_that_fails_is_heard_of(store: Path) -> None:
    wrong = replace(TINY, dataset="foxes")
    with pytest.raises(AssetError, match="foxes"):
        train_side_by_side([(wrong, 0), (wrong, 1)], processes=2)
    with pytest.raises(ValueError, match="processes is 0: give at least 1"):
        train_side_by_side([(TINY, 0)], processes=0)
