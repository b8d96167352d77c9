"""posttrain.pretraining.model.gpt: properties of the whole model, its loss, bad input."""

import math

import pytest
import torch
from torch.testing import assert_close

from posttrain.pretraining.model.gpt import GPT, GPTConfig, next_token_loss
from posttrain.pretraining.training.failures import LeakyGPT, future_leak

STYLES = {"llama": {"num_key_value_heads": 2},
          "gpt2": {"norm": "layernorm", "position": "learned", "mlp": "gelu"}}  # fmt: skip


def tiny(style: str = "llama", kind: type[GPT] = GPT, **changes: object) -> GPT:
    torch.manual_seed(0)
    shape = {
        "vocab_size": 23, "hidden_size": 32, "num_hidden_layers": 2,
        "max_position_embeddings": 16, "initializer_range": 0.3, **STYLES[style], **changes,
    }  # fmt: skip
    return kind(GPTConfig(**shape)).eval()


def some_ids(B: int = 3, T: int = 9) -> torch.Tensor:
    return torch.randint(23, (B, T), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("style", STYLES)
def test_no_position_sees_the_future(style: str) -> None:
    assert future_leak(tiny(style)) == 0
    assert future_leak(tiny(style, LeakyGPT)) > 0.01


@pytest.mark.parametrize("style", STYLES)
@torch.no_grad()
def test_left_padding_changes_nothing(style: str) -> None:
    model, ids = tiny(style), some_ids()
    for padding in (1, 5):
        padded = torch.cat((torch.full((3, padding), 7), ids), dim=1)
        mask = torch.cat((torch.zeros(3, padding), torch.ones(3, 9)), dim=1)
        other = padded.clone()
        other[:, :padding] = 11
        assert_close(model(padded, mask)[:, padding:], model(ids), atol=1e-5, rtol=1e-5)
        assert torch.equal(model(padded, mask)[:, padding:], model(other, mask)[:, padding:])


@torch.no_grad()
def test_rows_of_a_batch_do_not_see_each_other() -> None:
    model, ids = tiny(), some_ids()
    assert_close(model(ids)[1:2], model(ids[1:2]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("style", STYLES)
@torch.no_grad()
def test_the_order_of_the_context_matters(style: str) -> None:
    model, ids = tiny(style), torch.tensor([[1, 2, 3, 4, 5]])
    swapped = ids[:, [1, 0, 2, 3, 4]]
    assert (model(ids) - model(swapped))[0, -1].abs().max() > 1e-3


@torch.no_grad()
def test_logits_to_keep() -> None:
    model, ids = tiny(), some_ids()
    assert model(ids).shape == (3, 9, 23)
    assert_close(model(ids, logits_to_keep=2), model(ids)[:, -2:])


def test_tied_weights_are_one_tensor() -> None:
    tied, untied = tiny(), tiny(tie_word_embeddings=False)
    assert tied.lm_head.weight is tied.embed_tokens.weight
    assert untied.lm_head.weight is not untied.embed_tokens.weight
    assert not torch.equal(untied.lm_head.weight, untied.embed_tokens.weight)


def test_initial_weights() -> None:
    model = tiny(hidden_size=256, num_hidden_layers=8, initializer_range=0.02)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            small = name.endswith(("o_proj.weight", "down_proj.weight"))
            expected = 0.02 / math.sqrt(2 * 8) if small else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name


def test_a_fresh_model_is_about_as_wrong_as_a_guess() -> None:
    model, ids = tiny(initializer_range=0.02, vocab_size=60), some_ids(8, 16)
    loss = next_token_loss(model(ids[:, :-1]), ids[:, 1:])
    assert loss.item() == pytest.approx(math.log(60), abs=0.1)


def test_loss_by_hand() -> None:
    # Three tokens of probability 1/2, 1/8 and, masked out, 0.
    logits = torch.tensor(
        [[[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [1.0, 1e-30, 1e-30]]]
    ).log()
    loss = next_token_loss(logits, torch.tensor([[0, 1, -100]]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(8)) / 2)
    assert loss.dtype == torch.float32


def test_loss_of_rows_counts_tokens_not_rows() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 5), torch.tensor([[1, 2, 3, 4], [1, -100, -100, -100]])
    five = -logits.log_softmax(dim=-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    assert_close(next_token_loss(logits, labels), five[labels != -100].sum() / 5)


def test_masked_labels_send_no_gradient() -> None:
    logits = torch.randn(1, 3, 5, requires_grad=True)
    next_token_loss(logits, torch.tensor([[2, -100, 4]])).backward()
    assert logits.grad is not None
    assert (logits.grad[0, 1] == 0).all() and (logits.grad[0, 0] != 0).all()


def test_a_batch_without_a_label_is_refused() -> None:
    with pytest.raises(ValueError, match="every label is masked: this batch has no token"):
        next_token_loss(torch.zeros(1, 2, 3), torch.full((1, 2), -100))


@pytest.mark.parametrize("shape", [(3, 2), (2, 2), (6,)])
def test_labels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    # As many labels in another order would give a number, and a wrong one.
    with pytest.raises(ValueError, match=r"labels have shape .*: give \(2, 3\), one label for"):
        next_token_loss(torch.zeros(2, 3, 5), torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (some_ids(1, 5)[0], None, r"input_ids has shape \(5,\): give \(B, T\)"),
        (some_ids(0, 5), None, r"input_ids has shape \(0, 5\): give \(B, T\), at least one"),
        (some_ids(2, 0), None, r"input_ids has shape \(2, 0\)"),
        (some_ids(1, 17), None, "17 positions are more than the model's context of 16"),
        (torch.tensor([[1, 23]]), None, "token ids run from 1 to 23: this model knows 0 to 22"),
        (torch.tensor([[-1, 3]]), None, "token ids run from -1 to 3: .* another tokenizer"),
        (some_ids(2, 3), torch.ones(2, 4),
         r"attention_mask has shape \(2, 4\): give \(2, 3\), which is 0 cached and 3 new"),
    ],
)  # fmt: skip
def test_input_that_is_none(ids: torch.Tensor, mask: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny()(ids, mask)


def test_a_mask_for_the_new_positions_only_is_refused() -> None:
    # (2, 1) would broadcast over the cache, and every position would be 0.
    model = tiny()
    cache = model.new_cache(2)
    model(some_ids(2, 4), cache=cache)
    with pytest.raises(ValueError, match=r"give \(2, 5\), which is 4 cached and 1 new"):
        model(some_ids(2, 1), torch.ones(2, 1), cache)


def test_the_context_counts_cached_positions() -> None:
    model = tiny()
    cache = model.new_cache(1, 100)
    model(some_ids(1, 10), cache=cache)
    with pytest.raises(
        ValueError, match="17 positions are more than the model's context of 16"
    ):
        model(some_ids(1, 7), cache=cache)
