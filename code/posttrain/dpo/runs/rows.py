"""The pairs of a run: to train on and to measure on, with no prompt on both sides.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from posttrain.dpo.data.checks import find_prompt_leaks
from posttrain.dpo.data.pair_formats import PairRow
from posttrain.dpo.data.pairs import OwnPairs, load_pairs, pairs_digest, split_pairs
from posttrain.dpo.data.tokenizing import EncodedPair, encode_pairs
from posttrain.sft.data.sources import OnBadRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAKED = "prompt among the training pairs"


@dataclass(frozen=True)
class RunPairs:
    """Pairs to train and to measure on.

    Attributes:
        train: Pairs to train on.
        validation: Pairs that are held out, at least one.
        dropped: Rows that were left out, by reason.
        held_out_here: Whether the held-out pairs were taken from the training file.
    """

    train: OwnPairs
    validation: OwnPairs
    dropped: Counter[str]
    held_out_here: bool = True

    def facts(self) -> dict[str, Any]:
        """Plain values for the run's record and card.

        Returns:
            Source, format, digest and numbers of pairs.
        """
        return {
            "source": self.train.source,
            "format": self.train.format,
            "sha256": self.train.sha256,
            "train_rows": len(self.train.rows),
            "held_out_rows": len(self.validation.rows),
            "dropped": dict(self.dropped),
        }

    def lines(self) -> list[str]:
        """Describe the pairs.

        Returns:
            Lines of text.
        """
        where = " of the same file" if self.held_out_here else ""
        lines = [
            f"data:       {self.train.source}: {self.train.format}",
            f"pairs:      {len(self.train.rows):,} to train on, "
            f"{len(self.validation.rows):,}{where} held out",
        ]
        if self.dropped:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
            lines.append(f"dropped:    {reasons}")
        if self.train.ignored:
            lines.append(f"passed by:  the fields {', '.join(self.train.ignored)}")
        return lines


def load_run_pairs(
    data: str, validation: str | None, on_bad_row: OnBadRow, seed: int
) -> RunPairs:
    """Read the pairs of a run, and hold some out.

    A held-out pair whose prompt is trained on says nothing of other prompts. Where one comes
    out of a file of its own, it is a bad row: an error, or dropped and counted.

    Args:
        data: A file or a data set on the hub.
        validation: Pairs to measure on; a part of ``data`` where it is left out.
        on_bad_row: Whether a bad row is an error or dropped and counted.
        seed: Seed of which pairs are held out.

    Returns:
        The pairs.

    Raises:
        AssetError: If a file cannot be read, or holds no pair.
        ValueError: If a row is bad and that is an error, or no pair can be held out.

    Chapter: dpo/alignment.
    """  # noqa: DOC502, DOC503
    own = load_pairs(data, on_bad_row=on_bad_row)
    if validation is None:
        if len(own.rows) == 1:
            raise ValueError(
                f"{data} gives one pair, and one at least must be held out: give more pairs, "
                "or a file of others with --val"
            )
        return RunPairs(*split_pairs(own, seed=seed), own.dropped)
    held = load_pairs(validation, on_bad_row=on_bad_row)
    leaks = find_prompt_leaks({"train": own.rows, "validation": held.rows})
    leaked = {leak.other_index: leak.index for leak in leaks}
    dropped = own.dropped + held.dropped
    if leaked:
        first = min(leaked)
        if on_bad_row == "error":
            raise ValueError(
                f"{validation}, line {held.lines[first]}, has the prompt of line "
                f"{own.lines[leaked[first]]} of {data}, and {len(leaked)} of "
                f"{len(held.rows)} such: take them out of one file, or add --on-bad-row drop"
            )
        if len(leaked) == len(held.rows):
            raise ValueError(
                f"every prompt of {validation} stands in {data} too: hold out pairs of others"
            )
        dropped[LEAKED] = len(leaked)
        kept = [i for i in range(len(held.rows)) if i not in leaked]
        held = _some(held, kept)
    return RunPairs(own, held, dropped, held_out_here=False)


def _some(pairs: OwnPairs, kept: Sequence[int]) -> OwnPairs:
    rows = [pairs.rows[i] for i in kept]
    lines = [pairs.lines[i] for i in kept]
    return replace(pairs, rows=rows, lines=lines, sha256=pairs_digest(rows))


def encode_run_pairs(
    pairs: OwnPairs,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: str,
    max_length: int,
    on_bad_row: OnBadRow,
) -> tuple[list[EncodedPair], list[PairRow], Counter[str]]:
    """Encode the pairs of a run; no answer is cut.

    Args:
        pairs: The pairs.
        tokenizer: The model's tokenizer.
        chat_format: The model's format.
        max_length: The longest prompt with an answer, in tokens.
        on_bad_row: What to do with a pair that is refused or too long.

    Returns:
        The encoded pairs, the same as messages, and how many were left out, by reason.

    Raises:
        ValueError: If none is left, or a pair is refused or too long and that is an error.

    Chapter: dpo/alignment.
    """  # noqa: DOC502, DOC503
    try:
        found = encode_pairs(
            pairs.rows, tokenizer, chat_format, max_length=max_length, on_bad_row="drop"
        )
    except ValueError as error:
        raise ValueError(f"{pairs.source}: {error} (--set max_length=...)") from None
    lost = sorted(set(range(len(pairs.rows))) - set(found.indices))
    if lost and on_bad_row == "error":
        start = f"pair {lost[0]}: "
        why = next(text for text in found.first_dropped.values() if text.startswith(start))
        raise ValueError(
            f"{pairs.source}, line {pairs.lines[lost[0]]}: {why.removeprefix(start)}: raise "
            "that with --set max_length=..., mend the row, or leave such pairs out with "
            "--on-bad-row drop"
        )
    return found.pairs, [pairs.rows[index] for index in found.indices], found.dropped


def by_pair_length(
    pairs: Sequence[EncodedPair], batch_size: int, seed: int = 0
) -> list[EncodedPair]:
    """Order pairs so that those of a padded batch are of nearly the same length.

    As :func:`posttrain.sft.training.packing.by_length` does with conversations, the batch that
    needs the most memory comes first.

    Args:
        pairs: Encoded pairs.
        batch_size: Pairs of a micro-batch.
        seed: Seed of the order.

    Returns:
        The same pairs in another order.

    Chapter: dpo/alignment.
    """
    from posttrain.sft.chat.template import EncodedChat
    from posttrain.sft.training.packing import by_length

    stand_ins = [EncodedChat([row] * pair.longest, []) for row, pair in enumerate(pairs)]
    ordered = by_length(stand_ins, batch_size, seed)
    return [pairs[stand_in.input_ids[0]] for stand_in in ordered]
