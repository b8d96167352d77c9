"""Attention by hand: masks, scaled dot-product, grouped queries and rotary positions.

Shapes: ``B`` sequences, ``T`` query positions, ``S`` key positions, ``H`` query heads,
``H_kv`` key/value heads, ``D`` channels per head, ``C = H * D`` channels in all.

Chapter: pretraining/attention.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from posttrain.pretraining.model.config import RopeScaling
    from posttrain.pretraining.model.kv_cache import KVCache


def causal_mask(T: int, S: int | None = None) -> Tensor:
    """Say which key each query may see: its own position and everything before it.

    The ``T`` queries are the last ``T`` of the ``S`` positions, as they are when keys and
    values of earlier positions come from a cache.

    Args:
        T: Number of query positions.
        S: Number of key positions; ``T`` where it is left out.

    Returns:
        Boolean mask of shape (T, S), ``True`` where attention is allowed.

    Raises:
        ValueError: If there are more queries than keys.

    Chapter: pretraining/attention.
    """
    S = T if S is None else S
    if T > S:
        raise ValueError(f"{T} queries for {S} keys: the queries must be the last of the keys")
    return torch.ones(T, S, dtype=torch.bool).tril(diagonal=S - T)


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Mix the values by how well each query matches each key (Vaswani et al., 2017, Eq. 1).

    With fewer key/value heads than query heads (grouped-query attention, Ainslie et al., 2023),
    each group of ``H / H_kv`` query heads shares one key/value head. The group is folded into
    the query axis, so that no key or value is ever copied.

    Args:
        q: Queries, shape (B, H, T, D).
        k: Keys, shape (B, H_kv, S, D).
        v: Values, shape (B, H_kv, S, D).
        mask: Boolean mask that broadcasts to (B, 1, T, S), ``True`` where attention is allowed;
            ``None`` allows everything.

    Returns:
        Mixed values, shape (B, H, T, D), in the dtype of ``q``. A query that may see nothing
        (a padding token) gets the mean of all values rather than NaN.

    Raises:
        ValueError: If ``H`` is not a multiple of ``H_kv``, or the mask is not boolean.

    Chapter: pretraining/attention.
    """
    B, H, T, D = q.shape
    H_kv, S = k.shape[1], k.shape[2]
    if H % H_kv:
        raise ValueError(f"{H} query heads cannot share {H_kv} key/value heads evenly")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(
            f"mask is {mask.dtype}: give torch.bool, True where attention is allowed"
        )
    grouped = q.reshape(B, H_kv, (H // H_kv) * T, D)
    scores = (grouped * D**-0.5) @ k.transpose(-2, -1)  # (B, H_kv, H/H_kv * T, S)
    if mask is not None:
        scores = scores.view(B, H_kv, H // H_kv, T, S)
        scores = scores.masked_fill(~mask.unsqueeze(-3), torch.finfo(scores.dtype).min)
        scores = scores.view(B, H_kv, -1, S)
    weights = scores.softmax(dim=-1)
    return (weights @ v).view(B, H, T, D)


def rotary_frequencies(
    head_dim: int,
    rope_theta: float,
    rope_scaling: RopeScaling | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Say by how much each pair of channels turns from one position to the next.

    Pair ``i`` turns by ``rope_theta ** (-2 i / head_dim)`` radians (Su et al., 2021, Eq. 15).
    Llama 3.1 and 3.2 stretch this to a context ``factor`` times as long. Pairs that turn more
    than ``high_freq_factor`` times within the original context tell neighbors apart, and stay
    as they are. Pairs that turn less than ``low_freq_factor`` times are ``factor`` times
    slower, so that the longer context holds no angle that training on the shorter one never
    showed. In between, the two are mixed in proportion to the number of turns.

    Args:
        head_dim: Channels per head, ``D``; must be even.
        rope_theta: Base of the geometric series of frequencies.
        rope_scaling: The stretching; ``None`` leaves the series as it is.
        device: Where the result lies.

    Returns:
        Radians per position, float32, shape (D / 2,).

    Raises:
        ValueError: If ``head_dim`` is odd.

    Chapter: pretraining/gpt.
    """
    if head_dim % 2:
        raise ValueError(
            f"head_dim is {head_dim}: rotary positions turn pairs, give an even one"
        )
    pair = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device)
    frequency = 1.0 / rope_theta ** (pair / head_dim)
    if rope_scaling is None:
        return frequency
    low, high = rope_scaling.low_freq_factor, rope_scaling.high_freq_factor
    turns = rope_scaling.original_max_position_embeddings * frequency / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)  # 1: as it was, 0: stretched
    return kept * frequency + (1 - kept) * frequency / rope_scaling.factor


def rotary_angles(
    position_ids: Tensor,
    head_dim: int,
    rope_theta: float,
    rope_scaling: RopeScaling | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the cosines and sines that rotate queries and keys (Su et al., 2021, Eq. 15).

    Channel pair ``i`` turns by ``position`` times its frequency: see
    :func:`rotary_frequencies`.

    Args:
        position_ids: Position of each token, integer tensor of shape (B, T) or (1, T).
        head_dim: Channels per head, ``D``; must be even.
        rope_theta: Base of the geometric series of frequencies.
        rope_scaling: How the frequencies are stretched over a longer context, if they are.

    Returns:
        Cosines and sines, float32, each of shape (B, 1, T, D), with both halves alike: the
        pairs are channels ``i`` and ``i + D / 2``, as in Hugging Face's Llama weights.

    Raises:
        ValueError: If ``head_dim`` is odd.

    Chapter: pretraining/attention.
    """  # noqa: DOC502
    frequency = rotary_frequencies(head_dim, rope_theta, rope_scaling, position_ids.device)
    angle = position_ids[:, None, :, None].float() * frequency  # (B, 1, T, D/2)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of channels by its token's angle (Su et al., 2021, Eq. 34).

    The paper pairs neighbors; here, as in Hugging Face's Llama, ``i`` goes with ``i + D / 2``.

    Args:
        x: Queries or keys, shape (B, H, T, D).
        cos: Cosines from :func:`rotary_angles`, shape (B, 1, T, D).
        sin: Sines, likewise.

    Returns:
        Rotated tensor of the shape and dtype of ``x``.

    Chapter: pretraining/attention.
    """
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention; grouped-query where ``num_key_value_heads`` is smaller.

    The four projections carry the names of Hugging Face's Llama weights.

    Args:
        hidden_size: Channels of the residual stream, ``C``.
        num_attention_heads: Query heads, ``H``.
        num_key_value_heads: Key/value heads, ``H_kv``; must divide ``H``.
        head_dim: Channels per head, ``D``.
        qkv_bias: Add a bias to queries, keys and values, as Qwen2.5 does.

    Chapter: pretraining/attention.
    """

    def __init__(
        self,
        hidden_size: int,
        num_attention_heads: int,
        num_key_value_heads: int,
        head_dim: int,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = nn.Linear(hidden_size, num_attention_heads * head_dim, bias=qkv_bias)
        self.k_proj = nn.Linear(hidden_size, num_key_value_heads * head_dim, bias=qkv_bias)
        self.v_proj = nn.Linear(hidden_size, num_key_value_heads * head_dim, bias=qkv_bias)
        self.o_proj = nn.Linear(num_attention_heads * head_dim, hidden_size, bias=False)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Let each position read from the positions that its mask allows.

        Args:
            x: Residual stream after its norm, shape (B, T, C).
            mask: Boolean mask that broadcasts to (B, 1, T, S), ``True`` where allowed.
            rotary: Cosines and sines of :func:`rotary_angles`, or ``None``.
            cache: Earlier keys and values; the new ones are appended to it.
            layer: Which layer of the cache is this one's.

        Returns:
            What attention adds to the residual stream, shape (B, T, C).
        """
        B, T, _ = x.shape
        q, k, v = (
            proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # (B, H or H_kv, T, D)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        if rotary is not None:
            q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        mixed = scaled_dot_product_attention(q, k, v, mask)
        return self.o_proj(mixed.transpose(1, 2).reshape(B, T, -1))
