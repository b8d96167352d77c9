"""Stage 0's settings for each kind of machine, with a reason beside each value.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from posttrain.core.arguments import whole_number
from posttrain.core.training.optimization import TrainingConfig
from posttrain.pretraining.model.gpt import GPTConfig

VOCABULARY = 64  # characters in the corpus "shakespeare"; the corpus is asked at run time


@dataclass(frozen=True)
class PretrainPreset:
    """A data set, a model and a schedule that fit one kind of machine.

    Attributes:
        name: ``cpu``, ``t4`` or ``a100``; ``nano`` is the model that sweeps use.
        dataset: A data set that ``posttrain.core.assets`` knows.
        model: Shape of the model.
        batch_size: Windows per step; a window is as long as the model's context.
        training: Schedule and optimizer.
        device: ``"cpu"`` or ``"cuda"``.

    Chapter: pretraining/training_dynamics.
    """

    name: str
    dataset: str
    model: GPTConfig
    batch_size: int
    training: TrainingConfig
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse what no run can be made of, before a corpus is read."""
        for name in ("name", "dataset"):
            if not isinstance(value := getattr(self, name), str) or not value.strip():
                raise ValueError(f"{name} is {value!r}: give a text")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", str(self.device)):
            raise ValueError(
                f"device is {self.device!r}: give 'cpu', 'cuda' or such as 'cuda:1'"
            )
        object.__setattr__(self, "batch_size", whole_number(self.batch_size, "batch_size", 1))

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step reads."""
        accumulation = self.training.gradient_accumulation_steps
        return self.batch_size * self.model.max_position_embeddings * accumulation


CPU = PretrainPreset(
    name="cpu",
    dataset="shakespeare",  # 1 MB, read three times: too much for so small a model to memorize
    model=GPTConfig(
        vocab_size=VOCABULARY,  # for sizes only: the corpus decides
        hidden_size=128,  # the width of nanoGPT's CPU recipe, for comparison
        intermediate_size=352,  # 8/3 of the width, to a multiple of 32
        num_hidden_layers=4,  # the depth of that recipe
        num_attention_heads=4,  # as that recipe: 32 channels a head
        max_position_embeddings=128,  # about three lines of verse
    ),
    batch_size=16,  # 2,048 tokens a step: enough to keep both cores busy
    training=TrainingConfig(
        max_steps=1500,  # about 3 passes over the text; a minute or so with native bf16
        learning_rate=3e-3,  # the best of the sweep in the chapter, on the model nano
        warmup_steps=100,  # AdamW's second moment needs about 1 / (1 - beta2) steps
        min_lr_ratio=0.1,  # the usual floor
        weight_decay=0.1,  # the usual value; it hardly matters in so short a run
        adam_beta2=0.99,  # small batches are noisy: average their squares for longer
        max_grad_norm=1.0,  # the usual bound
        eval_steps=100,  # often enough for a curve, seldom enough to cost little
        save_steps=250,  # an interruption loses at most 10 seconds or so
    ),
)

NANO = PretrainPreset(
    name="nano",
    dataset="shakespeare",  # as cpu, so that losses can be compared
    model=replace(
        CPU.model,
        hidden_size=64,  # an eighth of the parameters: a run takes seconds, so seeds are cheap
        intermediate_size=160,  # 8/3 of the width, to a multiple of 32
        num_hidden_layers=2,  # the fewest with which a head can build on another
        num_attention_heads=2,  # 32 channels a head, as cpu
        max_position_embeddings=64,  # about a line and a half of verse
    ),
    batch_size=16,  # as cpu
    training=replace(
        CPU.training,
        max_steps=300,  # a few seconds; the order of the settings in a sweep shows by then
        warmup_steps=30,  # a tenth of the run
        eval_steps=0,  # at the start and the end only: sweeps compare ends
        save_steps=0,  # a run this short is started again, not resumed
    ),
)

T4 = PretrainPreset(
    name="t4",
    dataset="shakespeare-all",  # 5 MB, since this run reads far more tokens
    model=GPTConfig(
        vocab_size=VOCABULARY,  # for sizes only: the corpus decides
        hidden_size=384,  # nanoGPT's GPU recipe for characters
        intermediate_size=1024,  # 8/3 of the width
        num_hidden_layers=6,  # as that recipe
        num_attention_heads=6,  # as that recipe: 64 channels a head
        max_position_embeddings=256,  # as that recipe: about six lines of verse
    ),
    batch_size=64,  # 16,384 tokens a step: large products, which a GPU needs to be busy
    training=TrainingConfig(
        max_steps=5000,  # as that recipe: about 16 passes over the text
        learning_rate=1e-3,  # wider models want lower rates
        warmup_steps=100,  # as cpu
        weight_decay=0.1,  # the usual value; over so many passes it counts
        adam_beta2=0.99,  # as cpu
        bf16=False,  # a T4 has no bf16 units
        eval_steps=250,  # 20 points on the curve
        save_steps=500,  # an interruption loses at most a tenth of the run
    ),
    device="cuda",  # the preset is made for that GPU
)

A100 = replace(
    T4,
    name="a100",
    model=replace(
        T4.model,
        hidden_size=768,  # GPT-2 small's width
        intermediate_size=2048,  # 8/3 of the width
        num_hidden_layers=12,  # GPT-2 small's depth
        num_attention_heads=12,  # GPT-2 small's: 64 channels a head
        max_position_embeddings=512,  # twice the t4: about twelve lines of verse
    ),
    training=replace(
        T4.training,
        learning_rate=6e-4,  # GPT-3 125M's, a model of this width and depth
        bf16=True,  # an A100 has bf16 units
    ),
)

PRESETS = {preset.name: preset for preset in (CPU, NANO, T4, A100)}


def get_preset(name: str) -> PretrainPreset:
    """Look up a preset.

    Args:
        name: ``cpu``, ``nano``, ``t4`` or ``a100``.

    Returns:
        The preset.

    Raises:
        ValueError: If there is none of that name.

    Chapter: pretraining/training_dynamics.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
