"""A pair in one row: the prompt once, then both answers, neither of which sees the other.

In two rows the prompt is computed twice. Where prompts are long, that is most of the work.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.dpo.data.tokenizing import EncodedPair

PROMPT, CHOSEN, REJECTED = 0, 1, 2
"""Values of ``PackedPair.parts``."""


@dataclass(frozen=True)
class PackedPair:
    """Prompt, chosen answer and rejected answer in one row.

    Attributes:
        input_ids: Tokens, shape (T,), int64.
        position_ids: Position of each token in its own sequence, shape (T,), int64: the
            rejected answer's begin where the chosen answer's do.
        parts: `PROMPT`, `CHOSEN` or `REJECTED`, shape (T,), int64.
        predicted_by: Place of the token whose logits predict this one, shape (T,), int64. It is
            the one before; for the first token of *both* answers it is the prompt's last. -1
            for the first token of the prompt.
    """

    input_ids: Tensor
    position_ids: Tensor
    parts: Tensor
    predicted_by: Tensor

    @property
    def attention_mask(self) -> Tensor:
        """Whether token ``i`` sees token ``j``, shape (T, T), bool.

        It sees what stands before it in the prompt and in its own answer.
        """
        T = len(self.input_ids)
        before = torch.arange(T)[:, None] >= torch.arange(T)
        return before & ((self.parts == PROMPT) | (self.parts[:, None] == self.parts))


def pack_pair(pair: EncodedPair) -> PackedPair:
    """Lay a pair into one row.

    Args:
        pair: The pair.

    Returns:
        The row; its log-probabilities are those of the two rows of `collate_pairs`.

    Chapter: dpo/preference_data.
    """
    p, c, r = len(pair.prompt_ids), len(pair.chosen_ids), len(pair.rejected_ids)
    predicted_by = torch.arange(p + c + r) - 1
    predicted_by[p + c] = p - 1
    return PackedPair(
        input_ids=torch.tensor(pair.prompt_ids + pair.chosen_ids + pair.rejected_ids),
        position_ids=torch.cat([torch.arange(p + c), torch.arange(p, p + r)]),
        parts=torch.tensor([PROMPT] * p + [CHOSEN] * c + [REJECTED] * r),
        predicted_by=predicted_by,
    )
