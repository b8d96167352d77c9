"""What is in a file of preference pairs, and what to mend in it: ``posttrain data check``.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from posttrain.dpo.data.checks import (
    PairLengths,
    PairRepeats,
    answer_lengths,
    count_words,
    find_prompt_leaks,
    find_repeats,
    pair_lengths,
)
from posttrain.dpo.data.pairs import OwnPairs, load_pairs
from posttrain.dpo.data.tokenizing import EncodedPairs, encode_pairs
from posttrain.sft.data.report import report_tokenizer
from posttrain.sft.data.report_lines import counted, field_lines, listed
from posttrain.sft.data.sources import OnBadRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEW_PAIRS = 200


@dataclass(frozen=True)
class PairsReport:
    """What is in the pairs to train on and to validate on, and what must be mended.

    Attributes:
        train: The pairs to train on.
        validation: The pairs held out, where there are some.
        lengths: Chosen answers against rejected ones; None where there is one pair only.
        repeats: Pairs that repeat or contradict another one, by index.
        leaks: Lines of training and of validation with the same prompt.
        encoded: The pairs as tokens, where a tokenizer was given.
        must_mend: What is wrong, a sentence each, the worst first.
        may_mend: What is worth a look, a sentence each.
    """

    train: OwnPairs
    validation: OwnPairs | None
    lengths: PairLengths | None
    repeats: PairRepeats
    leaks: list[tuple[int, int]]
    encoded: EncodedPairs | None
    must_mend: list[str]
    may_mend: list[str]

    def lines(self) -> list[str]:
        """Write the report.

        Returns:
            Lines of at most 80 columns.
        """
        found = [*_part_lines(self.train)]
        if self.lengths is not None:
            unit, longer = self.lengths.unit, self.lengths.longer_wins
            found += field_lines(unit, f"chosen - rejected: {self.lengths.difference}")
            text = "all are equally long" if longer is None else f"right in {longer}"
            found += field_lines("longer wins", text)
        lines = self.train.lines
        for label, pairs in (
            ("repeated", self.repeats.repeated),
            ("contradicted", self.repeats.contradicted),
        ):
            text = listed([f"{lines[b]} (as line {lines[a]})" for a, b in pairs])
            found += field_lines(label, f"{counted(len(pairs), 'pair')}{text and ': '}{text}")
        found += field_lines("same prompt", counted(self.repeats.same_prompt, "pair"))
        if self.encoded is not None:
            for reason, count in self.encoded.dropped.items():
                first = self.encoded.first_dropped[reason]
                found += field_lines(reason, f"{counted(count, 'pair')}, the first: {first}")
        if self.validation is not None:
            found += ["", *_part_lines(self.validation)]
            text = listed([f"{b} (training, line {a})" for a, b in self.leaks])
            leaks = counted(len(self.leaks), "pair")
            found += field_lines("leaks", f"{leaks}{text and ': '}{text}")
        found.append("")
        mend = [*self.must_mend, *self.may_mend] or ["nothing stands out"]
        found += field_lines("mend first", mend[0])
        for text in mend[1:]:
            found += field_lines("then", text)
        return found

    def __repr__(self) -> str:
        return "\n".join(self.lines())


def check_pairs(
    train: OwnPairs,
    validation: OwnPairs | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    chat_format: str = "smollm2",
    max_length: int | None = None,
) -> PairsReport:
    """Look at pairs before a run: lengths, repetitions, contradictions, leaks.

    Args:
        train: Pairs to train on.
        validation: Pairs held out; None leaves out the search for leaks.
        tokenizer: Counts tokens; None counts words.
        chat_format: A key of `FORMATS`, for the tokenizer.
        max_length: The longest prompt with an answer that the run will take, in tokens.

    Returns:
        The report.

    Raises:
        ValueError: If the limit is given without a tokenizer, or no pair can be encoded.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    if max_length is not None and tokenizer is None:
        raise ValueError(f"max_length is {max_length}: give a tokenizer to count tokens with")
    measure: Callable[[str], int] = count_words
    encoded = None
    if tokenizer is not None:
        measure = partial(_count_tokens, tokenizer)
        encoded = encode_pairs(
            train.rows, tokenizer, chat_format, max_length=max_length, on_bad_row="drop"
        )
    unit = "words" if tokenizer is None else "tokens"
    lengths = None
    if len(train.rows) > 1:
        lengths = pair_lengths(*answer_lengths(train.rows, measure), unit=unit)
    held = [] if validation is None else validation.rows
    leaks = [
        (train.lines[leak.index], validation.lines[leak.other_index])
        for leak in find_prompt_leaks({"train": train.rows, "validation": held})
        if validation is not None
    ]
    repeats = find_repeats(train.rows)
    parts = [train] if validation is None else [train, validation]
    return PairsReport(
        train=train,
        validation=validation,
        lengths=lengths,
        repeats=repeats,
        leaks=leaks,
        encoded=encoded,
        must_mend=[*_must_mend(parts, leaks, repeats, encoded)],
        may_mend=[*_may_mend(train, lengths, repeats)],
    )


def check_pairs_command(
    file: str,
    validation: str | None,
    model: str | None,
    chat_format: str | None,
    max_length: int | None,
    on_bad_row: OnBadRow,
) -> PairsReport:
    """Run ``posttrain data check`` on a file of pairs.

    Args:
        file: The pairs to train on, as for `load_pairs`.
        validation: The pairs held out, or None.
        model: As for `report_tokenizer`; None counts words.
        chat_format: As for `report_tokenizer`.
        max_length: The longest prompt with an answer in tokens, or None.
        on_bad_row: As for `load_pairs`.

    Returns:
        The report.

    Raises:
        AssetError: If a file or the tokenizer cannot be read.
        ValueError: If an option does not fit, or a row is bad and that is an error.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    tokenizer, chat_format = report_tokenizer(model, chat_format, max_length)
    train = load_pairs(file, on_bad_row=on_bad_row)
    held = None if validation is None else load_pairs(validation, on_bad_row=on_bad_row)
    return check_pairs(train, held, tokenizer, chat_format, max_length)


def _count_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False))


def _must_mend(
    parts: Sequence[OwnPairs],
    leaks: Sequence[tuple[int, int]],
    repeats: PairRepeats,
    encoded: EncodedPairs | None,
) -> Iterator[str]:
    if leaks:
        held = counted(len({line for _, line in leaks}), "pair")
        yield f"take out of one file the prompts that stand in both: {held} of those held out"
    if repeats.contradicted:
        pairs = counted(len(repeats.contradicted), "pair")
        yield f"decide which answer is better: {pairs} with an earlier one's answers swapped"
    for part in parts:
        if dropped := part.dropped.total():
            yield f"mend or remove {counted(dropped, 'bad row')} of {_name(part)}"
    if encoded is not None and (count := encoded.dropped["not encoded"]):
        yield f"mend or remove {counted(count, 'pair')} that cannot be encoded"


def _may_mend(
    train: OwnPairs, lengths: PairLengths | None, repeats: PairRepeats
) -> Iterator[str]:
    if lengths is not None and lengths.warning is not None:
        yield lengths.warning
    if train.prefixes:
        pairs = counted(len(train.prefixes), "pair")
        lines = listed(train.prefixes)
        yield f"look at {pairs} of which one answer begins the other: lines {lines}"
    if repeats.repeated:
        yield f"remove what repeats another pair: {counted(len(repeats.repeated), 'pair')}"
    if len(train.rows) < FEW_PAIRS:
        yield f"add pairs: {counted(len(train.rows), 'pair')} to train on"


def _part_lines(part: OwnPairs) -> Iterator[str]:
    yield from field_lines("file", part.source)
    yield from field_lines("pairs", f"{len(part.rows):,} of {part.format}")
    if part.ignored:
        yield from field_lines("passed over", f"the fields {', '.join(part.ignored)}")
    yield from field_lines("dropped", counted(part.dropped.total(), "row"))
    for reason, count in part.dropped.most_common():
        yield from field_lines("", f"{count:,} x {part.first_dropped.get(reason, reason)}")


def _name(part: OwnPairs) -> str:
    return part.source.rpartition("/")[2]
