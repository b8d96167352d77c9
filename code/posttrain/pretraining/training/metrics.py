"""What Stage 0 measures: held-out loss, how smooth a curve is, how many words are words.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from posttrain.core.arguments import names
from posttrain.core.stats import Estimate, wilson_interval
from posttrain.core.training.modes import in_evaluation_mode
from posttrain.pretraining.data import Batch, evaluation_windows
from posttrain.pretraining.model.gpt import next_token_loss

_WORD = re.compile(r"[a-z]+")


def summed_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Score a batch the way ``posttrain.core.training.loop.train`` wants it.

    Args:
        model: Gives logits of shape (B, T, V) for input ids of shape (B, T).
        batch: Input ids and labels.

    Returns:
        The loss summed over the batch's tokens, in nats, and their number.

    Chapter: pretraining/training_dynamics.
    """
    count = batch.labels.numel()
    return next_token_loss(model(batch.input_ids), batch.labels) * count, count


@torch.no_grad()
@in_evaluation_mode
def held_out_losses(
    model: nn.Module,
    tokens: Tensor,
    context: int,
    *,
    max_windows: int = 0,
    device: str = "cpu",
    bf16: bool = False,
) -> Tensor:
    """Measure the loss of each window of a text, or of a sample spread evenly over it.

    The model is put into evaluation mode for this time.

    Args:
        model: The model.
        tokens: The text, shape (n,).
        context: Length of a window, in tokens.
        max_windows: Measure this many at most; 0 measures all.
        device: Where the model lies.
        bf16: Whether the forward pass runs in bfloat16.

    Returns:
        Mean loss of each window, in nats per token, float32, shape (windows,).

    Chapter: pretraining/training_dynamics.
    """
    losses = []
    for batch in evaluation_windows(tokens, context, max_windows):
        batch = batch.to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            logits = model(batch.input_ids)
        token_losses = nn.functional.cross_entropy(
            logits.float().transpose(1, 2), batch.labels, reduction="none"
        )
        losses.append(token_losses.mean(dim=1).cpu())
    return torch.cat(losses)


def words(text: str, min_letters: int = 3) -> list[str]:
    """Split a text into lower-case runs of letters.

    Args:
        text: Any text.
        min_letters: Shorter runs are left out.

    Returns:
        The words, in order, with repetitions.

    Chapter: pretraining/training_dynamics.
    """
    return [word for word in _WORD.findall(text.lower()) if len(word) >= min_letters]


def word_share(texts: Sequence[str], vocabulary: set[str], min_letters: int = 3) -> Estimate:
    """Measure which share of the generated words occurs in the corpus.

    The first and the last run of letters of each text may be cut off by the text's ends, so
    they are not counted.

    Args:
        texts: Generated texts.
        vocabulary: Lower-case words of the corpus.
        min_letters: Shorter words are left out: almost any one or two letters are a word.

    Returns:
        The share with its 95 % Wilson interval; ``n`` is the number of generated words.

    Raises:
        ValueError: If the texts hold no word to judge, or are a single text.

    Chapter: pretraining/training_dynamics.
    """
    found = [
        word for text in names(texts, "texts") for word in _WORD.findall(text.lower())[1:-1]
        if len(word) >= min_letters
    ]  # fmt: skip
    if not found:
        raise ValueError(f"the texts hold no whole word of {min_letters} letters or more")
    return wilson_interval(sum(word in vocabulary for word in found), len(found))


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Average over consecutive, non-overlapping windows.

    Args:
        values: A curve.
        window: Points per average; a last window that is not full is left out.

    Returns:
        One mean per window.

    Raises:
        ValueError: If the curve is shorter than one window.

    Chapter: pretraining/training_dynamics.
    """
    if len(values) < window or window < 1:
        raise ValueError(f"{len(values)} points do not fill one window of {window}")
    return [
        sum(values[i : i + window]) / window for i in range(0, len(values) - window + 1, window)
    ]


def largest_rise(values: Sequence[float]) -> float:
    """Measure how far a curve ever climbs above its lowest point so far.

    Args:
        values: A curve; 0 means that it never rises.

    Returns:
        The largest rise, in the curve's unit; NaN where the curve holds a NaN.

    Chapter: pretraining/training_dynamics.
    """
    lowest, rise = float("inf"), 0.0
    for value in values:
        if value != value:
            return float("nan")
        rise = max(rise, value - lowest)
        lowest = min(lowest, value)
    return rise
