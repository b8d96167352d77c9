"""posttrain.dpo.training.dpo_run: it starts at log 2, learns, and goes on after a stop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.core.training.optimization import TrainingConfig
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.training import dpo_run
from posttrain.dpo.training.dpo_run import check_start, measure_pairs, train_pairs
from posttrain.dpo.training.pair_batches import ReferenceLogps
from posttrain.dpo.training.pair_forward import reference_logps
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.adapters.files import load_adapter, save_adapter
from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.adapters.lora import LoRAConfig

CONFIG = GPTConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
    initializer_range=0.3,
)  # fmt: skip
LORA = LoRAConfig(r=4, lora_alpha=8)
DPO = PreferenceLossConfig(beta=0.5)
PAIRS = [
    EncodedPair((i % 7 + 1, i % 5 + 10), (20, i % 3 + 21, 2), (25, i % 3 + 26, 2))
    for i in range(16)
]
TRAINING = TrainingConfig(
    max_steps=12, learning_rate=0.02, warmup_steps=0, weight_decay=0.0, eval_steps=4,
    save_steps=4, bf16=False,
)  # fmt: skip


def start(folder: Path) -> GPT:
    """A fine-tuned model: random weights, and an adapter that does something."""
    torch.manual_seed(0)
    model = GPT(CONFIG)
    if not folder.exists():
        inject_lora(model, LORA, 0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        save_adapter(model, LORA, folder, base_model_name="tiny")
        return start(folder)
    load_adapter(model, folder)
    return model.eval()


def run(tmp_path: Path, out: str, **changed: Any) -> Any:
    options: dict[str, Any] = {
        "batch_size": 4, "scratch": None, "base_model_name": "tiny", "config": DPO,
        "training": TRAINING, "pairs": PAIRS, "validation": PAIRS[:6], **changed,
    }  # fmt: skip
    model = start(tmp_path / "sft")
    history, diverged = train_pairs(
        model, LORA, options.pop("pairs"), options.pop("validation"), options.pop("config"),
        options.pop("training"), tmp_path / out, **options,
    )  # fmt: skip
    return model, history, diverged


def test_it_starts_at_log_2_and_learns(tmp_path: Path) -> None:
    model, history, diverged = run(tmp_path, "out")
    first, last = history.evaluations[0], history.evaluations[-1]
    assert diverged is None and [row["step"] for row in history.evaluations] == [0, 4, 8, 12]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["margin"] == pytest.approx(0, abs=1e-5) and first["accuracy"] == 0.5
    assert history.loss[0] == pytest.approx(math.log(2), abs=1e-5)
    assert last["loss"] < 0.5 and last["accuracy"] == 1 and last["margin"] > 0.5
    reference = reference_logps(start(tmp_path / "sft"), PAIRS[:6])
    found = measure_pairs(model, PAIRS[:6], reference, DPO)
    assert found.loss == pytest.approx(last["loss"], abs=1e-5)


def test_the_written_adapter_is_the_policy(tmp_path: Path) -> None:
    model, _, _ = run(tmp_path, "out")
    torch.manual_seed(0)
    again = GPT(CONFIG)
    load_adapter(again, tmp_path / "out" / "last")
    ids = torch.arange(10)[None]
    torch.testing.assert_close(again.eval()(ids), model(ids))


def test_a_stopped_run_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, history, _ = run(tmp_path, "whole", scratch=tmp_path / "a")
    asked = 0
    usual = dpo_run.preference_loss

    def stops(*args: Any) -> Any:
        nonlocal asked
        asked += torch.is_grad_enabled()
        if asked == 7:
            raise KeyboardInterrupt
        return usual(*args)

    monkeypatch.setattr(dpo_run, "preference_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "stopped", scratch=tmp_path / "b")
    monkeypatch.setattr(dpo_run, "preference_loss", usual)
    resumed, again, _ = run(tmp_path, "stopped", scratch=tmp_path / "b")
    assert again.resumed_at == 4 and again.loss == history.loss
    assert again.evaluations == history.evaluations
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_knows_its_loss_and_its_pairs(tmp_path: Path) -> None:
    run(tmp_path, "out", scratch=tmp_path / "a")
    for changed in (
        {"config": PreferenceLossConfig(beta=0.1)}, {"pairs": PAIRS[::-1]},
        {"validation": PAIRS[:5]}, {"batch_size": 2},
    ):  # fmt: skip
        with pytest.raises(Exception, match="checkpoint"):
            run(tmp_path, "other", scratch=tmp_path / "a", **changed)


@pytest.mark.parametrize("loss_type", ["ipo", "orpo", "simpo", "sigmoid_norm", "robust"])
def test_other_losses_train_too(tmp_path: Path, loss_type: str) -> None:
    options: dict[str, Any] = {
        "ipo": {"ipo_aggregation": "mean"}, "simpo": {"simpo_gamma": 0.5},
        "robust": {"label_smoothing": 0.1},
    }.get(loss_type, {})  # fmt: skip
    config = PreferenceLossConfig(loss_type=loss_type, beta=0.5, **options)
    _, history, _ = run(tmp_path, "out", config=config)
    assert history.evaluations[-1]["loss"] < history.evaluations[0]["loss"]
    assert history.evaluations[-1]["accuracy"] > 0.9


def test_what_makes_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one validation pair"):
        run(tmp_path, "out", validation=[])
    with pytest.raises(ValueError, match="KTO takes single answers"):
        run(tmp_path, "out", config=PreferenceLossConfig(loss_type="kto"))
    assert not (tmp_path / "out").exists()


def test_another_reference_is_seen_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is the fine-tuned model, not the base model."""

    def base(model: GPT, pairs: Any) -> ReferenceLogps:
        torch.manual_seed(0)
        return reference_logps(GPT(CONFIG), pairs)

    monkeypatch.setattr(dpo_run, "reference_logps", base)
    with pytest.raises(ValueError, match="the reference is another model"):
        run(tmp_path, "out")
    found = measure_pairs(
        start(tmp_path / "sft"), PAIRS, reference_logps(start(tmp_path / "sft"), PAIRS), DPO
    )
    check_start(found, DPO)
