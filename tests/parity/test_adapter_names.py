"""Whatever is written reads back with the effect it had: in PEFT and here, for any family."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.sft.adapters.files import load_adapter, save_adapter
from posttrain.sft.adapters.injection import inject_lora, lora_layers
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.adapters.merge import merged_state

pytestmark = pytest.mark.parity
IDS = torch.arange(3, 12)[None]


def falcon() -> Any:
    from transformers import FalconConfig, FalconForCausalLM

    return FalconForCausalLM(FalconConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        new_decoder_architecture=False, multi_query=True,
    ))  # fmt: skip


def gpt_neox() -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2,
    ))  # fmt: skip


def bare_llama() -> Any:
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2,
    ))  # fmt: skip


def qwen2() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    ))  # fmt: skip


FAMILIES = {
    "falcon": (falcon, ("query_key_value", "dense")),
    "gpt-neox": (gpt_neox, ("query_key_value", "dense_4h_to_h")),
    "a bare Llama": (bare_llama, ("q_proj", "down_proj")),
    "qwen2": (qwen2, ("q_proj", "up_proj", "lm_head")),
}


def output(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found = model(IDS)
    result: torch.Tensor = found if isinstance(found, torch.Tensor) else found[0]
    return result


def trained(model: nn.Module, config: LoRAConfig) -> None:
    inject_lora(model, config, seed=0)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.lora_B, std=0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_familys_adapter_has_its_effect_in_peft(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    build, targets = FAMILIES[family]
    torch.manual_seed(0)
    base = build().eval()
    model, fresh = copy.deepcopy(base), copy.deepcopy(base)
    config = LoRAConfig(r=2, target_modules=targets)
    trained(model, config)
    assert (output(model) - output(base)).abs().max() > 1e-3
    save_adapter(model, config, tmp_path, base_model_name="drawn")
    load_adapter(fresh, tmp_path)
    assert_close(output(fresh), output(model))
    assert_close(
        output(PeftModel.from_pretrained(base, tmp_path).eval()), output(model),
        atol=1e-5, rtol=1e-5,
    )  # fmt: skip


def compiled_parts(model: GPT) -> GPT:
    model.layers[0] = torch.compile(model.layers[0])  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, compiled_parts],
    ids=["compiled", "parallel", "compiled parts"],
)  # fmt: skip
def test_wrapped_models_write_what_plain_ones_write(wrap: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = GPT(GPTConfig(vocab_size=40, hidden_size=16, intermediate_size=24,
                          num_hidden_layers=2, num_attention_heads=2)).eval()  # fmt: skip
    base = copy.deepcopy(plain)
    config = LoRAConfig(r=2)
    trained(plain, config)
    wrapped = wrap(copy.deepcopy(plain))
    save_adapter(plain, config, tmp_path / "plain", base_model_name="b")
    save_adapter(wrapped, config, tmp_path / "wrapped", base_model_name="b")
    one, other = (
        tmp_path / name / "adapter_model.safetensors" for name in ("plain", "wrapped")
    )
    assert one.read_bytes() == other.read_bytes()
    expected, found = merged_state(plain), merged_state(wrapped)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    target = wrap(copy.deepcopy(base))
    load_adapter(target, tmp_path / "wrapped")
    assert len(lora_layers(target)) == len(lora_layers(plain))
