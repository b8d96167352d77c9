"""What the comparison with TRL draws: a loss with its settings, a batch of pairs, two models.

Chapter: dpo/losses.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.dpo.losses.config import PreferenceLossConfig

VARIANTS = (
    "dpo", "conservative", "robust", "ipo mean", "ipo sum", "sigmoid_norm", "kto", "orpo",
    "simpo",
)  # fmt: skip
_VOCABULARY = 23

Row = tuple[list[int], list[int]]
"""The prompt's tokens, and the answer's."""


@dataclass(frozen=True)
class DrawnBatch:
    """A batch before it is padded.

    Attributes:
        variant: One of ``VARIANTS``.
        config: The loss with its settings.
        rows: Prompt and answer of each row: all chosen answers, then all rejected ones; for
            KTO, single answers to different prompts.
        desirable: For KTO, which answers are good.
        padding_side: Where our batches are padded; TRL pads on the right.

    Chapter: dpo/losses.
    """

    variant: str
    config: PreferenceLossConfig
    rows: tuple[Row, ...]
    desirable: tuple[bool, ...]
    padding_side: str


def draw_batch(seed: int) -> DrawnBatch:
    """Draw a loss, its settings, and pairs of different lengths.

    Args:
        seed: Its remainder chooses the variant, so that successive seeds go round them all.

    Returns:
        The batch.

    Chapter: dpo/losses.
    """
    generator = random.Random(f"parity {seed}")
    variant = VARIANTS[seed % len(VARIANTS)]
    config = _draw_config(variant, generator)
    n = 1 if variant == "conservative" else generator.randint(1, 4)
    n = n + 1 if variant == "kto" else n
    same = generator.randint(1, 8) if variant == "orpo" else None

    def tokens(count: int) -> list[int]:
        return [generator.randrange(_VOCABULARY) for _ in range(count)]

    prompts = [tokens(1 if same else generator.randint(1, 6)) for _ in range(n)]
    rows = [(prompt, tokens(same or generator.randint(1, 8))) for prompt in prompts]
    if variant != "kto":
        rows += [(prompt, tokens(generator.randint(1, 8))) for prompt in prompts]
    desirable = tuple(generator.random() < 0.5 for _ in range(n if variant == "kto" else 0))
    return DrawnBatch(
        variant, config, tuple(rows), desirable, generator.choice(["left", "right"])
    )


def _draw_config(variant: str, generator: random.Random) -> PreferenceLossConfig:
    loss_type = {"dpo": "sigmoid", "conservative": "sigmoid"}.get(variant, variant)
    settings: dict[str, Any] = {"beta": 10 ** generator.uniform(-2, 0.3)}
    if variant in ("conservative", "robust"):
        settings["label_smoothing"] = generator.uniform(0.01, 0.45)
    if variant.startswith("ipo"):
        loss_type, settings["ipo_aggregation"] = variant.split()
    if variant == "simpo":
        settings["simpo_gamma"] = generator.uniform(0, 2)
    if variant == "kto":
        settings["desirable_weight"] = generator.uniform(0.5, 2)
        settings["undesirable_weight"] = generator.uniform(0.5, 2)
    return PreferenceLossConfig(loss_type, **settings)


class _Table(nn.Module):
    """A language model whose next logits depend on the last token alone."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, input_ids: Tensor, **_: object) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table[input_ids])


def table_pair(seed: int) -> tuple[nn.Module, nn.Module]:
    """Draw a table of logits, and another as its reference.

    Args:
        seed: Seed of the numbers.

    Returns:
        Policy and reference, in float32.

    Chapter: dpo/losses.
    """
    generator = torch.Generator().manual_seed(seed)
    table, change = torch.randn(2, _VOCABULARY, _VOCABULARY, generator=generator)
    return _Table(1.5 * table), _Table(1.5 * table + 0.5 * change)


def llama_pair(seed: int) -> tuple[nn.Module, nn.Module]:
    """Make a small random Llama of transformers, and another as its reference.

    Args:
        seed: Seed of the weights.

    Returns:
        Policy and reference, in float64 and evaluation mode.

    Chapter: dpo/losses.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=_VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
        initializer_range=0.3,  # large, so that attention is far from even
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy, reference = LlamaForCausalLM(config), LlamaForCausalLM(config)
    return policy.double().eval(), reference.double().eval()
