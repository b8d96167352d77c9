"""posttrain.pretraining.sampling.decoding: the packed copy gives what the model gives."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.sampling.decoding import PackedGPT, PackedLinear
from posttrain.pretraining.training.failures import LeakyGPT


def tiny(dtype: torch.dtype = torch.float32, **changes: object) -> GPT:
    torch.manual_seed(0)
    shape = {
        "vocab_size": 23, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_key_value_heads": 2, "max_position_embeddings": 16, "initializer_range": 0.2,
        **changes,
    }  # fmt: skip
    model = GPT(GPTConfig(**shape)).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.to(dtype)


def batch() -> tuple[Tensor, Tensor]:
    ids = torch.randint(23, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    return ids, mask


@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_word_embeddings": False}, {"num_key_value_heads": 4}, {"head_dim": 20},
     {"rms_norm_eps": 0.1, "rope_theta": 100.0}],
)  # fmt: skip
@torch.no_grad()
def test_packed_equals_the_model(changes: dict[str, object]) -> None:
    model, (ids, mask) = tiny(**changes), batch()
    packed, real = PackedGPT(model), mask.bool()
    expected = model(ids, mask)
    at_once = packed(ids, mask, packed.new_cache(3))
    assert_close(at_once[real], expected[real], atol=1e-5, rtol=1e-5)

    cache, pieces = packed.new_cache(3, 12), []
    for start, end in ((0, 7), (7, 8), (8, 12)):
        pieces.append(packed(ids[:, start:end], mask[:, :end], cache))
    assert_close(torch.cat(pieces, dim=1)[real], expected[real], atol=1e-5, rtol=1e-5)
    last = packed(ids, mask, packed.new_cache(3), logits_to_keep=1)
    assert_close(last, expected[:, -1:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_packed_in_bfloat16_is_as_close_to_float32_as_the_model() -> None:
    # Packing rounds in other places, so bfloat16 results differ in the last of their 8 bits.
    # Whether that is an error or rounding, the distance from the exact result tells.
    model, (ids, mask) = tiny(torch.bfloat16), batch()
    real = mask.bool()
    exact = tiny(torch.float32)
    exact.load_state_dict({k: v.float() for k, v in model.state_dict().items()})
    expected = exact(ids, mask)[real]
    packed = PackedGPT(model)
    result = packed(ids, mask, packed.new_cache(3))
    assert result.dtype == torch.bfloat16
    own = (model(ids, mask)[real] - expected).abs().mean()
    theirs = (result[real] - expected).abs().mean()
    assert theirs < 1.5 * own and own < 0.02 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 64, 200])
def test_packed_linear_equals_linear(dtype: torch.dtype, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 32, generator=generator).to(dtype)
    x = torch.randn(2, rows, 32, generator=generator).to(dtype)
    exact = x.double() @ weight.double().T
    # One rounding of the result: 8 bits of bfloat16, 24 of float32.
    tolerance = (
        {"atol": 1e-5, "rtol": 1e-5}
        if dtype == torch.float32
        else {"atol": 1e-2, "rtol": 2**-8}
    )
    assert_close(PackedLinear(weight)(x).double(), exact, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_packed_is_a_snapshot(dtype: torch.dtype) -> None:
    model, (ids, mask) = tiny(dtype), batch()
    packed = PackedGPT(model)
    before = packed(ids, mask, packed.new_cache(3))
    for parameter in model.parameters():
        parameter.mul_(1.5)
    assert torch.equal(packed(ids, mask, packed.new_cache(3)), before)


def test_packed_needs_no_gradient() -> None:
    packed, (ids, mask) = PackedGPT(tiny()), batch()
    assert not packed(ids, mask, packed.new_cache(3)).requires_grad


def test_new_cache_fits_the_packed_model() -> None:
    packed = PackedGPT(tiny(torch.bfloat16))
    cache = packed.new_cache(5)
    assert cache.keys.shape == (2, 5, 2, 16, 16) and cache.keys.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "change", [{"norm": "layernorm"}, {"position": "learned"}, {"mlp": "gelu"}]
)
def test_only_a_llama_can_be_packed(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="only a model with 'rmsnorm', 'rope' and 'swiglu'"):
        PackedGPT(tiny(**change))


def test_bad_input_is_refused_as_by_the_model() -> None:
    packed, (ids, mask) = PackedGPT(tiny()), batch()
    with pytest.raises(ValueError, match=r"attention_mask has shape \(3, 5\): give \(3, 12\)"):
        packed(ids, mask[:, :5], packed.new_cache(3))
    with pytest.raises(ValueError, match="token ids run from -3 to"):
        packed(ids - ids.min() - 3, mask, packed.new_cache(3))
    cache = packed.new_cache(3, 100)
    packed(ids, mask, cache)
    with pytest.raises(
        ValueError, match="24 positions are more than the model's context of 16"
    ):
        packed(ids, torch.cat((mask, mask), dim=1), cache)


# --- nothing is lost on the way ---


@pytest.mark.parametrize("where", ["all", "keys alone", "head"])
@torch.no_grad()
def test_every_bias_is_packed(where: str) -> None:
    model, (ids, mask) = tiny(), batch()
    for block in model.layers:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            if where == "all" or (where == "keys alone" and name == "k_proj"):
                layer = getattr(block.self_attn, name)
                layer.bias = nn.Parameter(torch.randn(layer.out_features))
    if where == "head":
        model.lm_head.bias = nn.Parameter(torch.randn(23))
    packed, real = PackedGPT(model), mask.bool()
    expected = model(ids, mask)
    assert_close(packed(ids, mask, packed.new_cache(3))[real], expected[real])
    assert not torch.allclose(expected, tiny()(ids, mask), atol=0.05)  # the biases count


class Changed(nn.Module):
    """A layer with a part that ``base`` does not have."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.change = base, nn.Parameter(torch.ones_like(base.weight))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.base.weight + self.change)


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_layer_that_does_more_than_its_weight_is_refused() -> None:
    for make in (Changed, lambda base: Scaled(64, 64, bias=False), nn.Sequential):
        model = tiny()
        model.layers[1].self_attn.o_proj = make(model.layers[1].self_attn.o_proj)
        with pytest.raises(TypeError, match=r"a (Changed|Scaled|Sequential) cannot be packed"):
            PackedGPT(model)


def test_a_model_with_a_mask_or_a_pass_of_its_own_is_refused() -> None:
    class Forward(GPT):
        def forward(self, *parts: object, **rest: object) -> Tensor:
            return -super().forward(*parts, **rest)  # type: ignore[arg-type]

    config = tiny().config
    for model, name in ((LeakyGPT(config), "visible"), (Forward(config), "forward")):
        with pytest.raises(ValueError, match=f"has a {name} of its own, which would be lost"):
            PackedGPT(model)
