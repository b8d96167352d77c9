"""LoRA, rsLoRA and DoRA: ours against PEFT's, values, gradients and merged weights."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import LlamaForCausalLM

from posttrain.pretraining.model.gpt import GPT, next_token_loss
from posttrain.pretraining.model.weights import load_pretrained
from posttrain.sft.adapters.injection import inject_lora, lora_layers, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.adapters.merge import merge_lora, merged_state, unmerge_lora

pytestmark = pytest.mark.parity

VARIANTS = {
    "lora": LoRAConfig(r=4, lora_alpha=12),
    "rslora": LoRAConfig(r=4, lora_alpha=12, use_rslora=True),
    "dora": LoRAConfig(r=4, lora_alpha=12, use_dora=True),
    "dropout": LoRAConfig(r=4, lora_alpha=12, lora_dropout=0.3),
    "dora, dropout": LoRAConfig(r=4, lora_alpha=12, lora_dropout=0.3, use_dora=True),
    "some layers": LoRAConfig(
        r=2, target_modules=("v_proj", "up_proj"), layers_to_transform=(1,)
    ),
}
each_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())


def pair(base: Path, config: LoRAConfig) -> tuple[GPT, PeftModel]:
    """Ours and PEFT's, with the same base and the same adapter, none of it zero."""
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    llama = LlamaForCausalLM.from_pretrained(base, attn_implementation="eager")
    theirs = get_peft_model(llama, LoraConfig(**settings, task_type="CAUSAL_LM"))
    ours = load_pretrained(base)
    inject_lora(ours, config)
    matched = parameters(ours, theirs)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, (own, other) in matched.items():
            if name.endswith("lora_magnitude_vector"):
                assert_close(own, other)  # the rows' norms
                other.mul_(torch.rand_like(other) + 0.5)
            else:
                nn.init.normal_(other, std=0.1)
            own.copy_(other)
    return ours, theirs


def parameters(ours: GPT, theirs: PeftModel) -> dict[str, tuple[Tensor, Tensor]]:
    """Adapters' parameters that correspond; neither model has any other."""
    found = {
        name.removeprefix("base_model.model.model.")
        .replace(".default", "")
        .removesuffix(".weight"): parameter
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    own = lora_parameters(ours)
    assert own.keys() == found.keys()
    return {name: (own[name], found[name]) for name in own}


IDS = torch.randint(53, (3, 11), generator=torch.Generator().manual_seed(1))


@each_variant
def test_values_and_gradients(base: Path, config: LoRAConfig) -> None:
    ours, theirs = pair(base, config)
    ours.train()
    theirs.train()
    torch.manual_seed(2)  # the same masks, where there is dropout
    logits = ours(IDS)
    torch.manual_seed(2)
    expected = theirs(IDS).logits
    assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    for model_logits in (logits, expected):
        next_token_loss(model_logits[:, :-1], IDS[:, 1:]).backward()
    for own, other in parameters(ours, theirs).values():
        assert own.grad is not None and own.grad.abs().max() > 1e-4
        assert_close(own.grad, other.grad, atol=1e-5, rtol=1e-5)
    frozen = [p for n, p in ours.named_parameters() if n not in lora_parameters(ours)]
    assert frozen and all(p.grad is None for p in frozen)


@each_variant
def test_merged_weights(base: Path, config: LoRAConfig) -> None:
    ours, theirs = pair(base, config)
    before = ours(IDS)
    state = merged_state(ours)
    merge_lora(ours)
    assert_close(ours(IDS), before, atol=1e-5, rtol=1e-5)
    names = list(lora_layers(ours))
    merged = theirs.merge_and_unload()
    for name in names:
        expected = merged.get_parameter(f"model.{name}.weight")
        assert_close(lora_layers(ours)[name].base.weight, expected, atol=1e-5, rtol=1e-5)
        assert_close(state[f"{name}.weight"], expected, atol=1e-5, rtol=1e-5)
    assert_close(ours(IDS), merged(IDS).logits, atol=1e-5, rtol=1e-5)
    unmerge_lora(ours)
    assert torch.equal(ours(IDS), before)


def test_bfloat16_is_as_near_to_the_truth_as_peft_is(base: Path) -> None:
    """PEFT runs the adapter in float32, ours in the dtype of its input."""
    ours, theirs = pair(base, VARIANTS["lora"])
    truth = ours(IDS)
    adapters = {name: p.data.clone() for name, p in lora_parameters(ours).items()}
    ours.bfloat16()
    for name, parameter in lora_parameters(ours).items():
        parameter.data = adapters[name]
    for parameter in theirs.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    errors = [(m.float() - truth).abs().mean() for m in (ours(IDS), theirs(IDS).logits)]
    assert errors[0] < 1.5 * errors[1]
    assert errors[1] > 0


def test_b_starts_at_zero_and_a_in_the_same_range(base: Path) -> None:
    llama = LlamaForCausalLM.from_pretrained(base)
    theirs = get_peft_model(llama, LoraConfig(r=16, target_modules=["down_proj"]))
    ours = load_pretrained(base)
    inject_lora(ours, LoRAConfig(r=16, target_modules=("down_proj",)))
    for name, (own, other) in parameters(ours, theirs).items():
        assert own.shape == other.shape and own.dtype == other.dtype == torch.float32
        if name.endswith("lora_B"):
            assert not own.any() and not other.any()
        else:
            assert own.abs().max().item() == pytest.approx(other.abs().max().item(), rel=0.02)
            assert own.std().item() == pytest.approx(other.std().item(), rel=0.1)
