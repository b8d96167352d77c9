"""The shape of a model: every number that its weights depend on.

Chapter: pretraining/gpt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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

    def __post_init__(self) -> None:
        """Refuse shapes that no model can have."""
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                     "num_attention_heads", "num_key_value_heads", "head_dim",
                     "max_position_embeddings"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: give at least 1")
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
