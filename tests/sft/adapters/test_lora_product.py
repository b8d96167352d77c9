"""sft.adapters.lora_product: autograd's numbers, with less kept; and where it is used."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from posttrain.sft.adapters.lora import LoRAConfig, LoRALinear
from posttrain.sft.adapters.lora_product import is_plain, lora_product

SCALING = 1.7  # no power of two, so that where it is multiplied shows in the roundings
Product = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def plain(x: Tensor, W: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """The formula as it stands in the paper, for autograd to differentiate."""
    return x @ W.T + (x @ A.to(x.dtype).T) @ B.to(x.dtype).T * scaling


def drawn(
    shape: tuple[int, ...] = (7, 6),
    out: int = 5,
    r: int = 3,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, W, A, B; the adapter in float32 where x is in fewer bits."""
    generator = torch.Generator().manual_seed(0)
    own = torch.promote_types(dtype, torch.float32)
    x = torch.randn(shape, generator=generator).to(dtype)
    W = torch.randn(out, shape[-1], generator=generator).to(dtype)
    A = torch.randn(r, shape[-1], generator=generator).to(own)
    B = torch.randn(out, r, generator=generator).to(own)
    return x.requires_grad_(), W, A.requires_grad_(), B.requires_grad_()


def run(product: Product, inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> list[Tensor]:
    """The result, and the gradients of x, A and B under a fixed slope."""
    x, W, A, B = (tensor.detach().requires_grad_(tensor.requires_grad) for tensor in inputs)
    y = product(x, W, A, B, SCALING)
    slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    y.backward(slope)
    return [y.detach(), *(t.grad for t in (x, A, B) if t.grad is not None)]


@pytest.mark.parametrize("shape", [(6,), (7, 6), (2, 7, 6), (2, 3, 4, 6), (0, 6)])
def test_values_and_gradients_are_autograds(shape: tuple[int, ...]) -> None:
    inputs = drawn(shape)
    ours, theirs = run(lora_product, inputs), run(plain, inputs)
    assert len(ours) == 4 and ours[0].shape == (*shape[:-1], 5)
    assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_gradients_equal_finite_differences() -> None:
    x, W, A, B = drawn(dtype=torch.float64)
    assert A.dtype == torch.float64
    assert torch.autograd.gradcheck(lora_product, (x, W, A, B, SCALING))


def test_an_input_without_gradient_gets_none() -> None:
    x, *others = drawn()
    inputs = (x.detach(), *others)
    ours = run(lora_product, inputs)
    assert len(ours) == 3
    assert_close(ours, run(plain, inputs), atol=1e-5, rtol=1e-5)


def test_bfloat16_is_as_near_to_the_truth_as_the_formula_is() -> None:
    inputs = drawn((64, 96), out=80, r=8, dtype=torch.bfloat16)
    exact = run(
        plain, tuple(t.detach().double().requires_grad_(t.requires_grad) for t in inputs)
    )
    ours, theirs = run(lora_product, inputs), run(plain, inputs)
    assert [t.dtype for t in ours] == [torch.bfloat16] * 2 + [torch.float32] * 2
    for own, other, truth in zip(ours, theirs, exact, strict=True):
        error, reference = (own - truth).abs().mean(), (other - truth).abs().mean()
        assert 0 < error < 1.2 * reference < 0.02 * truth.abs().mean()


def kept(product: Product, inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> list[Tensor]:
    """What is saved for the backward pass and is none of the inputs."""
    own, saved = {t.untyped_storage().data_ptr() for t in inputs}, []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        product(*inputs, SCALING)
    return saved


def test_h_alone_is_kept_and_the_casts_of_the_adapter() -> None:
    for dtype, extra in ((torch.float32, []), (torch.bfloat16, [(2, 40), (60, 2)])):
        inputs = drawn((50, 40), out=60, r=2, dtype=dtype)
        shapes = [tuple(tensor.shape) for tensor in kept(lora_product, inputs)]
        assert sorted(shapes) == sorted([*extra, (50, 2)])
        assert all(tensor.dtype == dtype for tensor in kept(lora_product, inputs))
    # the counter sees what it must: a square keeps what is squared
    squared = kept(lambda *parts: plain(*parts).square(), inputs)
    assert (50, 60) in [tuple(tensor.shape) for tensor in squared]


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    x, W, A, B = drawn()
    y = lora_product(x, W, A, B, SCALING)
    (gA,) = torch.autograd.grad(y.square().sum(), A, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gA.sum().backward()


def test_a_trainable_weight_is_refused() -> None:
    x, W, A, B = drawn()
    with pytest.raises(ValueError, match="the weight requires a gradient and this product has"):
        lora_product(x, W.requires_grad_(), A, B, SCALING)


# --- in the layer ---


class Scaled(nn.Linear):
    """A subclass may do anything in its forward pass, as bitsandbytes' layers do."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def adapted(base: nn.Module, **changes: float) -> LoRALinear:
    torch.manual_seed(0)
    layer = LoRALinear(base, LoRAConfig(r=2, lora_alpha=5, **changes))  # type: ignore[arg-type]
    nn.init.normal_(layer.lora_B)
    return layer


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Inputs with which the layer called the product."""
    seen: list[Tensor] = []

    def spy(x: Tensor, *others: object) -> Tensor:
        seen.append(x)
        return lora_product(x, *others)  # type: ignore[arg-type]

    monkeypatch.setattr("posttrain.sft.adapters.lora.lora_product", spy)
    return seen


def test_the_layer_uses_it_on_a_plain_linear_layer(calls: list[Tensor]) -> None:
    layer, x = (
        adapted(nn.Linear(6, 5, bias=False), lora_dropout=0.5).eval(),
        torch.randn(2, 3, 6),
    )
    y = layer(x)
    assert len(calls) == 1 and y.shape == (2, 3, 5)
    expected = plain(x, layer.base.weight, layer.lora_A, layer.lora_B, 2.5)
    assert_close(y, expected, atol=1e-5, rtol=1e-5)
    layer.train()  # now dropout acts
    layer(x)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "base", [nn.Linear(6, 5), Scaled(6, 5, bias=False)], ids=["bias", "sub"]
)
def test_the_layer_leaves_other_bases_to_autograd(calls: list[Tensor], base: nn.Module) -> None:
    layer, x = adapted(base), torch.randn(3, 6)
    update = plain(x, torch.zeros(5, 6), layer.lora_A, layer.lora_B, 2.5)
    assert_close(layer(x), base(x) + update)
    assert not calls and not is_plain(base, x)


def test_a_weight_that_is_trained_too_gets_its_gradient(calls: list[Tensor]) -> None:
    layer = adapted(nn.Linear(6, 5, bias=False))
    layer.base.weight.requires_grad_()
    layer(torch.randn(3, 6)).sum().backward()
    assert not calls and layer.base.weight.grad is not None and layer.base.weight.grad.any()


def test_under_autocast_all_is_as_it_was(calls: list[Tensor]) -> None:
    layer, x = adapted(nn.Linear(6, 5, bias=False)), torch.randn(3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        expected = layer.base(x) + (x @ layer.lora_A.T) @ layer.lora_B.T * layer.scaling
    assert not calls and y.dtype == torch.bfloat16 and torch.equal(y, expected)
    y.float().sum().backward()
    assert layer.lora_A.grad is not None and layer.lora_A.grad.dtype == torch.float32
    with torch.autocast("cpu", enabled=False):
        layer(x)
    assert len(calls) == 1
