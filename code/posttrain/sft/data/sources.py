"""Where rows come from: a file or a set of the hub, and what is said of the bad ones.

Chapter: sft/your_model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from posttrain.core.errors import AssetError
from posttrain.core.storage.json_rows import JsonRow, read_json_rows
from posttrain.sft.data.hub import MalformedRowError

OnBadRow = Literal["error", "drop"]

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(?:@[\w./-]+)?")
_FILE_SUFFIX = re.compile(r"\.(?:jsonl?|ndjson|txt|gz|csv|tsv|parquet|arrow|xlsx?)$", re.I)


def read_source(source: str | Path, split: str) -> tuple[str, Iterable[JsonRow]]:
    """Read the rows of a file or of a set of the hub.

    Args:
        source: A file, or ``owner/name`` on the hub, with ``@revision`` behind it or not.
        split: Part of the set on the hub. A file is read whole, so only "train" fits one.

    Returns:
        What a row's number counts, "line" or "row", and the rows.

    Raises:
        AssetError: If the source cannot be had or read.

    Chapter: sft/your_model.
    """
    is_hub = isinstance(source, str) and _HUB_NAME.fullmatch(source) is not None
    if is_hub and not Path(source).exists() and not _FILE_SUFFIX.search(str(source)):
        return "row", _from_hub(str(source), split)
    if split != "train":
        raise AssetError(
            f"split is {split!r}, but {source} is a file and read whole: write each split to a "
            "file of its own"
        )
    return "line", read_json_rows(source)


def _from_hub(source: str, split: str) -> Iterable[JsonRow]:
    name, _, revision = source.partition("@")
    try:
        import datasets

        rows = datasets.load_dataset(name, split=split, revision=revision or None)
        return [JsonRow(number, row) for number, row in enumerate(rows, start=1)]
    except (
        Exception
    ) as error:  # offline, no such set, split or revision: the remedy is the same
        raise AssetError(
            f"{name} is no file here, and its split {split!r} (revision {revision or 'main'}) "
            f"could not be read from the hub ({type(error).__name__}: {error}): look at name "
            "and network, or give a file"
        ) from error


def check_on_bad_row(on_bad_row: str) -> None:
    """Refuse an option that says neither what to do with a bad row.

    Args:
        on_bad_row: The option.

    Raises:
        ValueError: If it is neither "error" nor "drop".

    Chapter: sft/your_model.
    """
    if on_bad_row not in ("error", "drop"):
        raise ValueError(f"on_bad_row is {on_bad_row!r}: give 'error' or 'drop'")


def check_one_format(source: str | Path, word: str, forms: Mapping[str, Sequence[int]]) -> None:
    """Refuse a file whose rows are of several formats.

    Args:
        source: The file, or the set's name.
        word: What a row's number counts.
        forms: Numbers of the rows of each format.

    Raises:
        ValueError: If there is more than one format.

    Chapter: sft/your_model.
    """
    if len(forms) < 2:
        return
    found = [
        f"{form} ({word} {lines[0]}" + (f" and {len(lines) - 1} more)" if lines[1:] else ")")
        for form, lines in forms.items()
    ]
    raise ValueError(
        f"{source} mixes formats: {', '.join(found)}: write all rows in one of them"
    )


def bad_rows_text(
    source: str | Path,
    word: str,
    bad: Sequence[tuple[int, MalformedRowError]],
    reasons: Counter[str],
) -> str:
    """Write the error of a file with bad rows: the first one in full, the others by reason.

    Args:
        source: The file, or the set's name.
        word: What a row's number counts.
        bad: Number and error of each bad row, at least one.
        reasons: How many there are of each reason.

    Returns:
        One sentence.

    Chapter: sft/your_model.
    """
    line, first = bad[0]
    text = f"{source}, {word} {line}: {first}"
    if len(bad) > 1:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        text += f"; {len(bad):,} bad rows in all ({counts})"
    return text + ": mend them, or drop them with on_bad_row='drop' (--on-bad-row drop)"
