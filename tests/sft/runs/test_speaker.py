"""posttrain.sft.runs.speaker: our model and transformers', behind the same calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch.testing import assert_close

from posttrain.pretraining.sampling.filters import SamplingParams
from posttrain.sft.adapters.files import save_adapter
from posttrain.sft.adapters.injection import inject_lora, lora_layers
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.chat.masking import encode_for_training
from posttrain.sft.chat.template import Message
from posttrain.sft.runs import speaker as module
from posttrain.sft.runs.speaker import HandSpeaker, LibrarySpeaker, is_ours, load_speaker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = [[5, 6, 7, 8, 9], [40, 41], [300, 4, 9]]


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    from posttrain.pretraining.model.weights import load_pretrained

    model, config = load_pretrained(tiny_base), LoRAConfig(r=2)
    inject_lora(model, config, seed=0)
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.lora_B, std=0.3)
    save_adapter(model, config, tmp_path, base_model_name=str(tiny_base))
    return tmp_path


def test_both_say_the_same(
    tiny_base: Path, adapter: Path, tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    messages: list[Message] = [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho, ho"},
    ]  # fmt: skip
    examples = [encode_for_training(messages, tokenizer)]
    params = SamplingParams(temperature=0.0, max_new_tokens=6, stop_token_ids=(2,))
    for given in (None, adapter):
        ours, _ = load_speaker(tiny_base, given, dtype=torch.float32)
        with monkeypatch.context() as patch:
            patch.setattr(module, "is_ours", lambda name: False)
            theirs, _ = load_speaker(tiny_base, given, dtype=torch.float32)
        assert isinstance(ours, HandSpeaker) and isinstance(theirs, LibrarySpeaker)
        assert ours.losses(examples) == pytest.approx(theirs.losses(examples), abs=1e-4)
        answers = ours.answers(PROMPTS, 2, 6)
        assert answers == theirs.answers(PROMPTS, 2, 6)
        assert [list(ours.stream(prompt, params)) for prompt in PROMPTS] == answers
        assert_close(ours.logits(PROMPTS[0]), theirs.logits(PROMPTS[0]), atol=1e-4, rtol=1e-4)
    base = load_speaker(tiny_base, dtype=torch.float32)[0]
    assert (base.logits(PROMPTS[0]) - ours.logits(PROMPTS[0])).abs().max() > 0.1


def test_four_bits_are_another_model(tiny_base: Path) -> None:
    plain, quantized = (
        load_speaker(tiny_base, dtype=torch.float32, quantization=chosen)[0]
        for chosen in (None, "nf4")
    )
    apart = (plain.logits(PROMPTS[0]) - quantized.logits(PROMPTS[0])).abs().max()
    assert 1e-3 < apart < 30


def test_which_architectures_are_ours(tiny_base: Path, tmp_path: Path) -> None:
    assert is_ours(tiny_base)
    (tmp_path / "config.json").write_text('{"model_type": "gemma2"}')
    assert not is_ours(tmp_path)
