"""sft.training.loss: the sum over trained tokens, its gradient, and what is averaged."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.sft.adapters.injection import inject_lora, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.chat.masking import IGNORE_INDEX
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.quantization.nf4_linear import quantize_model
from posttrain.sft.training import loss as module
from posttrain.sft.training.loss import blockwise_nll, masked_nll, sft_loss
from posttrain.sft.training.packed_forward import packed_hidden
from posttrain.sft.training.packing import pack

CONFIG = GPTConfig(
    vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False,
    initializer_range=0.3,
)  # fmt: skip
EXAMPLES = [
    EncodedChat([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1]),
    EncodedChat([7, 8, 9], [0, 1, 0]),
]


def drawn(positions: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, a head, labels."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(31, 16, generator=generator).to(dtype)
    return hidden, weight, torch.randint(31, (positions,), generator=generator)


# --- the plain sum ---


def test_masked_nll_by_hand() -> None:
    # softmax of (log 1, log 2, log 5) is (1/8, 2/8, 5/8)
    logits = torch.tensor([[1.0, 2, 5], [1, 2, 5], [5, 2, 1]]).log()
    total, terms = masked_nll(logits, torch.tensor([2, IGNORE_INDEX, 1]))
    assert total.item() == pytest.approx(-torch.tensor(5 / 8 * 2 / 8).log().item())
    assert terms == 2


@pytest.mark.parametrize("shape", [(9,), (2, 9)])
def test_masked_nll_is_the_sum_of_cross_entropies(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(*shape, 31, generator=generator, requires_grad=True)
    labels = torch.randint(31, shape, generator=generator)
    labels[..., 2:5] = IGNORE_INDEX
    total, terms = masked_nll(logits, labels)
    expected = F.cross_entropy(
        logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )
    assert terms == int((labels != IGNORE_INDEX).sum())
    assert_close(total, expected, atol=1e-5, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (total, expected))
    assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert not ours[..., 2:5, :].any() and ours[..., 0, :].all()


def test_masked_nll_of_bfloat16_logits_is_computed_in_float32() -> None:
    logits = torch.randn(200, 31, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.zeros(200, dtype=torch.int64)
    total, _ = masked_nll(logits, labels)
    assert total.dtype == torch.float32
    assert_close(total, masked_nll(logits.float(), labels)[0])


# --- in blocks ---


@pytest.mark.parametrize("positions", [1, 127, 128, 129, 300])
def test_blockwise_nll_is_the_same_sum(positions: int) -> None:
    hidden, weight, labels = drawn(positions)
    total = blockwise_nll(hidden, weight, labels)
    expected = F.cross_entropy(F.linear(hidden, weight), labels, reduction="sum")
    assert_close(total, expected, atol=1e-5, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(0.3 * v, hidden)[0] for v in (total, expected))
    assert theirs.any()
    assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_blockwise_nll_equals_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 2)
    hidden, weight, labels = drawn(5)
    step, numeric = 1e-2, torch.zeros_like(hidden)
    for place in range(hidden.numel()):
        offset = torch.zeros(hidden.numel())
        offset[place] = step
        offset = offset.view_as(hidden)
        above, below = (
            blockwise_nll(hidden.detach() + sign * offset, weight, labels) for sign in (1, -1)
        )
        numeric.view(-1)[place] = (above - below) / (2 * step)
    (gradient,) = torch.autograd.grad(blockwise_nll(hidden, weight, labels), hidden)
    assert_close(gradient, numeric, atol=0.01, rtol=0.01)  # float32 differences


def test_no_more_logits_exist_than_one_block_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 8)
    sizes: list[int] = []
    linear = F.linear

    def note(x: Tensor, W: Tensor) -> Tensor:
        sizes.append(len(x))
        return linear(x, W)

    monkeypatch.setattr(module.F, "linear", note)
    hidden, weight, labels = drawn(20)
    saved: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(tuple(t.shape)) or t, lambda t: t
    ):
        blockwise_nll(hidden, weight, labels)
    assert sizes == [8, 8, 4] and saved == [(20, 16)]


def test_bfloat16_is_as_near_to_the_truth_as_autograd_is() -> None:
    hidden, weight, labels = drawn(150, torch.bfloat16)
    exact = hidden.detach().double().requires_grad_()
    truth = F.cross_entropy(F.linear(exact, weight.double()), labels, reduction="sum")
    (true_gradient,) = torch.autograd.grad(truth, exact)
    errors = []
    for value in (
        blockwise_nll(hidden, weight, labels),
        masked_nll(F.linear(hidden, weight), labels)[0],
    ):
        (gradient,) = torch.autograd.grad(value, hidden)
        assert gradient.dtype == torch.bfloat16 and value.dtype == torch.float32
        assert value.item() == pytest.approx(truth.item(), rel=1e-2)
        errors.append((gradient - true_gradient).abs().mean())
    assert errors[0] < 1.2 * errors[1] < 0.02 * true_gradient.abs().mean()


def test_a_trainable_head_is_refused_in_blocks() -> None:
    hidden, weight, labels = drawn(3)
    with pytest.raises(ValueError, match="the output head requires a gradient and this loss"):
        blockwise_nll(hidden, weight.requires_grad_(), labels)


def test_a_gradient_of_the_gradient_is_refused() -> None:
    hidden, weight, labels = drawn(3)
    total = blockwise_nll(hidden, weight, labels).square()
    (gradient,) = torch.autograd.grad(total, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# --- of a model ---


def gpt() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG).eval()


def expected_loss(model: GPT) -> Tensor:
    """The same from logits of each conversation alone, at every position."""
    total = torch.zeros(())
    for example in EXAMPLES:
        logits = model(torch.tensor([example.input_ids]))[0]
        for position, trained in enumerate(example.assistant_mask):
            if trained:
                target = torch.tensor(example.input_ids[position])
                total = total + F.cross_entropy(logits[position - 1], target)
    return total


@pytest.mark.parametrize("head", ["frozen", "trained", "adapted", "tied"])
def test_the_loss_of_a_batch_and_its_gradients(head: str) -> None:
    model = gpt()
    if head == "tied":
        model.lm_head.weight = model.embed_tokens.weight
    targets = ("q_proj", "down_proj", *(("lm_head",) if head == "adapted" else ()))
    inject_lora(model, LoRAConfig(r=2, target_modules=targets), seed=0)
    torch.manual_seed(4)
    for parameter in lora_parameters(model).values():
        nn.init.normal_(parameter, std=0.2)
    if head == "trained":
        model.lm_head.requires_grad_()
    total, terms = sft_loss(model, pack(EXAMPLES))
    expected = expected_loss(model)
    assert terms == 4
    assert_close(total, expected, atol=1e-5, rtol=1e-5)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == {"adapted": 10, "trained": 9}.get(head, 8)
    ours, theirs = (torch.autograd.grad(value, trained) for value in (total, expected))
    assert all(gradient.any() for gradient in theirs)
    assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_quantized_head_is_scored_too() -> None:
    model = quantize_model(gpt(), skip=())
    total, terms = sft_loss(model, pack(EXAMPLES))
    assert terms == 4
    assert_close(total, expected_loss(model), atol=1e-5, rtol=1e-5)


def test_logits_are_computed_where_a_token_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = gpt().requires_grad_(False), []
    real = module.blockwise_nll
    monkeypatch.setattr(
        module, "blockwise_nll", lambda h, *rest: rows.append(h) or real(h, *rest)
    )
    batch = pack(EXAMPLES)
    sft_loss(model, batch)
    (hidden,) = rows
    assert torch.equal(hidden, packed_hidden(model, batch)[[1, 3, 4, 6]])


def test_a_mean_per_token_is_no_mean_of_rows() -> None:
    """Three trained tokens in one row, one in the other: the two means weigh them apart."""
    model = gpt()
    total, terms = sft_loss(model, pack(EXAMPLES))
    rows = [sft_loss(model, pack([example])) for example in EXAMPLES]
    assert [count for _, count in rows] == [3, 1]
    assert_close(total, rows[0][0] + rows[1][0], atol=1e-5, rtol=1e-5)
    per_row = (rows[0][0] / 3 + rows[1][0] / 1) / 2
    assert abs(total / terms - per_row) > 0.05
    equal = [EXAMPLES[0], EncodedChat([7, 8, 9, 9], [0, 1, 1, 1])]
    total, terms = sft_loss(model, pack(equal))
    rows = [sft_loss(model, pack([example])) for example in equal]
    assert_close(total / terms, (rows[0][0] + rows[1][0]) / 6, atol=1e-5, rtol=1e-5)


def test_a_bias_of_the_head_counts() -> None:
    config = GPTConfig(vocab_size=23, hidden_size=16, num_attention_heads=2)
    model = GPT(config).requires_grad_(False)
    batch = pack([EncodedChat([3, 1, 4, 1, 5], [0, 0, 1, 1, 1])])
    without, _ = sft_loss(model, batch)
    model.lm_head.bias = nn.Parameter(torch.randn(model.config.vocab_size), False)
    loss, count = sft_loss(model, batch)
    logits = model(batch.input_ids[None])[0]
    expected, _ = masked_nll(logits, batch.labels)
    assert_close(loss, expected, atol=1e-4, rtol=1e-5)
    assert count == 3 and abs(loss - without) > 0.1
