"""posttrain.pretraining.model.attention: values by hand, properties, bad input."""

import math

import pytest
import torch
from torch.testing import assert_close

from posttrain.pretraining.model.attention import (
    SelfAttention,
    apply_rotary,
    causal_mask,
    rotary_angles,
    scaled_dot_product_attention,
)


def test_causal_mask_by_hand() -> None:
    square = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert causal_mask(3).int().tolist() == square
    assert causal_mask(3).dtype == torch.bool


def test_causal_mask_aligns_the_queries_with_the_last_keys() -> None:
    assert causal_mask(2, 5).int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert torch.equal(causal_mask(2, 5), causal_mask(5)[-2:])
    assert causal_mask(1, 4).all()


def test_more_queries_than_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="3 queries for 2 keys: the queries must be the last"):
        causal_mask(3, 2)


def test_attention_by_hand() -> None:
    # sqrt(D) = 2 divides the scores 2 ln 3 and 0, so the weights are 3/4 and 1/4.
    q = torch.tensor([[[[1.0, 0, 0, 0]]]])
    k = torch.tensor([[[[2 * math.log(3), 0, 0, 0], [0, 5.0, 0, 0]]]])
    v = torch.tensor([[[[4.0, 0, 0, 8.0], [0, 4.0, 0, -8.0]]]])
    expected = torch.tensor([[[[3.0, 1.0, 0, 4.0]]]])
    assert_close(scaled_dot_product_attention(q, k, v), expected)
    only_second = torch.tensor([[False, True]])
    assert_close(scaled_dot_product_attention(q, k, v, only_second), v[:, :, 1:])


def test_query_heads_share_key_value_heads_in_order() -> None:
    # Four query heads on two key/value heads: heads 0 and 1 read the first, 2 and 3 the second.
    q, k = torch.zeros(1, 4, 1, 2), torch.zeros(1, 2, 3, 2)
    v = torch.stack((torch.full((3, 2), 1.0), torch.full((3, 2), 2.0)))[None]
    assert scaled_dot_product_attention(q, k, v)[0, :, 0, 0].tolist() == [1, 1, 2, 2]


def test_a_query_that_may_see_nothing_gets_the_mean() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 3, 4) for _ in range(3))
    mask = torch.tensor([[False] * 3, [True] * 3, [True] * 3])
    out = scaled_dot_product_attention(q, k, v, mask)
    assert_close(out[:, :, 0], v.mean(dim=2))
    assert out.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_forbidden_keys_have_exactly_no_weight(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 4, 8).to(dtype) for _ in range(3))
    changed = v.clone()
    changed[:, :, -1] = 1000
    before = scaled_dot_product_attention(q, k, v, causal_mask(4))
    after = scaled_dot_product_attention(q, k, changed, causal_mask(4))
    assert before.dtype == dtype
    assert torch.equal(before[:, :, :-1], after[:, :, :-1])
    assert not torch.equal(before[:, :, -1], after[:, :, -1])


def test_a_forbidden_key_loses_to_an_allowed_one_however_bad_that_is() -> None:
    q = torch.full((1, 1, 1, 4), 100.0)
    k = torch.tensor([[[[-100.0] * 4, [100.0] * 4]]])  # the allowed key's score is -20,000
    v = torch.tensor([[[[1.0] * 4, [2.0] * 4]]])
    out = scaled_dot_product_attention(q, k, v, torch.tensor([[True, False]]))
    assert torch.equal(out, torch.ones(1, 1, 1, 4))


def test_large_scores_do_not_overflow() -> None:
    q = torch.full((1, 1, 1, 4), 1e4)
    k = torch.stack((torch.full((4,), 1e4), torch.full((4,), -1e4)))[None, None]
    v = torch.tensor([[[[1.0] * 4, [2.0] * 4]]])
    assert_close(scaled_dot_product_attention(q, k, v), torch.ones(1, 1, 1, 4))


def test_heads_that_do_not_divide_are_refused() -> None:
    q, k = torch.zeros(1, 3, 1, 2), torch.zeros(1, 2, 1, 2)
    with pytest.raises(ValueError, match="3 query heads cannot share 2 key/value heads"):
        scaled_dot_product_attention(q, k, k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_mask_that_is_not_boolean_is_refused(dtype: torch.dtype) -> None:
    q = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"mask is torch\.\w+: give torch.bool, True where"):
        scaled_dot_product_attention(q, q, q, causal_mask(2).to(dtype))


def test_rotary_angles_by_hand() -> None:
    cos, sin = rotary_angles(torch.tensor([[0, 1, 100]]), head_dim=4, rope_theta=10_000.0)
    assert cos.shape == sin.shape == (1, 1, 3, 4) and cos.dtype == torch.float32
    # Pair 0 turns by the position, pair 1 by a hundredth of it.
    angles = torch.tensor([[0.0, 0], [1, 0.01], [100, 1]])
    assert_close(cos[0, 0], angles.cos().repeat(1, 2), atol=1e-5, rtol=0)
    assert_close(sin[0, 0], angles.sin().repeat(1, 2), atol=1e-5, rtol=0)


def test_a_quarter_turn_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2, 3, 4]]]])
    cos, sin = torch.zeros(4), torch.ones(4)
    assert apply_rotary(x, cos, sin).flatten().tolist() == [
        -3,
        -4,
        1,
        2,
    ]  # pairs (1,3) and (2,4)


def test_rotation_keeps_lengths_and_leaves_position_zero() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 8)
    turned = apply_rotary(x, *rotary_angles(torch.arange(5)[None], 8, 10_000.0))
    assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])


def test_scores_depend_on_the_distance_only() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(position_q: int, position_k: int) -> float:
        turned = [
            apply_rotary(x, *rotary_angles(torch.tensor([[position]]), 16, 10_000.0))
            for x, position in ((q, position_q), (k, position_k))
        ]
        return (turned[0] * turned[1]).sum().item()

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert abs(score(9, 4) - score(9, 5)) > 1e-2


def test_an_odd_head_is_refused() -> None:
    with pytest.raises(ValueError, match="head_dim is 5: rotary positions turn pairs"):
        rotary_angles(torch.zeros(1, 1), 5, 10_000.0)


def test_self_attention_without_positions_does_not_know_the_order() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(12, 3, 1, 4)
    x = torch.randn(1, 5, 12)
    order = torch.tensor([3, 0, 2, 1, 4])
    assert_close(attention(x[:, order], None)[:, -1], attention(x, None)[:, -1])
    rotary = rotary_angles(torch.arange(5)[None], 4, 10_000.0)
    moved = attention(x[:, order], None, rotary)[:, -1] - attention(x, None, rotary)[:, -1]
    assert moved.abs().max() > 1e-3


def test_self_attention_shapes() -> None:
    attention = SelfAttention(12, 3, 1, 8)  # heads wider than hidden_size / heads
    assert attention.q_proj.weight.shape == (24, 12)
    assert attention.k_proj.weight.shape == attention.v_proj.weight.shape == (8, 12)
    assert attention(torch.randn(2, 5, 12), causal_mask(5)).shape == (2, 5, 12)
    assert not any("bias" in name for name, _ in attention.named_parameters())
