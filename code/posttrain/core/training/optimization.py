"""What decides an optimizer step: its settings, its learning rate, AdamW.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import torch
from torch import nn

from posttrain.core.arguments import whole_number
from posttrain.core.machine import preferred_dtype

_WHOLE = {
    "max_steps": 1, "warmup_steps": 0, "gradient_accumulation_steps": 1, "seed": 0,
    "eval_steps": 0, "save_steps": 0,
}  # fmt: skip
_REAL: dict[str, tuple[Callable[[float], bool], str]] = {
    "learning_rate": (lambda x: x > 0, "above 0"),
    "min_lr_ratio": (lambda x: 0 <= x <= 1, "from 0 to 1"),
    "weight_decay": (lambda x: x >= 0, "from 0 up"),
    "adam_beta1": (lambda x: 0 <= x < 1, "from 0 to below 1"),
    "adam_beta2": (lambda x: 0 <= x < 1, "from 0 to below 1"),
    "adam_epsilon": (lambda x: x > 0, "above 0"),
    "max_grad_norm": (lambda x: x >= 0, "from 0 up"),
    "explosion_ratio": (lambda x: x >= 0, "from 0 up"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides an optimizer step, in the names of transformers' trainer.

    Attributes:
        max_steps: Optimizer steps.
        learning_rate: Peak rate.
        warmup_steps: Steps over which the rate rises linearly to its peak.
        lr_scheduler_type: ``"cosine"`` falls to ``min_lr_ratio``; ``"constant"`` stays.
        min_lr_ratio: Final rate as a share of the peak.
        weight_decay: Decoupled decay, for matrices only (Loshchilov & Hutter, 2019).
        adam_beta1: Decay of the gradient's running mean.
        adam_beta2: Decay of the squared gradient's running mean.
        adam_epsilon: Added to the root of the second moment.
        max_grad_norm: Largest norm of the whole gradient; 0 does not clip.
        gradient_accumulation_steps: Micro-batches per optimizer step.
        bf16: Forward pass in bfloat16; ``None`` means where the processor has it natively.
        seed: Seed of everything random: torch, NumPy and Python.
        eval_steps: Steps between evaluations; 0 evaluates at the end only.
        save_steps: Steps between checkpoints, where a folder for them is given; 0 saves none.
        explosion_ratio: The guard stops where the mean loss of the last 10 steps exceeds this
            multiple of the first 10 steps' mean, or of twice the first step's loss where that
            is less: a run can explode within 10 steps. 0 switches this part of the guard off.

    Chapter: pretraining/training_dynamics.
    """

    max_steps: int
    learning_rate: float
    warmup_steps: int = 0
    lr_scheduler_type: Literal["cosine", "constant"] = "cosine"
    min_lr_ratio: float = 0.1
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    gradient_accumulation_steps: int = 1
    bf16: bool | None = None
    seed: int = 0
    eval_steps: int = 0
    save_steps: int = 0
    explosion_ratio: float = 1.5

    def __post_init__(self) -> None:
        """Refuse settings that no run can have, and make NumPy's numbers plain."""
        for name, lowest in _WHOLE.items():
            number = whole_number(getattr(self, name), name, lowest)
            object.__setattr__(self, name, number)
        for name, (accepts, accepted) in _REAL.items():
            value = getattr(self, name)
            given = isinstance(value, Real) and not isinstance(value, bool)
            real = float(value) if given else math.nan
            if not math.isfinite(real) or not accepts(real):
                raise ValueError(f"{name} is {value!r}: give a number {accepted}")
            object.__setattr__(self, name, real)
        if self.bf16 not in (None, True, False):
            raise ValueError(f"bf16 is {self.bf16!r}: give True, False or None")
        if self.warmup_steps > self.max_steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}: give 0 to max_steps ({self.max_steps})"
            )
        if self.seed >= 2**32:
            raise ValueError(f"seed is {self.seed}: NumPy takes 0 to {2**32 - 1}")
        if self.lr_scheduler_type not in ("cosine", "constant"):
            raise ValueError(
                f"lr_scheduler_type is {self.lr_scheduler_type!r}: give 'cosine' or 'constant'"
            )

    @property
    def use_bf16(self) -> bool:
        """Whether the forward pass runs in bfloat16 on this machine."""
        return preferred_dtype() == torch.bfloat16 if self.bf16 is None else self.bf16


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Warm up linearly, then follow half a cosine (Loshchilov & Hutter, 2017, Eq. 5).

    In the warm-up, step 0 has the rate ``learning_rate / warmup_steps``. The schedules of
    transformers begin at 0 and so lose the first batch; after the warm-up both agree.

    Args:
        step: Optimizer steps taken so far, from 0.
        config: The schedule.

    Returns:
        The rate of the next step.

    Chapter: pretraining/training_dynamics.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.lr_scheduler_type == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    share = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * (config.min_lr_ratio + (1 - config.min_lr_ratio) * share)


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Make AdamW with decay on matrices only: norms and biases are not pulled to zero.

    Args:
        model: Whose trainable parameters are optimized.
        config: Rates, betas and decay.

    Returns:
        The optimizer, with its fused implementation.

    Raises:
        ValueError: If nothing in the model is trainable.

    Chapter: pretraining/training_dynamics.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(
            "no parameter of the model requires a gradient: nothing can be trained"
        )
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=True,
    )
