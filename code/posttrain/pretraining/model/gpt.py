"""One decoder that is both GPT-2 in small and Llama: a few switches lie between them.

With ``norm="layernorm"``, ``position="learned"`` and ``mlp="gelu"`` it is a GPT-2-style model
(Radford et al., 2019). With ``"rmsnorm"``, ``"rope"`` and ``"swiglu"`` it is a Llama-style one
(Touvron et al., 2023), and SmolLM2's published weights load into it. Successors of the first
Llama, SmolLM2 among them, have fewer key/value heads than query heads.

Chapter: pretraining/gpt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posttrain.pretraining.model.attention import SelfAttention, causal_mask, rotary_angles
from posttrain.pretraining.model.config import GPTConfig as GPTConfig
from posttrain.pretraining.model.feed_forward import GELUFeedForward, RMSNorm, SwiGLUFeedForward
from posttrain.pretraining.model.kv_cache import KVCache


def build_norm(config: GPTConfig) -> nn.Module:
    """Make the norm that the configuration names.

    Args:
        config: The model's shape.

    Returns:
        An RMSNorm, or a LayerNorm without bias.

    Chapter: pretraining/gpt.
    """
    if config.norm == "rmsnorm":
        return RMSNorm(config.hidden_size, config.rms_norm_eps)
    return nn.LayerNorm(config.hidden_size, config.rms_norm_eps, bias=False)


def check_input(
    config: GPTConfig, input_ids: Tensor, attention_mask: Tensor | None, past: int
) -> None:
    """Refuse what would end in an error far from its cause, or in none at all.

    Args:
        config: The model's shape.
        input_ids: Token ids; must have shape (B, T).
        attention_mask: Must have shape (B, past + T), or be ``None``.
        past: Positions in the cache.

    Raises:
        ValueError: If a shape is wrong, the context too short or an id not in the vocabulary.
    """
    if input_ids.dim() != 2 or not input_ids.numel():
        raise ValueError(
            f"input_ids has shape {tuple(input_ids.shape)}: give (B, T), at least one token; "
            "ids[None] makes a batch of one sequence"
        )
    B, T = input_ids.shape
    if past + T > config.max_position_embeddings:
        raise ValueError(
            f"{past + T} positions are more than the model's context of "
            f"{config.max_position_embeddings}: shorten the input"
        )
    if attention_mask is not None and attention_mask.shape != (B, past + T):
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}: give {(B, past + T)}, "
            f"which is {past} cached and {T} new positions"
        )
    if input_ids.is_cpu and not 0 <= input_ids.min() <= input_ids.max() < config.vocab_size:
        raise ValueError(
            f"token ids run from {input_ids.min()} to {input_ids.max()}: this model knows 0 to "
            f"{config.vocab_size - 1}; was the text encoded with another tokenizer?"
        )


class Block(nn.Module):
    """Attention, then feed-forward; each reads the normed stream and adds to it.

    Args:
        config: The model's shape.

    Chapter: pretraining/gpt.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.input_layernorm = build_norm(config)
        self.self_attn = SelfAttention(
            config.hidden_size,
            config.num_attention_heads,
            config.kv_heads,
            config.channels_per_head,
            config.qkv_bias,
        )
        self.post_attention_layernorm = build_norm(config)
        feed_forward = SwiGLUFeedForward if config.mlp == "swiglu" else GELUFeedForward
        self.mlp = feed_forward(config.hidden_size, config.intermediate_size)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        cache: KVCache | None,
        layer: int,
    ) -> Tensor:
        """Update the residual stream.

        Args:
            x: Residual stream, shape (B, T, C).
            mask: Boolean mask that broadcasts to (B, 1, T, S).
            rotary: Cosines and sines, or ``None`` with learned positions.
            cache: Earlier keys and values, or ``None``.
            layer: Index of this block.

        Returns:
            Residual stream, shape (B, T, C).
        """
        x = x + self.self_attn(self.input_layernorm(x), mask, rotary, cache, layer)
        return x + self.mlp(self.post_attention_layernorm(x))


class GPT(nn.Module):
    """A decoder-only transformer.

    Args:
        config: The model's shape.

    Chapter: pretraining/gpt.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.position == "learned":
            self.embed_positions = nn.Embedding(
                config.max_position_embeddings, config.hidden_size
            )
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = build_norm(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial weights.

        Every matrix is normal with ``initializer_range``. The two projections that write to the
        residual stream are smaller by sqrt(2 L), so that the stream's variance does not grow
        with the number of layers. Biases start at zero. Radford et al. (2019,
        section 2.3) divide by the root of the number of "residual layers"; we count two in each
        block.
        """
        std = self.config.initializer_range
        depth_scale = (2 * self.config.num_hidden_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() < 2:
                nn.init.ones_(parameter)  # the norms' scales
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(parameter, std=std * depth_scale)
            else:
                nn.init.normal_(parameter, std=std)

    def visible(self, T: int, S: int) -> Tensor:
        """Say which of ``S`` positions each of the last ``T`` may see; see :func:`causal_mask`.

        Args:
            T: Number of query positions.
            S: Number of key positions.

        Returns:
            Boolean mask of shape (T, S).
        """
        return causal_mask(T, S)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
        logits_to_keep: int = 0,
    ) -> Tensor:
        """Predict the next token at every position.

        Args:
            input_ids: Token ids, shape (B, T).
            attention_mask: 1 for real tokens, 0 for padding, shape (B, S) over the cached and
                the new positions; ``None`` means that nothing is padding. Padding goes left.
            cache: Keys and values of earlier positions; the new ones are added to it.
            logits_to_keep: How many of the last positions get logits; 0 means all.

        Returns:
            Logits of shape (B, T or logits_to_keep, V).

        Raises:
            ValueError: If the sequence is longer than ``max_position_embeddings``, or the
                input cannot be one of this model.
        """  # noqa: DOC502
        past = cache.length if cache is not None else 0
        check_input(self.config, input_ids, attention_mask, past)
        T = input_ids.shape[1]
        mask = self.visible(T, past + T).to(input_ids.device)
        if attention_mask is None:
            position_ids = torch.arange(past, past + T, device=input_ids.device).unsqueeze(0)
        else:
            position_ids = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)[:, -T:]
            mask = mask & attention_mask.bool()[:, None, None, :]  # (B, 1, T, S)

        x = self.embed_tokens(input_ids)  # (B, T, C)
        rotary = None
        if self.config.position == "learned":
            x = x + self.embed_positions(position_ids)
        else:
            rotary = rotary_angles(
                position_ids,
                self.config.channels_per_head,
                self.config.rope_theta,
                self.config.rope_scaling,
            )
        for index, block in enumerate(self.layers):
            x = block(x, mask, rotary, cache, index)
        if cache is not None:
            cache.advance(T)
        return self.lm_head(self.norm(x[:, -logits_to_keep:]))

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.embed_tokens.weight.device

    def new_cache(self, batch_size: int, max_length: int | None = None) -> KVCache:
        """Make an empty cache that fits this model.

        Args:
            batch_size: Sequences.
            max_length: Positions; the model's context where it is left out.

        Returns:
            An empty cache in the model's dtype, on its device.
        """
        config, weight = self.config, self.embed_tokens.weight
        return KVCache(
            config.num_hidden_layers,
            batch_size,
            config.kv_heads,
            config.max_position_embeddings if max_length is None else max_length,
            config.channels_per_head,
            weight.dtype,
            weight.device,
        )


def check_unchanged(model: GPT) -> None:
    """Refuse a subclass that computes something else, for code that reads the weights alone.

    Args:
        model: The model whose weights are read.

    Raises:
        ValueError: If its class has a ``forward`` or a ``visible`` of its own: that part would
            be lost without a word.

    Chapter: sft/your_model.
    """
    for name in ("forward", "visible"):
        if getattr(type(model), name) is not getattr(GPT, name):
            raise ValueError(
                f"{type(model).__name__} has a {name} of its own, which would be lost here: "
                "call the model itself"
            )


def next_token_loss(logits: Tensor, labels: Tensor, ignore_index: int = -100) -> Tensor:
    """Average the negative log-likelihood of the labels.

    Position ``t`` of the logits is scored against ``labels[:, t]``: shift before the call.

    Args:
        logits: Shape (B, T, V).
        labels: Token ids, shape (B, T); ``ignore_index`` where nothing is to be learned.
        ignore_index: The label that is left out of the sum and of the count.

    Returns:
        Mean loss per trained token, in nats, a float32 scalar.

    Raises:
        ValueError: If no label is left to train on, or their shape is not that of the logits.

    Chapter: pretraining/gpt.
    """
    if labels.shape != logits.shape[:2]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}: give {tuple(logits.shape[:2])}, one "
            "label for each position of the logits"
        )
    if not (labels != ignore_index).any():
        raise ValueError("every label is masked: this batch has no token to train on")
    return nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=ignore_index
    )
