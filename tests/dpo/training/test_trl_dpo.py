"""posttrain.dpo.training.trl_dpo: TRL's trainer and the run by hand are one computation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.core.training.optimization import TrainingConfig
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.training.dpo_run import train_pairs
from posttrain.dpo.training.trl_dpo import dpo_config, run_trl_pairs
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.weights import load_pretrained, save_pretrained
from posttrain.sft.adapters.files import load_adapter, save_adapter
from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.adapters.lora import LoRAConfig

pytest.importorskip("trl")

LORA = LoRAConfig(r=4, lora_alpha=8)
TRAINING = TrainingConfig(
    max_steps=5, learning_rate=0.01, warmup_steps=0, weight_decay=0.0, eval_steps=0,
    save_steps=0, bf16=False, min_lr_ratio=0.0, adam_beta2=0.999,
)  # fmt: skip
PAIRS = [
    EncodedPair(
        tuple(range(10 + i, 14 + 2 * i)), (40 + i, *range(50, 52 + i % 4), 2), (60, 61 + i, 2)
    )
    for i in range(9)
]


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a fine-tuned adapter beside it."""
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        initializer_range=0.3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("pairs")
    model = GPT(config)
    save_pretrained(model, folder / "base")
    tokenizer.save_pretrained(folder / "base")
    inject_lora(model, LORA, 0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(model, LORA, folder / "sft", base_model_name=str(folder / "base"))
    return folder


@pytest.mark.parametrize(
    ("options", "precompute"),
    [
        ({"beta": 0.3}, False),
        ({"beta": 0.3}, True),
        ({"loss_type": "ipo", "ipo_aggregation": "mean", "beta": 0.5}, False),
        ({"loss_type": "robust", "label_smoothing": 0.2, "beta": 0.3}, False),
        ({"loss_type": "sigmoid_norm", "beta": 2.0}, False),
    ],
)
def test_losses_and_weights_agree_step_by_step(
    folder: Path, tmp_path: Path, options: dict[str, Any], precompute: bool
) -> None:
    config = PreferenceLossConfig(**options)
    theirs = run_trl_pairs(
        str(folder / "base"), folder / "sft", PAIRS, config, TRAINING, tmp_path / "trl",
        batch_size=2, dtype=torch.float32, precompute=precompute,
    )  # fmt: skip
    model = load_pretrained(str(folder / "base"), torch.float32)
    load_adapter(model, folder / "sft")
    history, diverged = train_pairs(
        model, LORA, PAIRS, PAIRS[:2], config, TRAINING, tmp_path / "ours", batch_size=2,
        keep_order=True,
    )  # fmt: skip
    assert diverged is None and len(theirs.losses) == 5
    assert history.loss == pytest.approx(theirs.losses, abs=2e-4)
    assert history.loss[-1] != pytest.approx(history.loss[0], abs=1e-3)
    if config.loss_type == "sigmoid":
        assert theirs.losses[0] == pytest.approx(math.log(2), abs=1e-4)
    ours, other = (load_pretrained(str(folder / "base"), torch.float32) for _ in range(2))
    load_adapter(ours, tmp_path / "ours" / "last")
    load_adapter(other, theirs.adapter)
    ids = torch.arange(20)[None]
    torch.testing.assert_close(ours(ids), other(ids), rtol=1e-3, atol=2e-3)
    first = sum(2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids)
                for p in [*PAIRS[:8], *PAIRS[:2]])  # fmt: skip
    assert theirs.tokens == first


def test_what_trl_would_train_otherwise_is_refused(tmp_path: Path) -> None:
    for options in (
        {"loss_type": "simpo", "simpo_gamma": 0.5}, {"label_smoothing": 0.1},
        {"loss_type": "ipo", "ipo_aggregation": "sum"}, {"loss_type": "orpo"},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="TRL's DPOTrainer does not train"):
            dpo_config(PreferenceLossConfig(**options), TRAINING, 2, tmp_path)  # type: ignore[arg-type]


def test_trl_gets_every_setting(tmp_path: Path) -> None:
    config = PreferenceLossConfig(loss_type="robust", beta=0.3, label_smoothing=0.2)
    theirs = dpo_config(config, TRAINING, 3, tmp_path, precompute=True)
    assert theirs.loss_type == ["robust"] and theirs.beta == 0.3
    assert theirs.label_smoothing == 0.2 and theirs.precompute_ref_log_probs
    for name in ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
                 "max_grad_norm", "max_steps", "warmup_steps", "seed"):  # fmt: skip
        assert getattr(theirs, name) == getattr(TRAINING, name), name
    assert theirs.per_device_train_batch_size == 3 and theirs.max_length is None
