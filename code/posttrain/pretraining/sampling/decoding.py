"""A copy of the model laid out for decoding: fewer, larger and pre-arranged products.

Decoding a token multiplies a few rows by every weight. On a CPU, two things waste time there:
seven small products per block, where four would do, and oneDNN re-arranging a weight matrix at
every call. The packed copy joins the matrices that read the same input and arranges each once.

Chapter: pretraining/sampling.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posttrain.core.training.wrappers import unwrapped
from posttrain.pretraining.model.attention import (
    apply_rotary,
    causal_mask,
    rotary_angles,
    scaled_dot_product_attention,
)
from posttrain.pretraining.model.feed_forward import SwiGLUFeedForward
from posttrain.pretraining.model.gpt import GPT, Block, check_input, check_unchanged
from posttrain.pretraining.model.kv_cache import KVCache


class PackedLinear:
    """A linear map whose bf16 weight is arranged once for this processor.

    Falls back to ``torch.nn.functional.linear`` on other devices and dtypes, and where this
    build of torch has no oneDNN.

    Args:
        weight: Shape (out_features, in_features).
        bias: Shape (out_features,), or ``None``.

    Chapter: pretraining/sampling.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.bias = None if bias is None else bias.detach().clone()
        self.packed: Tensor | None = None
        if (
            weight.dtype == torch.bfloat16
            and weight.device.type == "cpu"
            and torch.backends.mkldnn.is_available()
            and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        ):
            weight = weight.detach().contiguous()
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, 64)
        else:
            self.weight = weight.detach().clone()

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply.

        Args:
            x: Shape (..., in_features).

        Returns:
            Shape (..., out_features).
        """
        if self.packed is None:
            return F.linear(x, self.weight, self.bias)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.packed, self.bias, "none", [], ""
        )
        return result


def _dense(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a linear layer that may carry an adapter or lie in 4 bits."""
    unpack = getattr(layer, "merged_weight", None) or getattr(layer, "dequantize", None)
    if unpack is None and getattr(type(layer), "forward", None) is not nn.Linear.forward:
        raise TypeError(
            f"a {type(layer).__name__} cannot be packed, since it may do more than its weight: "
            "put the plain layer back, or call the model itself"
        )
    base = cast(nn.Linear, getattr(layer, "base", layer))
    return unpack() if unpack is not None else base.weight, base.bias


def _joined(*layers: nn.Module) -> PackedLinear:
    """Make one map of several that read the same input; their outputs stand side by side."""
    weights, biases = zip(*map(_dense, layers), strict=True)
    bias = None
    if any(b is not None for b in biases):
        pairs = zip(weights, biases, strict=True)
        bias = torch.cat([w.new_zeros(len(w)) if b is None else b for w, b in pairs])
    return PackedLinear(torch.cat(weights), bias)


class PackedGPT:
    """A snapshot of a Llama-style :class:`GPT` that decodes faster and cannot be trained.

    Calling it gives what the model gives. It does not follow later updates of the model: pack
    again after a training step. Weights in 4 bits are unpacked, and adapters are added to their
    weights, which rounds the sum once to the weight's dtype. A layer that does more than its
    weight is refused.

    Args:
        model: A model with ``"rmsnorm"``, ``"rope"`` and ``"swiglu"``, compiled or not.

    Raises:
        ValueError: If the model is GPT-2-style, or a subclass that computes something else.

    Chapter: pretraining/sampling.
    """

    @torch.no_grad()
    def __init__(self, model: GPT) -> None:
        model = unwrapped(model)
        check_unchanged(model)
        config = model.config
        if (config.norm, config.position, config.mlp) != ("rmsnorm", "rope", "swiglu"):
            raise ValueError("only a model with 'rmsnorm', 'rope' and 'swiglu' can be packed")
        self.config = config
        self.embedding = model.embed_tokens.weight.clone()
        self.norm = model.get_parameter("norm.weight").clone()
        self.lm_head = PackedLinear(*_dense(model.lm_head))
        self.layers = []
        for block in model.layers:
            assert isinstance(block, Block)
            attention, mlp = block.self_attn, cast(SwiGLUFeedForward, block.mlp)
            self.layers.append(
                (
                    block.get_parameter("input_layernorm.weight").clone(),
                    _joined(attention.q_proj, attention.k_proj, attention.v_proj),
                    _joined(attention.o_proj),
                    block.get_parameter("post_attention_layernorm.weight").clone(),
                    _joined(mlp.gate_proj, mlp.up_proj),
                    _joined(mlp.down_proj),
                )
            )

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.embedding.device

    def new_cache(self, batch_size: int, max_length: int | None = None) -> KVCache:
        """Make an empty cache; see :meth:`GPT.new_cache`.

        Args:
            batch_size: Sequences.
            max_length: Positions; the model's context where it is left out.

        Returns:
            An empty cache.
        """
        config = self.config
        return KVCache(
            config.num_hidden_layers,
            batch_size,
            config.kv_heads,
            config.max_position_embeddings if max_length is None else max_length,
            config.channels_per_head,
            self.embedding.dtype,
            self.device,
        )

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, cache: KVCache, logits_to_keep: int = 0
    ) -> Tensor:
        """Predict the next token; see :meth:`GPT.forward`.

        Args:
            input_ids: Token ids, shape (B, T).
            attention_mask: 1 for real tokens, 0 for padding, shape (B, S).
            cache: Earlier keys and values; the new ones are added to it.
            logits_to_keep: How many of the last positions get logits; 0 means all.

        Returns:
            Logits of shape (B, T or logits_to_keep, V).
        """
        config, eps = self.config, self.config.rms_norm_eps
        check_input(config, input_ids, attention_mask, cache.length)
        B, T = input_ids.shape
        H, H_kv, D = config.num_attention_heads, config.kv_heads, config.channels_per_head
        position_ids = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)[:, -T:]
        cos, sin = rotary_angles(position_ids, D, config.rope_theta, config.rope_scaling)
        cos, sin = cos.to(self.embedding.dtype), sin.to(self.embedding.dtype)
        mask = causal_mask(T, cache.length + T).to(self.device)
        mask = mask & attention_mask.bool()[:, None, None, :]

        x = self.embedding[input_ids]  # (B, T, C)
        for index, (norm_1, qkv_proj, o_proj, norm_2, gate_up_proj, down_proj) in enumerate(
            self.layers
        ):
            qkv = qkv_proj(F.rms_norm(x, norm_1.shape, norm_1, eps)).view(B, T, -1, D)
            qk, v = qkv.transpose(1, 2).split((H + H_kv, H_kv), dim=1)  # (B, H + H_kv, T, D)
            q, k = apply_rotary(qk, cos, sin).split((H, H_kv), dim=1)
            k, v = cache.append(index, k, v)
            mixed = scaled_dot_product_attention(q, k, v, mask)
            x = x + o_proj(mixed.transpose(1, 2).reshape(B, T, H * D))
            gate, up = gate_up_proj(F.rms_norm(x, norm_2.shape, norm_2, eps)).chunk(2, dim=-1)
            x = x + down_proj(F.silu(gate) * up)
        cache.advance(T)
        return self.lm_head(F.rms_norm(x[:, -logits_to_keep:], self.norm.shape, self.norm, eps))
