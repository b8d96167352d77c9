"""What is in a training file, and what to mend in it before a run: ``posttrain data check``.

Chapter: sft/your_model.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from posttrain.core.assets import MODELS, load_tokenizer
from posttrain.core.errors import AssetError
from posttrain.sft.chat.messages import is_trained
from posttrain.sft.chat.recognition import chat_format_of
from posttrain.sft.chat.template import FORMATS, encode_chat, special_tokens
from posttrain.sft.data.duplicates import (
    exact_duplicates,
    find_leaks,
    in_words,
    near_repeats,
    same_words_key,
)
from posttrain.sft.data.hub import ChatRow
from posttrain.sft.data.own_rows import OwnRows, load_rows, questions_of
from posttrain.sft.data.report_lines import counted, field_lines, listed
from posttrain.sft.data.sources import OnBadRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ALIKE = 0.8
"""Least similarity of two questions that are counted as alike, as in `near_repeats`."""

FEW_ROWS = 50
_OPENING = 3  # words

# Control and direction characters, private ones, and what stands for unreadable bytes.
_ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069"
    "\ue000-\uf8ff\ufeff\ufffd\uffff]"
)
# UTF-8 that was read as Latin-1 or Windows-1252: "Ã" or "Â" and what a second byte became.
_SECOND = "\x80-\xbf" + re.escape(bytes(range(0x80, 0xA0)).decode("cp1252", "ignore"))
_MOJIBAKE = re.compile(f"[ÃÂ][{_SECOND}]|â€")


@dataclass(frozen=True)
class Spread:
    """How large the values of a measure are.

    Attributes:
        least: The smallest.
        median: Half of the values lie below it.
        p95: 95 % of the values lie below it.
        most: The largest.
        total: Their sum.
    """

    least: int
    median: float
    p95: float
    most: int
    total: int

    def __repr__(self) -> str:
        return (
            f"min {self.least:,}, median {self.median:,.0f}, 95 % {self.p95:,.0f}, max "
            f"{self.most:,}; {self.total:,} in all"
        )


@dataclass(frozen=True)
class PartReport:
    """What is in the rows of one file.

    Attributes:
        rows: The rows.
        exchanges: Answers in a row.
        roles: Number of messages by role.
        context: Answers with the weight 0.
        systems: Number of different system messages.
        without_system: Rows that have none.
        unit: What ``lengths`` counts: "tokens", or "characters" without a tokenizer.
        lengths: Length of a row.
        trained: How much of it is trained.
        too_long: Lines of rows longer than the limit.
        refused: Rows that the tokenizer cannot encode: their line and why.
        openings: How often the answers begin with the same three words, most frequent first.
        odd: Number of rows with a character that is not printed, by character.
        mojibake: Lines of rows that look like UTF-8 read in another encoding.
    """

    rows: OwnRows
    exchanges: Spread
    roles: Counter[str]
    context: int
    systems: int
    without_system: int
    unit: str
    lengths: Spread
    trained: int
    too_long: list[int]
    refused: dict[int, str]
    openings: Counter[str]
    odd: Counter[str]
    mojibake: list[int]


@dataclass(frozen=True)
class DataReport:
    """What is in the rows to train on and to validate on, and what must be mended.

    Pairs of rows are pairs of lines. The earlier file, or the earlier line, comes first.

    Attributes:
        train: The rows to train on.
        validation: The rows held out, where there are some.
        max_length: The limit of a row in tokens that was asked about.
        duplicates: Rows of training that repeat an earlier one.
        alike: Rows of training whose question is nearly an earlier one's.
        conflicts: Lines of rows that go on differently after the same messages.
        leaks: Questions of training that are held out too.
        near_leaks: Questions of training that are nearly one held out.
        must_mend: What is wrong, a sentence each, the worst first.
        may_mend: What is worth a look, a sentence each.
    """

    train: PartReport
    validation: PartReport | None
    max_length: int | None
    duplicates: list[tuple[int, int]]
    alike: list[tuple[int, int]]
    conflicts: list[tuple[int, ...]]
    leaks: list[tuple[int, int]]
    near_leaks: list[tuple[int, int]]
    must_mend: list[str]
    may_mend: list[str]

    def lines(self) -> list[str]:
        """Write the report.

        Returns:
            Lines of at most 80 columns.
        """
        found = [*_part_lines(self.train, self.max_length)]
        found += field_lines("repeated", _pairs_text(self.duplicates, "as line"))
        found += field_lines("nearly repeated", _pairs_text(self.alike, "as line"))
        several = [" and ".join(map(str, lines)) for lines in self.conflicts]
        text = counted(len(several), "question")
        found += field_lines(
            "several answers", f"{text}: lines {listed(several)}" if several else text
        )
        if self.validation is not None:
            found += ["", *_part_lines(self.validation, self.max_length)]
            found += field_lines("leaks", _pairs_text(self.leaks, "training, line"))
            found += field_lines("near leaks", _pairs_text(self.near_leaks, "training, line"))
        found.append("")
        mend = [*self.must_mend, *self.may_mend] or ["nothing stands out"]
        found += field_lines("mend first", mend[0])
        for text in mend[1:]:
            found += field_lines("then", text)
        return found

    def __repr__(self) -> str:
        return "\n".join(self.lines())


def check_data(
    train: OwnRows,
    validation: OwnRows | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    chat_format: str = "smollm2",
    max_length: int | None = None,
) -> DataReport:
    """Look at rows before a run: lengths, repetitions, leaks, answers that disagree.

    Args:
        train: Rows to train on.
        validation: Rows held out; None leaves out the search for leaks.
        tokenizer: Counts tokens; None counts characters.
        chat_format: A key of `FORMATS`, for the tokenizer.
        max_length: The longest row that the run will take, in tokens.

    Returns:
        The report.

    Raises:
        ValueError: If the limit is below 1 or given without a tokenizer, a part holds no rows,
            or the tokenizer lacks a marker of the format.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    if max_length is not None and (tokenizer is None or max_length < 1):
        raise ValueError(
            f"max_length is {max_length}: give at least 1 token, and a tokenizer to count them"
        )
    if tokenizer is not None:
        special_tokens(tokenizer, chat_format)  # else every row would be refused
    parts = [
        _examine(part, tokenizer, chat_format, max_length)
        for part in (train, validation)
        if part is not None
    ]
    held_rows = [] if validation is None else validation.rows
    held_lines = [] if validation is None else validation.lines
    asked, held = (
        [in_words(text) for text in texts] for texts in questions_of(train.rows, held_rows)
    )
    duplicates = [
        (train.lines[pair.first], train.lines[pair.second])
        for pair in exact_duplicates([in_words(_whole(row)) for row in train.rows])
    ]
    alike = [
        (train.lines[pair.first], train.lines[pair.second])
        for pair in near_repeats(asked, ALIKE)
        if not _same_words(asked[pair.first], asked[pair.second])
    ]
    leaks = [
        (train.lines[leak.index], held_lines[leak.other_index])
        for leak in find_leaks({"train": asked, "validation": held})
    ]
    near_leaks = [
        (train.lines[pair.first], held_lines[pair.second])
        for pair in near_repeats(held, ALIKE, against=asked)
        if not _same_words(asked[pair.first], held[pair.second])
    ]
    conflicts = [tuple(train.lines[i] for i in rows) for rows in _conflicts(train.rows)]
    must_mend = [*_must_mend(parts, leaks, conflicts, max_length)]
    may_mend = [*_may_mend(parts, duplicates, near_leaks, max_length)]
    return DataReport(
        train=parts[0],
        validation=parts[1] if validation is not None else None,
        max_length=max_length,
        duplicates=duplicates,
        alike=alike,
        conflicts=conflicts,
        leaks=leaks,
        near_leaks=near_leaks,
        must_mend=must_mend,
        may_mend=may_mend,
    )


def check_command(
    file: str,
    validation: str | None,
    model: str | None,
    chat_format: str | None,
    max_length: int | None,
    on_bad_row: OnBadRow,
) -> DataReport:
    """Run ``posttrain data check``.

    Args:
        file: The rows to train on, as for `load_rows`.
        validation: The rows held out, or None.
        model: Whose tokenizer counts: a name that ``posttrain.core.assets`` knows, a folder or
            a repository; None counts characters.
        chat_format: A key of `FORMATS`; None takes the one that the tokenizer's template is.
        max_length: The longest row in tokens, or None.
        on_bad_row: As for `load_rows`.

    Returns:
        The report.

    Raises:
        AssetError: If a file or the tokenizer cannot be read.
        ValueError: If an option does not fit, or a row is bad and that is an error.

    Chapter: sft/your_model.
    """  # noqa: DOC502, DOC503
    tokenizer, chat_format = report_tokenizer(model, chat_format, max_length)
    train = load_rows(file, on_bad_row=on_bad_row)
    held = None if validation is None else load_rows(validation, on_bad_row=on_bad_row)
    return check_data(train, held, tokenizer, chat_format, max_length)


def report_tokenizer(
    model: str | None, chat_format: str | None, max_length: int | None
) -> tuple[PreTrainedTokenizerBase | None, str]:
    """Load the tokenizer that a report counts with, and say which format it writes.

    Args:
        model: Whose tokenizer: a name that ``posttrain.core.assets`` knows, a folder or a
            repository; None counts characters or words.
        chat_format: A key of `FORMATS`; None takes the one that the tokenizer's template is.
        max_length: The limit that was asked about; it needs a tokenizer.

    Returns:
        The tokenizer or None, and the format.

    Raises:
        AssetError: If the tokenizer cannot be read.
        ValueError: If an option does not fit.

    Chapter: sft/your_model.
    """  # noqa: DOC502, DOC503
    if model is None and (chat_format is not None or max_length is not None):
        raise ValueError(
            "--chat-format and --max-length need a tokenizer: name the model with --model"
        )
    tokenizer = None if model is None else _tokenizer(model)
    if tokenizer is not None and chat_format is None:
        chat_format = chat_format_of(tokenizer)
        if chat_format is None:
            raise ValueError(
                f"the chat template of {model} is none of {', '.join(FORMATS)}: choose one "
                "with --chat-format"
            )
    return tokenizer, chat_format or "smollm2"


def _tokenizer(model: str) -> PreTrainedTokenizerBase:
    if model in MODELS or Path(model).is_dir():
        return load_tokenizer(model)
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model, trust_remote_code=False
        )
    except (OSError, ValueError) as error:  # offline, or no such repository
        raise AssetError(
            f"the tokenizer of {model} could not be read from the hub "
            f"({type(error).__name__}): look at the name and the network, or give a folder"
        ) from error
    return tokenizer


# --- one part ---


def _examine(
    part: OwnRows,
    tokenizer: PreTrainedTokenizerBase | None,
    chat_format: str,
    max_length: int | None,
) -> PartReport:
    if not part.rows:
        raise ValueError(f"{part.source} holds no rows to look at: give at least one")
    lengths, trained, refused = [], 0, {}
    for line, row in zip(part.lines, tqdm(part.rows, "reading", disable=None), strict=True):
        try:
            length, learnt = _length(row, tokenizer, chat_format)
        except ValueError as error:  # a special token, or a character without one
            refused[line] = str(error)
            length, learnt = 0, 0
        lengths.append(length)
        trained += learnt
    messages = [message for row in part.rows for message in row["messages"]]
    answers = [message["content"] for message in messages if is_trained(message)]
    systems = [m["content"] for m in messages if m["role"] == "system"]
    texts = ["\n".join(m["content"] for m in row["messages"]) for row in part.rows]
    return PartReport(
        rows=part,
        exchanges=_spread(
            [sum(m["role"] == "assistant" for m in row["messages"]) for row in part.rows]
        ),
        roles=Counter(message["role"] for message in messages),
        context=sum(m["role"] == "assistant" and not is_trained(m) for m in messages),
        systems=len(set(systems)),
        without_system=len(part.rows) - len(systems),
        unit="characters" if tokenizer is None else "tokens",
        lengths=_spread([length for length in lengths if length] or [0]),
        trained=trained,
        too_long=[
            line
            for line, length in zip(part.lines, lengths, strict=True)
            if max_length is not None and length > max_length
        ],
        refused=refused,
        openings=Counter(" ".join(answer.split()[:_OPENING]) for answer in answers),
        odd=Counter(letter for text in texts for letter in set(_ODD.findall(text))),
        mojibake=[
            line for line, text in zip(part.lines, texts, strict=True) if _MOJIBAKE.search(text)
        ],
    )


def _length(
    row: ChatRow, tokenizer: PreTrainedTokenizerBase | None, chat_format: str
) -> tuple[int, int]:
    """Return how long a row is, and how much of it is trained."""
    if tokenizer is None:
        sizes = [(len(m["content"]), is_trained(m)) for m in row["messages"]]
        return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)
    encoded = encode_chat(row["messages"], tokenizer, chat_format)
    return len(encoded.input_ids), sum(encoded.assistant_mask)


def _spread(values: Sequence[int]) -> Spread:
    median, p95 = np.percentile(values, [50, 95])
    return Spread(min(values), float(median), float(p95), max(values), sum(values))


# --- rows that say the same ---


def _whole(row: ChatRow) -> str:
    return "\n".join(f"{m['role']}: {m['content']}" for m in row["messages"])


def _same_words(a: str, b: str) -> bool:
    return same_words_key(a) == same_words_key(b)


def _folded(text: str) -> str:
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return plain.rstrip(" .!?") or plain


def _conflicts(rows: Sequence[ChatRow]) -> list[list[int]]:
    """Find rows that are the same up to their last answer, and differ in it."""
    answers: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    for index, row in enumerate(rows):
        *before, last = row["messages"]
        if is_trained(last):
            key = tuple(f"{m['role']} {_folded(m['content'])}" for m in before)
            answers[key].setdefault(_folded(last["content"]), index)
    return [[*found.values()] for found in answers.values() if len(found) > 1]


# --- what to mend ---


def _must_mend(
    parts: Sequence[PartReport],
    leaks: Sequence[tuple[int, int]],
    conflicts: Sequence[tuple[int, ...]],
    max_length: int | None,
) -> Iterator[str]:
    if leaks:
        questions = counted(len({line for _, line in leaks}), "question")
        yield f"take out of one file what stands in both: {questions}"
    if conflicts:
        yield f"keep one answer to each of {counted(len(conflicts), 'question')} with several"
    for part in parts:
        name, rows = _name(part), len(part.rows.rows)
        if dropped := part.rows.dropped.total():
            yield f"mend or remove {counted(dropped, 'bad row')} of {name}"
        if part.refused:
            line, why = next(iter(part.refused.items()))
            yield (
                f"{counted(len(part.refused), 'row')} of {name} cannot be encoded, line {line} "
                f"first: {why}"
            )
        if len(part.too_long) == rows:
            yield f"every row of {name} is longer than {max_length:,} tokens: raise the limit"


def _may_mend(
    parts: Sequence[PartReport],
    duplicates: Sequence[tuple[int, int]],
    near_leaks: Sequence[tuple[int, int]],
    max_length: int | None,
) -> Iterator[str]:
    for part in parts:
        name, rows = _name(part), len(part.rows.rows)
        if 0 < (long := len(part.too_long)) < rows:
            yield f"leave out or shorten what is over {max_length:,} tokens in {name}: {long:,}"
        if part.mojibake:
            yield (
                f"look at the letters in {name}: UTF-8 that was read in another encoding, it "
                f"seems, in lines {listed(part.mojibake)}"
            )
        if part.odd:
            yield f"remove the characters of {name} that are not printed"
    if near_leaks:
        questions = counted(len(near_leaks), "question")
        yield f"read what is nearly asked in training too: {questions}"
    if duplicates:
        yield f"remove what repeats another row of training: {counted(len(duplicates), 'row')}"
    if (rows := len(parts[0].rows.rows)) < FEW_ROWS:
        yield f"add rows, of more kinds: {counted(rows, 'row')} to train on"


# --- the lines ---


def _part_lines(part: PartReport, max_length: int | None) -> Iterator[str]:
    own = part.rows
    yield from field_lines("file", own.source)
    yield from field_lines("rows", f"{len(own.rows):,} of {own.format}")
    if own.ignored:
        yield from field_lines("passed over", f"the fields {', '.join(own.ignored)}")
    yield from field_lines("dropped", counted(own.dropped.total(), "row"))
    for reason, count in own.dropped.most_common():
        yield from field_lines("", f"{count:,} x {own.first_dropped.get(reason, reason)}")
    least, most = part.exchanges.least, part.exchanges.most
    text = f"{least}" if least == most else f"{least} to {most}"
    yield from field_lines("answers", f"{part.roles['assistant']:,}, {text} in a row")
    if part.context:
        yield from field_lines("", f"{part.context:,} of them are context and not trained")
    yield from field_lines("roles", ", ".join(f"{r} {n:,}" for r, n in part.roles.items()))
    text = f"{part.systems:,} different, none in {counted(part.without_system, 'row')}"
    yield from field_lines("system message", text)
    yield from field_lines(part.unit, str(part.lengths))
    share = part.trained / max(part.lengths.total, 1)
    yield from field_lines("trained", f"{part.trained:,} {part.unit}, {share:.0%} of all")
    if max_length is not None:
        yield from field_lines(f"over {max_length:,}", _rows_text(part.too_long))
    if part.refused:
        yield from field_lines("not encoded", _rows_text([*part.refused]))
    trained = part.openings.total()
    yield from field_lines(
        "first words", f"{len(part.openings):,} different in {trained:,} answers"
    )
    for words, count in part.openings.most_common(3):
        if count > 1:
            yield from field_lines("", f"{count:,} x {_shortened(words)}")
    if part.odd:
        odd = [f"U+{ord(x):04X} in {counted(n, 'row')}" for x, n in part.odd.most_common(5)]
        yield from field_lines("not printed", ", ".join(odd))


def _rows_text(lines: Sequence[object]) -> str:
    text = counted(len(lines), "row")
    return f"{text}: line{'s' * (len(lines) > 1)} {listed(lines)}" if lines else text


def _pairs_text(pairs: Sequence[tuple[int, int]], also: str) -> str:
    """Write the later line of each pair, and behind it the earlier one."""
    return _rows_text([f"{later} ({also} {first})" for first, later in pairs])


def _name(part: PartReport) -> str:
    return part.rows.source.rpartition("/")[2]


def _shortened(text: str, width: int = 48) -> str:
    return text if len(text) <= width else f"{text[: width - 2]} …"
