"""Labels by a person: two answers are shown blind, and the verdicts become pairs.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.core.errors import AssetError
from posttrain.core.storage.files import write_text_atomic
from posttrain.core.storage.json_rows import read_json_rows
from posttrain.dpo.data.checks import Agreement, agreement
from posttrain.dpo.data.pair_formats import PairRow, answer_text
from posttrain.dpo.data.pairs import OwnPairs, pairs_digest, write_pairs

VERDICTS = {"1": "first", "2": "second", "t": "tie", "s": "skip"}
HELP = "1 or 2: the better answer; t: a tie; s: skip; q: quit"
_FIELDS = frozenset({"pair", "line", "shown_first", "verdict"})
_RULE = "-" * 60


@dataclass(frozen=True)
class LabelSummary:
    """What a person said of pairs.

    Attributes:
        verdicts: How often each verdict was given, in this sitting and before.
        left: Pairs without a verdict.
        agreement: With the labels of the file, over the pairs that are neither tie nor skipped;
            None where there are none.
        file: The file of pairs; it is there as soon as there is a pair.
    """

    verdicts: Counter[str]
    left: int
    agreement: Agreement | None
    file: Path

    def lines(self) -> list[str]:
        """Write the summary.

        Returns:
            Lines of text.
        """
        decided = self.verdicts["first"] + self.verdicts["second"]
        found = [
            f"{decided:,} pairs decided, {self.verdicts['tie']:,} ties, "
            f"{self.verdicts['skip']:,} skipped, {self.left:,} left"
        ]
        if self.agreement is not None:
            found.append(f"agreement with the file's labels: {self.agreement}")
            found.append(f"your pairs: {self.file}")
        return found


def label_pairs(
    pairs: OwnPairs,
    out: Path,
    *,
    seed: int = 0,
    read: Callable[[], str | None],
    say: Callable[[str], None],
) -> LabelSummary:
    """Show pairs blind, and write each verdict at once.

    Which answer comes first is drawn from the seed and the pair itself, so a sitting that goes
    on shows the order that it would have shown. Nothing on the screen tells which is chosen.

    Two files are written, whole each time: ``out`` with the pairs as the person decided them,
    for `load_pairs`, and beside it ``<out>.verdicts.jsonl`` with every verdict, from which a
    sitting goes on.

    Args:
        pairs: What to show. A pair that stands twice is shown once.
        out: A file of JSON Lines for the person's own pairs.
        seed: Seed of the order.
        read: Returns what the person typed, without the end of the line; None at the end.
        say: Takes each line of text for the person.

    Returns:
        The summary of this sitting and those before.

    Raises:
        AssetError: If there are verdicts already that are damaged or of other pairs.
        ValueError: If ``out`` does not end in ``.jsonl`` or is the file that is shown.

    Chapter: dpo/preference_data.
    """  # noqa: DOC503
    if out.suffix != ".jsonl" or out.resolve() == Path(pairs.source).resolve():
        raise ValueError(f"out is {out}: give another file, with a name that ends in .jsonl")
    shown = {
        _key(pair): (pair, line) for pair, line in zip(pairs.rows, pairs.lines, strict=True)
    }
    log = out.with_suffix(".verdicts.jsonl")
    given = _verdicts(log, shown.keys())
    _write(out, log, shown, given)
    todo = [key for key in shown if key not in given]
    if given:
        say(f"{len(given):,} pairs have a verdict already; {len(todo):,} are left")
    for number, key in enumerate(todo, start=1):
        pair, line = shown[key]
        first, second = _order(key, seed)
        _show(pair, (first, second), f"{number:,} of {len(todo):,}", say)
        verdict = _ask(read, say)
        if verdict is None:
            break
        given[key] = {"pair": key, "line": line, "shown_first": first, "verdict": verdict}
        _write(out, log, shown, given)
    left = len(shown) - len(given)
    return LabelSummary(
        Counter(row["verdict"] for row in given.values()), left, _agreement(given), out
    )


def _key(pair: PairRow) -> str:
    return pairs_digest([pair])[:16]


def _order(key: str, seed: int) -> tuple[str, str]:
    swapped = random.Random(f"order {seed} {key}").random() < 0.5
    return ("rejected", "chosen") if swapped else ("chosen", "rejected")


def _show(
    pair: PairRow, order: tuple[str, str], number: str, say: Callable[[str], None]
) -> None:
    say("")
    say(f"{_RULE} {number}")
    for message in pair["prompt"]:
        say(f"[{message['role']}] {_printable(message['content'])}")
    for place, which in enumerate(order, start=1):
        say("")
        say(f"({place}) {_printable(answer_text(pair, which))}")
    say("")


def _printable(text: str) -> str:
    """Write what a terminal would act on as a sign."""
    return "".join(x if x.isprintable() or x == "\n" else "\ufffd" for x in text)


def _ask(read: Callable[[], str | None], say: Callable[[str], None]) -> str | None:
    say(HELP)
    while (typed := read()) is not None:
        answer = typed.strip().lower()
        if answer == "q":
            return None
        if answer in VERDICTS:
            return VERDICTS[answer]
        if answer:
            say(f"{_printable(answer)[:20]!r} is none of these. {HELP}")
    return None


# --- files ---


def _verdicts(log: Path, known: Container[str]) -> dict[str, dict[str, Any]]:
    """Read the verdicts given so far, by pair."""
    if not log.exists():
        return {}
    found: dict[str, dict[str, Any]] = {}
    for row in read_json_rows(log):
        value = row.value
        if (
            not isinstance(value, dict)
            or value.keys() != _FIELDS
            or value["verdict"] not in VERDICTS.values()
            or value["shown_first"] not in ("chosen", "rejected")
        ):
            raise AssetError(
                f"{log}, line {row.line}: this is no verdict of posttrain label: mend the line "
                "or remove it"
            )
        if value["pair"] not in known:
            raise AssetError(
                f"{log}, line {row.line}: this verdict is on a pair that the file does not "
                "hold: give the file that it was made from, or another --out"
            )
        found[value["pair"]] = value
    return found


def _write(
    out: Path, log: Path, shown: dict[str, tuple[PairRow, int]], given: dict[str, Any]
) -> None:
    if not given:
        return
    lines = [json.dumps(row, ensure_ascii=False) for row in given.values()]
    write_text_atomic(log, "\n".join(lines) + "\n")
    decided: list[PairRow] = []
    for key, row in given.items():
        pair = shown[key][0]
        preferred = _preferred(row)
        if preferred == "chosen":
            decided.append(pair)
        elif preferred == "rejected":
            swapped: PairRow = {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}
            decided.append(swapped)
    if decided:
        write_pairs(decided, out)


def _preferred(row: dict[str, Any]) -> str | None:
    """Return which answer of the file a verdict prefers, or None."""
    if row["verdict"] not in ("first", "second"):
        return None
    other = {"chosen": "rejected", "rejected": "chosen"}[row["shown_first"]]
    return row["shown_first"] if row["verdict"] == "first" else other


def _agreement(given: dict[str, dict[str, Any]]) -> Agreement | None:
    """Compare places on the screen: which one was preferred, and which one the file prefers."""
    decided: Sequence[dict[str, Any]] = [r for r in given.values() if _preferred(r) is not None]
    if not decided:
        return None
    file = ["first" if row["shown_first"] == "chosen" else "second" for row in decided]
    return agreement(file, [row["verdict"] for row in decided])
