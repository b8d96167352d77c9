"""posttrain.sft.recorded.rank_and_rate: one model for all runs, put back after each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.sft.recorded import rank_and_rate
from posttrain.sft.recorded.rank_and_rate import (
    FULL,
    PRESET,
    RANKS,
    SAME_AT,
    SCALINGS,
    FullLinear,
    adapter,
    parts,
    run,
    trained_in_full,
)


def test_the_scalings_agree_at_one_rank():
    assert [adapter(scaling, SAME_AT).scaling for scaling in SCALINGS] == pytest.approx([2] * 3)
    by_rank = {s: [adapter(s, r).scaling * r for r in RANKS] for s in SCALINGS}
    assert by_rank[SCALINGS[0]] == pytest.approx([16, 16, 16])  # alpha stays
    assert by_rank[SCALINGS[1]] == pytest.approx([2, 16, 128])  # the scale stays
    rooted = [adapter(SCALINGS[2], r).scaling * r**0.5 for r in RANKS]
    assert rooted == pytest.approx([rooted[0]] * 3)
    with pytest.raises(ValueError, match="no scaling 'beta'"):
        adapter("beta", 1)


def test_the_common_rank_runs_once():
    found = parts((0, 1))
    assert len(found) == 2 * (3 + 1 + 3 + 1)
    assert sum(part["r"] == SAME_AT for part in found) == 2
    assert [part["seed"] for part in found] == sorted(part["seed"] for part in found)


@pytest.fixture
def tiny(tiny_base: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    preset = replace(
        PRESET, model=str(tiny_base), dtype="float32", batch_size=4,
        lora=replace(PRESET.lora, layers_to_transform=(1,)),
        training=replace(PRESET.training, max_steps=3),
    )  # fmt: skip
    monkeypatch.setattr(rank_and_rate, "PRESET", preset)
    monkeypatch.setattr(rank_and_rate, "tokenizer_of", lambda name: tokenizer)
    monkeypatch.setattr(rank_and_rate, "EXAMPLES", 8)
    monkeypatch.setattr(rank_and_rate, "HELD_OUT", 4)
    monkeypatch.setattr(rank_and_rate, "RATES", (1e-3, 1e-2))
    monkeypatch.setattr(rank_and_rate, "FULL_RATES", (1e-4, 1e-3))
    rank_and_rate._prepared.cache_clear()
    yield
    rank_and_rate._prepared.cache_clear()


def state() -> dict[str, torch.Tensor]:
    model = rank_and_rate._prepared()[0]
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("scaling", "r"), [(SCALINGS[0], 1), (SCALINGS[2], 4), (FULL, None)])
def test_a_part_trains_and_leaves_the_model_as_it_was(tiny: None, scaling: str, r: int | None):
    before = state()
    part = {"seed": 0, "scaling": scaling, "r": r}
    rows = run(part)
    after = state()
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    assert [row["rate"] for row in rows] == ([1e-4, 1e-3] if scaling == FULL else [1e-3, 1e-2])
    assert len({row["start"] for row in rows}) == 1 and rows[0]["diverged"] is None
    assert all(row["losses"][0] == rows[0]["losses"][0] for row in rows)  # before any step
    assert rows[0]["val_loss"] != rows[1]["val_loss"]
    again: list[dict[str, Any]] = run(part)
    assert [row["val_loss"] for row in again] == [row["val_loss"] for row in rows]


def test_full_training_reaches_the_matrices_of_the_adapter_and_no_other(tiny: None):
    model = rank_and_rate._prepared()[0]
    with trained_in_full(model, rank_and_rate.PRESET.lora):
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        assert len(trained) == 7
        assert all(n.startswith("layers.1.") and n.endswith(".change") for n in trained)
    assert not any(isinstance(module, FullLinear) for module in model.modules())


def test_a_full_layer_starts_as_its_base_and_has_the_gradient_of_its_weight():
    base = torch.nn.Linear(3, 2, bias=False)
    x = torch.randn(4, 3)
    expected = torch.autograd.grad(base(x).square().sum(), base.weight)[0]
    layer = FullLinear(base)
    assert (layer(x) == base(x)).all()
    layer(x).square().sum().backward()
    torch.testing.assert_close(layer.change.grad, expected)
