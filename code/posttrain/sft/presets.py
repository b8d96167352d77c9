"""Stage 1's settings for each kind of machine, with a reason beside each value.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_type_hints

import torch

from posttrain.core.arguments import shortened, whole_number
from posttrain.core.machine import preferred_dtype
from posttrain.core.training.optimization import TrainingConfig
from posttrain.sft.adapters.lora import LINEAR_LAYERS, LoRAConfig
from posttrain.sft.chat.formats import format_named


@dataclass(frozen=True)
class SFTPreset:
    """A model, a data set, an adapter and a schedule that fit one kind of machine.

    Attributes:
        name: ``cpu``, ``t4``, ``t4-qwen``, ``gpu24`` or ``a100``.
        model: A name that ``posttrain.core.assets`` knows, or a repository on the hub.
        chat_format: How the model writes a conversation; see ``posttrain.sft.chat.formats``.
        dataset: ``reckoning`` (built here) or ``alpaca-cleaned`` (from the hub).
        engine: Who trains: ``by_hand``, ``trl`` or ``unsloth``.
        quantization: ``nf4`` holds the frozen weights in 4 bits; ``None`` in ``dtype``.
        dtype: Type of the frozen weights, or of the products with 4-bit ones; ``auto`` is
            bfloat16 where the machine has it natively.
        lora: Shape of the adapter.
        batch_size: Conversations per micro-batch.
        max_length: Longer conversations are dropped and counted, in tokens.
        training: Schedule and optimizer.
        device: ``cpu`` or ``cuda``.

    Chapter: sft/fine_tuning.
    """

    name: str
    model: str
    chat_format: str
    dataset: Literal["reckoning", "alpaca-cleaned"]
    engine: Literal["by_hand", "trl", "unsloth"]
    quantization: Literal["nf4"] | None
    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    lora: LoRAConfig
    batch_size: int
    max_length: int
    training: TrainingConfig
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        """Refuse names that nothing answers to, before a model is loaded."""
        for name, hint in get_type_hints(type(self)).items():
            value, accepted = getattr(self, name), _choices(hint)
            if accepted and value not in accepted:
                known = ", ".join(map(repr, accepted))
                raise ValueError(f"{name} is {value!r}: choose one of {known}")
            if hint is str and (not isinstance(value, str) or not value.strip()):
                raise ValueError(f"{name} is {shortened(value)}: give a text")
            if hint in (LoRAConfig, TrainingConfig) and not isinstance(value, hint):
                raise ValueError(f"{name} is {shortened(value)}: give a {hint.__name__}")
            if hint is int:
                object.__setattr__(self, name, whole_number(value, name, 1))
        format_named(self.chat_format)


def _choices(hint: Any) -> tuple[Any, ...]:
    """List what an annotation of literals allows; nothing for any other annotation."""
    parts = get_args(hint)
    if not any(isinstance(part, str) for part in parts):  # a union of literals and None
        parts = tuple(choice for part in parts for choice in get_args(part) or (None,))
    return parts if any(isinstance(part, str) for part in parts) else ()


CPU = SFTPreset(
    name="cpu",
    model="smollm2-135m-instruct",  # comes with a package, and 2 cores can train it
    chat_format="smollm2",  # the model's own
    dataset="reckoning",  # 600 of 1,000 examples, each checked by its task's verifier
    engine="by_hand",  # the fastest of the three here; see the benchmark
    quantization=None,  # 269 MB in bf16: nothing to save
    dtype="auto",  # half the bytes, three times the speed where bf16 is native
    lora=LoRAConfig(
        r=8,  # 1.8 % of the model; rank 32 does hardly better in the sweep, at four times that
        lora_alpha=16,  # scaling 2, a common choice; the learning rate was tuned with it
        lora_dropout=0.0,  # one pass over the data cannot memorize much
        target_modules=LINEAR_LAYERS,  # all linear layers: better than attention alone
    ),
    batch_size=16,  # about 960 tokens a step: enough to keep both cores busy
    max_length=160,  # the longest example is shorter
    training=TrainingConfig(
        max_steps=36,  # nearly one pass over 600 examples
        learning_rate=4e-3,  # within the range that the chapter's sweep finds
        # Adam's first steps are not gentle, though B starts at zero (chapter sft/lora). In the
        # sweep's 12 steps at this rate, 2 of warm-up end 0.06 nats lower (0.05 to 0.07 over 5
        # seeds, in bf16). Most of it is rate: the cosine after them is stretched, and the rates
        # sum to 8 % more. Against a rate raised by as much, 0.02 are left (0.01 to 0.03). On
        # these 36 steps nothing is left: 3 seeds end at 0.154 nats with 2 of warm-up and at
        # 0.154 without.
        warmup_steps=0,  # the rate was tuned without one
        min_lr_ratio=0.0,  # to zero, as the two other engines do
        weight_decay=0.0,  # the usual value for adapters
        adam_beta2=0.999,  # the default of transformers' trainer
        max_grad_norm=1.0,  # the usual bound
        bf16=False,  # no autocast: the frozen weights are in bf16 already, the adapter in fp32
        eval_steps=18,  # three points on the curve
        save_steps=18,  # an interruption loses half of the run at most
    ),
)

T4 = SFTPreset(
    name="t4",
    model="unsloth/Llama-3.2-1B-Instruct",  # Meta's weights without the licence gate
    chat_format="llama-3.2",  # the model's own
    dataset="alpaca-cleaned",  # 51,760 instructions, the stage's data set on a GPU
    engine="unsloth",  # its kernels are made for this card
    quantization="nf4",  # to rehearse 7B: in 16 bits 12.4 GB would fit in 15, here 11.0
    dtype="float16",  # a T4 has no bf16 units; 4-bit weights compute in it too
    lora=LoRAConfig(
        r=16,  # more data than on the CPU, so a wider bottleneck
        lora_alpha=16,  # scaling 1, Unsloth's advice
        lora_dropout=0.0,  # Unsloth's fast path has none
        target_modules=LINEAR_LAYERS,  # as cpu
    ),
    batch_size=8,  # of up to 1,024 tokens: 11.0 GB, which leaves 4 to what no formula counts
    max_length=1024,  # covers nearly all of the data set
    training=TrainingConfig(
        max_steps=600,  # 9,600 conversations, a fifth of the data set
        learning_rate=2e-4,  # Unsloth's value, and QLoRA's for its smallest models, 7B and 13B
        warmup_steps=30,  # a twentieth of the run
        min_lr_ratio=0.0,  # as cpu
        weight_decay=0.01,  # Unsloth's default; it hardly matters in so short a run
        adam_beta2=0.999,  # as cpu
        gradient_accumulation_steps=2,  # 16 conversations a step, as cpu
        bf16=False,  # a T4 has none
        eval_steps=100,  # six points after the start; the adapter of the lowest loss is kept
        save_steps=100,  # as eval_steps: the best adapter must be among the checkpoints
    ),
    device="cuda",  # the preset is made for that GPU
)

T4_QWEN = replace(
    T4,
    name="t4-qwen",
    model="Qwen/Qwen2.5-1.5B-Instruct",  # the other model of the roadmap; no licence gate
    chat_format="qwen2.5",  # the model's own
    quantization="nf4",  # as t4: in 16 bits 9.2 GB would fit, here 7.2
    batch_size=4,  # half as large a batch: its vocabulary of 151,936 makes larger logits
    training=replace(T4.training, gradient_accumulation_steps=4),  # still 16 a step
)

A100 = replace(
    T4,
    name="a100",
    model="Qwen/Qwen2.5-7B-Instruct",  # the size that the later stages serve
    chat_format="qwen2.5",  # the model's own
    quantization="nf4",  # 43 GB in 16 bits would not fit in 40
    dtype="bfloat16",  # an A100 has bf16 units
    lora=replace(T4.lora, r=32, lora_alpha=32),  # scaling 1 again, for a wider model
    batch_size=8,  # 34 GB are predicted, 20 of them for the logits of 16,384 tokens
    max_length=2048,  # covers all but a handful of conversations
    training=replace(
        T4.training,
        max_steps=1600,  # half a pass over the data set
        learning_rate=1e-4,  # half of t4's for a larger model; QLoRA halves it from 33B on
        warmup_steps=80,  # a twentieth of the run
        eval_steps=200,  # eight points after the start
        save_steps=200,  # as eval_steps
    ),
)

GPU24 = replace(
    A100,
    name="gpu24",
    model="Qwen/Qwen2.5-7B-Instruct",  # the largest that fits a card of 24 GB with long rows
    quantization="nf4",  # 30 GB in 16 bits would not fit in 23
    dtype="bfloat16",  # an L4, an A10 and an RTX 3090 or 4090 have bf16 units
    batch_size=4,  # half of a100's: 20 GB are predicted, 10 of them for all logits at once
    max_length=2048,  # as a100
    training=replace(
        A100.training,
        max_steps=600,  # as t4: 9,600 conversations; half a pass would take such a card hours
        warmup_steps=30,  # a twentieth of the run
        gradient_accumulation_steps=4,  # still 16 a step
        eval_steps=100,  # six points after the start, as t4
        save_steps=100,  # as eval_steps
    ),
)

PRESETS = {preset.name: preset for preset in (CPU, T4, T4_QWEN, GPU24, A100)}


def get_preset(name: str) -> SFTPreset:
    """Look up a preset.

    Args:
        name: ``cpu``, ``t4``, ``t4-qwen``, ``gpu24`` or ``a100``.

    Returns:
        The preset.

    Raises:
        ValueError: If there is none of that name.

    Chapter: sft/fine_tuning.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def dtype_of(preset: SFTPreset) -> torch.dtype:
    """Say in which type a preset computes.

    Args:
        preset: The preset.

    Returns:
        The type of its frozen weights.

    Chapter: sft/fine_tuning.
    """
    if preset.dtype == "auto":
        return preferred_dtype()
    dtype: torch.dtype = getattr(torch, preset.dtype)
    return dtype
