"""posttrain.sft.adapters.merge: the same function, exactly once, and all the way back."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.model.weights import load_pretrained, save_pretrained
from posttrain.sft.adapters.injection import inject_lora, lora_layers, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig, LoRALinear
from posttrain.sft.adapters.merge import merge_lora, merged_state, remove_lora, unmerge_lora

CONFIG = GPTConfig(vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2)
IDS = torch.arange(10)[None]


def adapted(config: LoRAConfig | None = None, dtype: torch.dtype = torch.float32) -> GPT:
    """A GPT whose adapters matter."""
    torch.manual_seed(0)
    model = GPT(CONFIG).to(dtype)
    inject_lora(model, config or LoRAConfig(r=2))
    for name, parameter in lora_parameters(model).items():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)
        elif name.endswith("vector"):
            parameter.data *= torch.rand_like(parameter) + 0.5
    return model


VARIANTS = {
    "lora": LoRAConfig(r=2),
    "rslora": LoRAConfig(r=2, use_rslora=True),
    "dora": LoRAConfig(r=2, use_dora=True),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_merged_is_the_same_function(config: LoRAConfig) -> None:
    model = adapted(config)
    plain = GPT(CONFIG)
    expected = model(IDS)
    state = merged_state(model)
    plain.load_state_dict(state)
    merge_lora(model)
    assert_close(model(IDS), expected)
    assert_close(plain(IDS), expected)
    assert torch.equal(plain(IDS), model(IDS))
    assert torch.equal(merged_state(model)["layers.0.mlp.up_proj.weight"],
                       state["layers.0.mlp.up_proj.weight"])  # fmt: skip
    torch.manual_seed(0)
    assert not torch.allclose(GPT(CONFIG)(IDS), expected, atol=1e-3)  # the adapters matter


def test_merge_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    inject_lora(model, LoRAConfig(r=1, lora_alpha=3, target_modules=("0",)))
    layer = lora_layers(model)["0"]
    with torch.no_grad():
        layer.base.weight.copy_(torch.tensor([[1.0, 2]]))
        layer.lora_A.copy_(torch.tensor([[1.0, -1]]))
        layer.lora_B.fill_(2)
    merge_lora(model)
    assert layer.base.weight.tolist() == [[1 + 6, 2 - 6]]
    unmerge_lora(model)
    assert layer.base.weight.tolist() == [[1, 2]]


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unmerging_gives_every_bit_back(config: LoRAConfig, dtype: torch.dtype) -> None:
    model = adapted(config, dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model(IDS)
    for _ in range(2):
        merge_lora(model)
        changed = [n for n, value in model.state_dict().items() if not value.equal(before[n])]
        assert len(changed) == 2 * 7 and all(n.endswith("base.weight") for n in changed)
        unmerge_lora(model)
        assert all(value.equal(before[n]) for n, value in model.state_dict().items())
        assert torch.equal(model(IDS), expected)
    assert all(layer.original is None for layer in lora_layers(model).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_subtracting_would_not_give_every_bit_back(dtype: torch.dtype) -> None:
    layer = lora_layers(adapted(dtype=dtype))["layers.0.mlp.down_proj"]
    update = layer.lora_B @ layer.lora_A * layer.scaling
    back = (layer.merged_weight().float() - update).to(dtype)
    assert not torch.equal(back, layer.base.weight)


def test_a_merge_in_bfloat16_rounds_once() -> None:
    layer = lora_layers(adapted(dtype=torch.bfloat16))["layers.0.mlp.down_proj"]
    exact = layer.base.weight.double() + (layer.lora_B @ layer.lora_A).double() * layer.scaling
    merged = layer.merged_weight()
    assert merged.dtype == torch.bfloat16
    assert ((merged.double() - exact).abs() <= exact.abs() * 2**-8).all()


def test_a_merged_adapter_follows_its_model_to_another_dtype() -> None:
    model = adapted()
    merge_lora(model)
    model.double()
    unmerge_lora(model)
    assert_close(model(IDS), adapted()(IDS).double(), atol=1e-5, rtol=1e-5)


def test_merging_twice_is_refused_and_changes_nothing() -> None:
    model = adapted()
    merge_lora(model)
    expected = model(IDS)
    sentence = r"layers\.0\.self_attn\.q_proj is merged already: a second time would add it"
    with pytest.raises(ValueError, match=sentence):
        merge_lora(model)
    assert torch.equal(model(IDS), expected)


def test_unmerging_what_is_not_merged_is_refused() -> None:
    with pytest.raises(ValueError, match=r"q_proj is not merged: there is nothing to undo"):
        unmerge_lora(adapted())


def test_a_merged_model_cannot_be_trained_by_mistake() -> None:
    model = adapted()
    merge_lora(model)
    assert not model(IDS).requires_grad


def test_removing_leaves_the_model_or_the_merged_one() -> None:
    torch.manual_seed(0)
    plain = GPT(CONFIG)
    model = adapted()
    tuned = model(IDS)
    remove_lora(model)
    assert torch.equal(model(IDS), plain(IDS))
    assert model.state_dict().keys() == plain.state_dict().keys()
    model = adapted()
    merge_lora(model)
    remove_lora(model)
    assert_close(model(IDS), tuned)
    assert not any(isinstance(m, LoRALinear) for m in model.modules())
    inject_lora(model, LoRAConfig())  # not refused


def test_merged_weights_are_saved_and_load_as_a_plain_model(tmp_path) -> None:
    model = adapted()
    expected = model(IDS)
    plain = GPT(CONFIG)
    plain.load_state_dict(merged_state(model))
    save_pretrained(plain, tmp_path)
    assert_close(load_pretrained(tmp_path)(IDS), expected)
    assert torch.equal(model(IDS), expected)  # and the model is as it was


class Halves(nn.Module):
    """A quantized layer as the adapters see one."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.register_buffer("codes", (base.weight.detach() * 2).round().to(torch.int8))
        self.bias = base.bias

    def dequantize(self) -> Tensor:
        return self.codes.float() / 2

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.dequantize(), self.bias)


def quantized() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(*(Halves(nn.Linear(6, 6)) for _ in range(2)), nn.LayerNorm(6))
    inject_lora(model, LoRAConfig(r=2, target_modules=("1",)))
    nn.init.normal_(lora_layers(model)["1"].lora_B)
    return model


def test_a_quantized_layer_is_not_merged_into() -> None:
    with pytest.raises(ValueError, match=r"1 is quantized, and its few bits .* merged_state"):
        merge_lora(quantized())


def test_merged_state_of_a_quantized_model_is_dequantized() -> None:
    model, x = quantized(), torch.randn(4, 6)
    plain = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.LayerNorm(6))
    plain.load_state_dict(merged_state(model))
    assert_close(plain(x), model(x))


def test_a_tied_head_is_not_merged() -> None:
    model = adapted(LoRAConfig(target_modules=("up_proj", "lm_head")))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for call in (merge_lora, merged_state):
        with pytest.raises(ValueError, match="lm_head shares its weight with another layer"):
            call(model)
    assert all(value.equal(before[n]) for n, value in model.state_dict().items())


def test_a_plain_model_is_refused() -> None:
    for call in (merge_lora, unmerge_lora, merged_state, remove_lora):
        with pytest.raises(ValueError, match="the model has no LoRA layer"):
            call(GPT(CONFIG))
