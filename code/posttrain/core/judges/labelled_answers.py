"""532 short answers, labelled by hand, and what they say of a refusal detector.

Refused means: the answer says that it will not or cannot, and gives nothing of what was asked.
The answers were written for this project and are on harmless matters. The rules of
`posttrain.core.judges.refusals` were tuned on 425 of them. The last 107 were written once the
rules stood, and only measure them.

It took several rounds: on three earlier sets of 107, each new to the rules, 60, 55 and 68 % of
the refusals were found; then the set was added to the tuning. The author of the rules wrote all
answers, and unusual refusals are more frequent in them than in what a model says. So a chapter
measures the detector on its own model's answers too.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from posttrain.core.stats import Estimate, wilson_interval
from posttrain.core.storage.files import check_sha256, sha256_file

Part = Literal["tuning", "held_out"]

FILE = Path(__file__).with_name("labelled_answers.jsonl")
SHA256 = "d68ada28ad427a27749c9a557f8646513b61933789903ba9c16779e5e92e265a"


@dataclass(frozen=True)
class LabelledAnswer:
    """An answer and what it does.

    Attributes:
        part: "tuning" or "held_out".
        kind: Such as "soft refusal" or "tricky words"; `labelled_answers` gives eleven.
        refused: Whether it refuses.
        text: The answer.
    """

    part: Part
    kind: str
    refused: bool
    text: str


@dataclass(frozen=True)
class DetectorScore:
    """How often a refusal detector is right.

    Attributes:
        precision: Share of refusals among the answers it calls so; None if it calls none so.
        recall: Share of the refusals that it finds; None if there are none.
        false_alarm_rate: Share of the other answers that it calls refusals; None if there are
            none.
        false_alarms: The other answers that it calls refusals.
        missed: The refusals that it does not find.
    """

    precision: Estimate | None
    recall: Estimate | None
    false_alarm_rate: Estimate | None
    false_alarms: tuple[LabelledAnswer, ...]
    missed: tuple[LabelledAnswer, ...]

    def __str__(self) -> str:
        shares = {
            "precision": self.precision,
            "recall": self.recall,
            "false alarms": self.false_alarm_rate,
        }
        lines = [f"{name:<14}{_percent(share)}" for name, share in shares.items()]
        for name, rows in (("false alarm", self.false_alarms), ("missed", self.missed)):
            lines += [f"{name} ({row.kind}): {row.text!r}" for row in rows]
        return "\n".join(lines)


def labelled_answers(part: Part | None = None) -> list[LabelledAnswer]:
    """Read the labelled answers.

    Four kinds refuse: plain, styled and soft refusals, and those with an offer. Seven do not:
    compliant answers, some with tricky words, with sympathy or hedged; partial ones, which
    decline a part and give the rest; and answers that are off topic or empty.

    Args:
        part: "tuning", "held_out", or None for both.

    Returns:
        The answers, in the order in which they were written.

    Raises:
        AssetError: If the file is not the one that the numbers of the book are made of.
        ValueError: If there is no such part.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502, DOC503
    if part not in (None, "tuning", "held_out"):
        raise ValueError(f"part is {part!r}: give 'tuning', 'held_out' or None")
    check_sha256(sha256_file(FILE), SHA256, str(FILE), "Install the package again.")
    lines = FILE.read_text(encoding="utf-8").strip("\n").split("\n")
    rows = [LabelledAnswer(**json.loads(line)) for line in lines]
    return [row for row in rows if part in (None, row.part)]


def score_detector(
    refuses: Callable[[str], bool], rows: Sequence[LabelledAnswer]
) -> DetectorScore:
    """Measure a refusal detector on labelled answers.

    Args:
        refuses: Says whether an answer refuses, such as ``lambda text:
            is_refusal(text).refused``.
        rows: The answers, such as ``labelled_answers("held_out")``.

    Returns:
        Both rates with Wilson's interval over the answers, and both kinds of error.

    Raises:
        ValueError: If there are no answers.

    Chapter: dpo/preference_data.
    """
    if not rows:
        raise ValueError("there are no answers: give at least one")
    called = [bool(refuses(row.text)) for row in rows]
    pairs = list(zip(rows, called, strict=True))
    false_alarms = tuple(row for row, call in pairs if call and not row.refused)
    missed = tuple(row for row, call in pairs if row.refused and not call)
    refusals = sum(row.refused for row in rows)
    found, others = refusals - len(missed), len(rows) - refusals
    return DetectorScore(
        precision=_share(found, sum(called)),
        recall=_share(found, refusals),
        false_alarm_rate=_share(len(false_alarms), others),
        false_alarms=false_alarms,
        missed=missed,
    )


def _share(count: int, of: int) -> Estimate | None:
    return wilson_interval(count, of) if of else None


def _percent(share: Estimate | None) -> str:
    if share is None:
        return "no such answer"
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}], n = {share.n}"
