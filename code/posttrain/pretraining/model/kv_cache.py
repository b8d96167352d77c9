"""Keys and values of the positions already read, so that decoding never reads them twice.

Chapter: pretraining/sampling.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from posttrain.core.arguments import whole_number


class KVCache:
    """Preallocated keys and values of every layer.

    A forward pass appends the same number of positions in every layer, then the model calls
    :meth:`advance` once.

    Args:
        num_hidden_layers: Layers, ``L``.
        batch_size: Sequences, ``B``.
        num_key_value_heads: Key/value heads, ``H_kv``.
        max_length: Positions that fit, ``S_max``.
        head_dim: Channels per head, ``D``.
        dtype: Type of keys and values.
        device: Where they lie.

    Attributes:
        keys: Shape (L, B, H_kv, S_max, D).
        values: Shape (L, B, H_kv, S_max, D).
        length: Positions filled so far.

    Chapter: pretraining/sampling.
    """

    def __init__(
        self,
        num_hidden_layers: int,
        batch_size: int,
        num_key_value_heads: int,
        max_length: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        for name, value in (("batch_size", batch_size), ("max_length", max_length)):
            whole_number(value, name, 1)
        shape = (num_hidden_layers, batch_size, num_key_value_heads, max_length, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.length = 0

    @property
    def max_length(self) -> int:
        """Positions that fit."""
        return self.keys.shape[3]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new positions of one layer and return all positions of that layer.

        Args:
            layer: Index of the layer.
            k: New keys, shape (B, H_kv, T, D).
            v: New values, shape (B, H_kv, T, D).

        Returns:
            All keys and values so far, each of shape (B, H_kv, length + T, D).

        Raises:
            ValueError: If the new positions or the number of sequences do not fit.
        """
        if k.shape[0] != self.keys.shape[1]:
            raise ValueError(
                f"the cache holds {self.keys.shape[1]} sequences and {k.shape[0]} are given: "
                "make it with that batch_size, or select its rows"
            )
        end = self.length + k.shape[2]
        if end > self.max_length:
            raise ValueError(
                f"the cache holds {self.max_length} positions and {end} are needed: "
                "make it with a larger max_length"
            )
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        # contiguous: batched products on a CPU are slow on the gaps that unused places leave
        return (
            self.keys[layer, :, :, :end].contiguous(),
            self.values[layer, :, :, :end].contiguous(),
        )

    def advance(self, T: int) -> None:
        """Count the ``T`` positions that every layer has appended."""
        self.length += T

    def select(self, rows: Tensor) -> KVCache:
        """Return a cache that holds the given rows, each as often as it is named.

        Args:
            rows: Indices into the batch, integer tensor of shape (B_new,), or a boolean tensor
                of shape (B,) that says which rows stay.

        Returns:
            A new cache of ``B_new`` rows, filled to the same length.
        """
        if rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        chosen = copy.copy(self)
        chosen.keys = self.keys.index_select(1, rows)
        chosen.values = self.values.index_select(1, rows)
        return chosen
