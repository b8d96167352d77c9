"""posttrain.sft.runs.merge: the merged model is the tuned one, in other files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch.testing import assert_close

from posttrain.core.errors import AssetError
from posttrain.core.training.optimization import TrainingConfig
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.weights import load_pretrained
from posttrain.sft.adapters.files import load_adapter
from posttrain.sft.chat.masking import encode_for_training
from posttrain.sft.chat.template import Message
from posttrain.sft.presets import SFTPreset
from posttrain.sft.quantization.nf4_linear import quantize_model
from posttrain.sft.runs.merge import merge_adapter
from posttrain.sft.training.by_hand_engine import run_by_hand

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IDS = torch.arange(40, 60)[None]


def trained(
    preset: SFTPreset,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    quantization: str | None,
) -> Path:
    """Train a tiny adapter, and leave beside it what a run would."""
    training = TrainingConfig(max_steps=4, learning_rate=0.1, bf16=False)
    preset = replace(
        preset, max_length=60, training=training, quantization=quantization,  # type: ignore[arg-type]
    )  # fmt: skip
    rows: list[list[Message]] = [
        [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "No."}]
        for n in range(4)
    ]
    examples = [encode_for_training(row, tokenizer) for row in rows]
    run = run_by_hand(preset, examples, folder)
    record = {"status": "finished", "identity": {"preset": {"quantization": quantization}}}
    (run.adapter / "run.json").write_text(json.dumps(record))
    return run.adapter


def tuned(preset: SFTPreset, adapter: Path, *, quantized: bool) -> GPT:
    model = load_pretrained(preset.model)
    if quantized:
        model = quantize_model(model)
    load_adapter(model, adapter)
    return model.requires_grad_(False).eval()


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_a_merged_model_answers_as_the_tuned_one(
    quantization: str | None, tiny_preset: SFTPreset, tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:  # fmt: skip
    adapter = trained(tiny_preset, tokenizer, tmp_path / "run", quantization)
    expected = tuned(tiny_preset, adapter, quantized=quantization == "nf4")(IDS)
    base = load_pretrained(tiny_preset.model)(IDS).detach()
    assert (expected - base).abs().max() > 0.1  # the adapter does something

    lines = merge_adapter(adapter, tmp_path / "merged", dtype=torch.float32)
    assert ("as 4 bits hold them" in lines[0]) is (quantization == "nf4")
    assert_close(
        load_pretrained(tmp_path / "merged")(IDS).detach(), expected, atol=1e-4, rtol=1e-4
    )

    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert_close(theirs(IDS).logits.detach(), expected, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template

    merge_adapter(adapter, tmp_path / "original", base="original", dtype=torch.float32)
    other = load_pretrained(tmp_path / "original")(IDS)
    apart = (other - expected).abs().max()
    assert bool(apart > 1e-2) is (quantization == "nf4"), apart

    merge_adapter(adapter, tmp_path / "half")
    weights = load_pretrained(tmp_path / "half", torch.bfloat16)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    assert (weights(IDS).float() - expected).abs().mean() < 0.1 * expected.std()


def test_what_cannot_be_merged_is_said(tiny_preset: SFTPreset, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(AssetError, match="is not empty: give a new folder"):
        merge_adapter(tmp_path, tmp_path / "full")
    with pytest.raises(AssetError, match=r"holds no readable adapter_config.json"):
        merge_adapter(tmp_path, tmp_path / "new")
    with pytest.raises(ValueError, match="base is '4bit': choose"):
        merge_adapter(tmp_path, tmp_path / "new", base="4bit")  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()
