"""A reader's own preference pairs: read from a file, checked row by row, split, and written.

Rows that cannot be trained on are never passed on and never lost in silence: they raise with
their line, or they are dropped and counted by reason. How a row is read says
`posttrain.dpo.data.pair_formats`.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posttrain.core.errors import AssetError
from posttrain.core.storage.files import write_text_atomic
from posttrain.dpo.data.pair_formats import (
    ANSWERS,
    PairRow,
    is_prefix_pair,
    pair_format,
    pair_row,
)
from posttrain.sft.chat.messages import is_absent
from posttrain.sft.data.hub import MAX_CHARACTERS, MalformedRowError, value_of
from posttrain.sft.data.own_rows import OwnRows, split_rows
from posttrain.sft.data.sources import (
    OnBadRow,
    bad_rows_text,
    check_on_bad_row,
    check_one_format,
    read_source,
)

_FIELDS = frozenset({"prompt", "system", "weight", "loss_weight", "sample_weight", *ANSWERS})


@dataclass(frozen=True)
class OwnPairs:
    """Preference pairs out of a file, and what became of its other rows.

    Attributes:
        rows: The pairs, in order.
        lines: Line of the file on which each begins, from 1; in a set of the hub its number.
        format: The format of the file's rows, such as "prompt / chosen / rejected".
        dropped: Number of rows left out, by reason.
        first_dropped: The first error message of each reason, with its line.
        prefixes: Lines of pairs of which one answer begins the other; they are among the rows.
        sha256: Of the pairs alone: the same for the same ones out of any file.
        source: The file, or the set's name.
        ignored: Fields of the rows that were passed over, such as "score_chosen".
    """

    rows: list[PairRow]
    lines: list[int]
    format: str
    dropped: Counter[str]
    first_dropped: dict[str, str]
    prefixes: list[int]
    sha256: str
    source: str
    ignored: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        text = f"{self.source}: {len(self.rows):,} pairs of {self.format}"
        if self.dropped:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
            text += f"; dropped {self.dropped.total():,} ({counts})"
        if self.prefixes:
            text += f"; in {len(self.prefixes):,} one answer begins the other"
        if self.ignored:
            text += f"; fields passed over: {', '.join(self.ignored)}"
        return text


def load_pairs(
    source: str | Path,
    *,
    split: str = "train",
    on_bad_row: OnBadRow = "error",
    max_characters: int = MAX_CHARACTERS,
) -> OwnPairs:
    """Load preference pairs from a file or from the hub.

    All rows must be of one format: ``prompt``, ``chosen`` and ``rejected``, each a text or a
    list of messages; or ``chosen`` and ``rejected`` as whole conversations with a common start.
    Both are TRL's. Files are read by `read_json_rows`, gzipped ones too.

    Refused are answers that are the same, empty, or of weight 0; missing and null fields; more
    than ``max_characters``; markers such as ``<|im_end|>``; a prompt that ends with white space
    or with an answer; roles out of order. A pair of which one answer begins the other is taken,
    and its line noted: behind the shorter answer comes the stop token, so the two differ.

    Args:
        source: A file, or ``owner/name`` on the hub, with ``@revision`` behind it or not.
        split: Part of the set on the hub. A file is read whole, so only "train" fits one.
        on_bad_row: What to do with a row that cannot be trained on: raise an "error", or "drop"
            it and count it.
        max_characters: Longest prompt with an answer to take.

    Returns:
        The pairs, at least one.

    Raises:
        AssetError: If the source cannot be had or read, or gives no pair.
        ValueError: If rows are bad and that is an error, the file mixes formats, or an option
            is unknown.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    check_on_bad_row(on_bad_row)
    word, read = read_source(source, split)
    rows: list[PairRow] = []
    lines: list[int] = []
    bad: list[tuple[int, MalformedRowError]] = []
    forms: dict[str, list[int]] = defaultdict(list)
    ignored: set[str] = set()
    for row in read:
        try:
            value = value_of(row)
            form = pair_format(value)
            forms[form].append(row.line)
            pair = pair_row(value, form, max_characters=max_characters)
        except MalformedRowError as error:
            bad.append((row.line, error))
        else:
            rows.append(pair)
            lines.append(row.line)
            ignored |= {
                str(name)
                for name, held in value.items()
                if name not in _FIELDS and not is_absent(held)
            }
    check_one_format(source, word, forms)
    dropped = Counter(error.reason for _, error in bad)
    if bad and on_bad_row == "error":
        raise ValueError(bad_rows_text(source, word, bad, dropped))
    first: dict[str, str] = {}
    for line, problem in bad:
        first.setdefault(problem.reason, f"{word} {line}: {problem}")
    if not rows:
        raise AssetError(f"{source} gives no pair ({'; '.join(first.values())})")
    return OwnPairs(
        rows=rows,
        lines=lines,
        format=next(iter(forms)),
        dropped=dropped,
        first_dropped=first,
        prefixes=_prefixes(rows, lines),
        sha256=pairs_digest(rows),
        source=str(source),
        ignored=tuple(sorted(ignored)),
    )


def split_pairs(
    pairs: OwnPairs, validation: int | None = None, seed: int = 0
) -> tuple[OwnPairs, OwnPairs]:
    """Hold out pairs for validation, so that no prompt lies on both sides.

    Pairs with the same question stay together, as in `split_rows`.

    Args:
        pairs: The pairs to split.
        validation: As in `split_rows`.
        seed: Seed of the draw.

    Returns:
        Pairs to train on and pairs held out, each in their order.

    Raises:
        ValueError: If the pairs cannot be split so, or the number does not fit them.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    numbered = OwnRows(
        rows=[{"messages": pair["prompt"]} for pair in pairs.rows],
        lines=list(range(len(pairs.rows))),
        format=pairs.format,
        dropped=Counter(),
        first_dropped={},
        sha256=pairs.sha256,
        source=pairs.source,
    )
    train, held = split_rows(numbered, validation, seed)
    return _part(pairs, train.lines, train.source), _part(pairs, held.lines, held.source)


def write_pairs(pairs: Sequence[PairRow], path: str | Path) -> None:
    """Write pairs to a file of JSON Lines, which `load_pairs` and TRL read: all, or nothing.

    Args:
        pairs: The pairs.
        path: The file to write or replace.

    Raises:
        ValueError: If there are no pairs, or the name does not end in ``.jsonl``.

    Chapter: dpo/preference_data.
    """
    if not pairs or Path(path).suffix != ".jsonl":
        raise ValueError(f"{len(pairs)} pairs for {path}: give at least one, and a .jsonl file")
    lines = [json.dumps(_columns(pair), ensure_ascii=False) for pair in pairs]
    write_text_atomic(Path(path), "\n".join(lines) + "\n")


def pairs_digest(pairs: Iterable[PairRow]) -> str:
    """Name the content of pairs.

    Args:
        pairs: The pairs; their order counts.

    Returns:
        A SHA-256 in hexadecimal.

    Chapter: dpo/preference_data.
    """
    digest = hashlib.sha256()
    for pair in pairs:
        written = json.dumps(_columns(pair), sort_keys=True, ensure_ascii=False)
        digest.update(written.encode() + b"\n")
    return digest.hexdigest()


def holds_pairs(source: str | Path) -> bool:
    """Say whether a file is one of preference pairs, by its first row that can be read.

    Args:
        source: A file, or the name of a set on the hub, which is not looked into.

    Returns:
        Whether the row has a field ``chosen`` or ``rejected``; False where there is no file.

    Raises:
        AssetError: If the file cannot be read.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    if not Path(source).is_file():
        return False
    _, rows = read_source(Path(source), "train")
    first = next((row.value for row in rows if isinstance(row.value, dict)), {})
    return not first.keys().isdisjoint(ANSWERS)


def _columns(pair: PairRow) -> dict[str, object]:
    return {"prompt": pair["prompt"], "chosen": pair["chosen"], "rejected": pair["rejected"]}


def _prefixes(rows: Sequence[PairRow], lines: Sequence[int]) -> list[int]:
    return [line for pair, line in zip(rows, lines, strict=True) if is_prefix_pair(pair)]


def _part(pairs: OwnPairs, indices: Sequence[int], source: str) -> OwnPairs:
    kept = [pairs.rows[index] for index in indices]
    lines = [pairs.lines[index] for index in indices]
    return OwnPairs(
        rows=kept,
        lines=lines,
        format=pairs.format,
        dropped=Counter(),
        first_dropped={},
        prefixes=_prefixes(kept, lines),
        sha256=pairs_digest(kept),
        source=source,
        ignored=pairs.ignored,
    )
