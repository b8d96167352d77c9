"""Stage 2's settings for each kind of machine, with a reason beside each value.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from posttrain.core.arguments import shortened, whole_number
from posttrain.core.training.optimization import TrainingConfig
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.sft import presets as sft_presets
from posttrain.sft.presets import SFTPreset


@dataclass(frozen=True)
class DPOPreset:
    """A start, a loss and a schedule that fit one kind of machine.

    Attributes:
        name: ``cpu``, ``t4``, ``t4-qwen``, ``gpu24`` or ``a100``.
        start: Stage 1's preset of the same machine. It says the model, how it writes a
            conversation, who trains, in which number format, and the shape of a new adapter
            where a run starts from none.
        loss: The preference loss.
        batch_size: Pairs per micro-batch.
        max_length: Longest prompt with one answer, in tokens.
        training: Schedule and optimizer.
        gradient_checkpointing: Whether activations are computed a second time in the backward
            pass instead of kept.

    Chapter: dpo/alignment.
    """

    name: str
    start: SFTPreset
    loss: PreferenceLossConfig
    batch_size: int
    max_length: int
    training: TrainingConfig
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Refuse what no run can have, before a model is loaded."""
        kinds = {
            "name": str, "start": SFTPreset, "loss": PreferenceLossConfig,
            "training": TrainingConfig, "gradient_checkpointing": bool,
        }  # fmt: skip
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or value == "":
                raise ValueError(f"{name} is {shortened(value)}: give a {kind.__name__}")
        for name in ("batch_size", "max_length"):
            object.__setattr__(self, name, whole_number(getattr(self, name), name, 1))
        if self.loss.needs.data != "pairs":
            raise ValueError(
                f"loss_type is {self.loss.loss_type!r} and {self.loss.needs.name} takes single "
                "answers: choose a loss on pairs"
            )


CPU = DPOPreset(
    name="cpu",
    start=sft_presets.CPU,  # SmolLM2 with an adapter of rank 8, in bf16 where it is native
    loss=PreferenceLossConfig(
        loss_type="sigmoid",  # DPO itself: what the derivation ends at
        beta=0.1,  # the paper's value; the sweep shows what others do
    ),
    batch_size=10,  # pairs of about 140 tokens: as many tokens a step as Stage 1's
    max_length=160,  # the longest question with an answer of 64 tokens is shorter
    training=TrainingConfig(
        max_steps=30,  # one pass over 300 pairs: a second one lets the margin run away
        learning_rate=5e-4,  # an eighth of Stage 1's; at 7e-4 held-out pairs get worse again
        warmup_steps=3,  # a tenth: the first gradients all point the same way
        min_lr_ratio=0.0,  # as Stage 1
        weight_decay=0.0,  # as Stage 1
        adam_beta2=0.999,  # as Stage 1
        max_grad_norm=1.0,  # the usual bound
        bf16=False,  # no autocast, as Stage 1
        eval_steps=10,  # four points on each curve
        save_steps=10,  # an interruption loses a third of the run at most
        explosion_ratio=0.0,  # a preference loss near 0 makes ratios of it meaningless
    ),
)

T4 = DPOPreset(
    name="t4",
    start=sft_presets.T4,  # Llama-3.2-1B in 4 bits, with Unsloth
    loss=PreferenceLossConfig(loss_type="sigmoid", beta=0.1),  # as cpu
    batch_size=2,  # a pair is two rows of up to 1,024 tokens: 4 rows at once
    max_length=1024,  # as Stage 1
    gradient_checkpointing=True,  # room for the two rows of each pair on 15 GB
    training=TrainingConfig(
        max_steps=300,  # 2,400 pairs; with 600 pairs of one's own, four passes: set it lower
        learning_rate=2e-5,  # a tenth of Stage 1's
        warmup_steps=30,  # a tenth of the run
        min_lr_ratio=0.0,  # as cpu
        weight_decay=0.0,  # as cpu
        adam_beta2=0.999,  # as cpu
        gradient_accumulation_steps=4,  # 8 pairs a step
        bf16=False,  # a T4 has none
        eval_steps=50,  # seven points; the adapter of the lowest validation loss is kept
        save_steps=50,  # as eval_steps
        explosion_ratio=0.0,  # as cpu
    ),
)

T4_QWEN = replace(
    T4,
    name="t4-qwen",
    start=sft_presets.T4_QWEN,  # Qwen2.5-1.5B in 4 bits
    batch_size=1,  # its larger vocabulary makes larger logits
    training=replace(T4.training, gradient_accumulation_steps=8),  # still 8 pairs a step
)

GPU24 = replace(
    T4,
    name="gpu24",
    start=sft_presets.GPU24,  # Qwen2.5-7B in 4 bits
    batch_size=2,  # four rows
    training=replace(
        T4.training,
        learning_rate=1e-5,  # half of t4's for a larger model, as in Stage 1
    ),
)

A100 = replace(
    GPU24,
    name="a100",
    start=sft_presets.A100,  # Qwen2.5-7B in 4 bits
    batch_size=4,  # twice gpu24's
    max_length=2048,  # as Stage 1
    training=replace(
        GPU24.training,
        max_steps=600,  # twice t4's
        warmup_steps=60,  # a tenth of the run
        gradient_accumulation_steps=2,  # still 8 pairs a step
        eval_steps=100,  # seven points
        save_steps=100,  # as eval_steps
    ),
)

PRESETS = {preset.name: preset for preset in (CPU, T4, T4_QWEN, GPU24, A100)}


def get_preset(name: str) -> DPOPreset:
    """Look up a preset.

    Args:
        name: ``cpu``, ``t4``, ``t4-qwen``, ``gpu24`` or ``a100``.

    Returns:
        The preset.

    Raises:
        ValueError: If there is none of that name.

    Chapter: dpo/alignment.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
