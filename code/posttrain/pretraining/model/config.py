"""The shape of a model: every number that its weights depend on.

Chapter: pretraining/gpt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from posttrain.core.arguments import whole_number


@dataclass(frozen=True)
class RopeScaling:
    """How Llama 3.1 and its successors stretch their rotary frequencies over a longer context.

    The names are those of Hugging Face's ``rope_parameters`` with ``rope_type="llama3"``. See
    :func:`posttrain.pretraining.model.attention.rotary_frequencies`.

    Attributes:
        factor: What slow frequencies are divided by.
        low_freq_factor: Pairs that turn less often than this within the original context are
            slow.
        high_freq_factor: Pairs that turn more often than this are left as they are.
        original_max_position_embeddings: The context before it was stretched, in tokens.

    Chapter: pretraining/gpt.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def __post_init__(self) -> None:
        """Refuse numbers that stretch nothing."""
        for name in ("factor", "low_freq_factor", "original_max_position_embeddings"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}: give a number above 0")
        if not self.high_freq_factor > self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor is {self.high_freq_factor!r} and low_freq_factor "
                f"{self.low_freq_factor!r}: the former must be the larger"
            )


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a :class:`GPT`, in the names of Hugging Face's ``LlamaConfig``.

    The defaults are the character model of Stage 0: small enough that a 2-core CPU trains it
    in about a minute, large enough that it writes words.

    Attributes:
        vocab_size: Tokens in the vocabulary, ``V``.
        hidden_size: Channels of the residual stream, ``C``.
        intermediate_size: Channels inside the feed-forward layer.
        num_hidden_layers: Blocks, ``L``.
        num_attention_heads: Query heads, ``H``.
        num_key_value_heads: Key/value heads, ``H_kv``; ``None`` means as many as query heads.
        head_dim: Channels per head, ``D``; ``None`` means ``hidden_size`` over the heads.
        max_position_embeddings: Longest context, in tokens.
        norm: ``"rmsnorm"`` or ``"layernorm"``.
        position: ``"rope"`` or ``"learned"``.
        mlp: ``"swiglu"`` or ``"gelu"``.
        rope_theta: Base of the rotary frequencies.
        rms_norm_eps: Epsilon of either norm.
        tie_word_embeddings: Whether the output head is the embedding matrix.
        initializer_range: Standard deviation of the initial weights.
        qkv_bias: Whether queries, keys and values get a bias each, as in Qwen2.5.
        rope_scaling: How the rotary frequencies are stretched, as in Llama 3.2; ``None`` leaves
            them as they are.

    Chapter: pretraining/gpt.
    """

    vocab_size: int
    hidden_size: int = 128
    intermediate_size: int = 352  # 8/3 of the width: as many weights as GELU with 4 x width
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 128
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    position: Literal["rope", "learned"] = "rope"
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02
    qkv_bias: bool = False
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        """Refuse shapes that no model can have."""
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                     "num_attention_heads", "num_key_value_heads", "head_dim",
                     "max_position_embeddings"):  # fmt: skip
            value = getattr(self, name)
            if value is None and name in ("num_key_value_heads", "head_dim"):
                continue
            object.__setattr__(self, name, whole_number(value, name, 1))
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} does not split over "
                f"{self.num_attention_heads} heads: change one of them or name head_dim"
            )
        if self.num_attention_heads % self.kv_heads:
            raise ValueError(
                f"{self.num_attention_heads} query heads cannot share {self.kv_heads} "
                "key/value heads evenly: num_key_value_heads must divide num_attention_heads"
            )
        if self.position == "rope" and self.channels_per_head % 2:
            raise ValueError(
                f"{self.channels_per_head} channels per head: rotary positions turn pairs of "
                "channels, give an even number"
            )
        if self.rope_scaling is not None and self.position != "rope":
            raise ValueError(
                f"rope_scaling with position={self.position!r}: learned positions have no "
                "frequencies to scale, leave one of the two out"
            )
        choices = {
            "norm": ("rmsnorm", "layernorm"),
            "position": ("rope", "learned"),
            "mlp": ("swiglu", "gelu"),
        }
        for name, accepted in choices.items():
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose one of {accepted}")

    @property
    def kv_heads(self) -> int:
        """Key/value heads, ``H_kv``."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def channels_per_head(self) -> int:
        """Channels per head, ``D``."""
        return self.head_dim or self.hidden_size // self.num_attention_heads
