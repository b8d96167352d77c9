"""sft.quantization.bnb_model: layers of bitsandbytes that are trained after an evaluation."""

import logging

import pytest
import torch
from torch import nn

from posttrain.core.errors import AssetError
from posttrain.sft.quantization.bnb_model import _quiet_imports, keep_trainable, load_in_4bit

with _quiet_imports():
    bitsandbytes = pytest.importorskip("bitsandbytes")


def four_bit_model() -> nn.Module:
    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(64, 32, bias=False, quant_type="nf4")
    return nn.Sequential(layer).to("cpu")  # moving it quantizes it


def gradient_after_an_evaluation(model: nn.Module) -> torch.Tensor | None:
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.eval()(x)
    model.train()
    x.requires_grad_()
    y = model(x)
    if y.requires_grad:
        return torch.autograd.grad(y.sum(), x, allow_unused=True)[0]
    return None


def test_layers_can_be_trained_after_an_evaluation() -> None:
    model = four_bit_model()
    codes = model[0].weight.detach().clone()
    assert keep_trainable(model) == 1
    gradient = gradient_after_an_evaluation(model)
    dense = bitsandbytes.functional.dequantize_4bit(codes, model[0].weight.quant_state)
    assert gradient is not None
    torch.testing.assert_close(gradient, dense.sum(dim=0).expand(3, -1))
    assert torch.equal(model[0].weight, codes)


def test_without_that_they_lose_their_gradient() -> None:
    model = four_bit_model()
    if not model[0].support_avx512bf16_for_cpu:
        pytest.skip("this processor has no AVX-512 with bfloat16: nothing is repacked")
    with pytest.warns(UserWarning, match="an autograd kernel was not registered"):
        assert gradient_after_an_evaluation(model) is None
    with pytest.raises(ValueError, match="0 is repacked already and has no gradient: load it"):
        keep_trainable(model)


def test_a_model_without_4_bit_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="no 4-bit layer of bitsandbytes"):
        keep_trainable(nn.Linear(2, 2))


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(AssetError, match="smollm2-135m-instruct"):
        load_in_4bit("smollm3")


def test_only_warnings_of_imports_are_muted(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("posttrain.test")
    with pytest.raises(ImportError), _quiet_imports():
        logger.warning("a kernel is missing")
        logger.error("something is broken")
        raise ImportError
    logger.warning("afterwards")
    assert [record.message for record in caplog.records] == [
        "something is broken",
        "afterwards",
    ]
