"""Claims: what a chapter's prose says of a result, registered with the condition for it.

A sentence about a result may be typed only if it is true on every machine. Then it names its
claim, and a cell says what makes it true::

    claim = Claims("pretraining/training_dynamics")  # once, in the first cell
    claim("leak", "held-out loss under the leak, nats", leaking_loss, "<", 0.5)

    The leaking model's loss is too good to be true. {claim}`leak`

A claim that does not hold raises nothing. The cell says so, the page says it beside the
sentence, and ``make book`` ends with exit status 1 when the site is written. What may come out
otherwise elsewhere is no claim: `posttrain.core.readings` writes such sentences.

Chapter: start/how_this_book_works.
"""

import re
from dataclasses import dataclass

from posttrain.core.goals import Goal, goals_file, rows_of
from posttrain.core.goals_table import GoalRow, measured_text, wanted_text
from posttrain.core.stats import Estimate
from posttrain.core.storage.files import write_json_atomic

SENTENCE = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Claims:
    """The claims of one chapter; call it to register one.

    Attributes:
        chapter: The chapter's path below ``book/``, such as ``sft/lora``.
        preset: The preset that its values were measured with.
    """

    chapter: str
    preset: str = "cpu"

    def __post_init__(self) -> None:
        goals_file(self.chapter)  # raises for a malformed name

    def __call__(
        self,
        sentence: str,
        what: str,
        value: "float | bool | Estimate",
        op: str = "==",
        threshold: float | bool = True,
    ) -> None:
        """Store one claim; show it if it does not hold.

        Args:
            sentence: The sentence's id on its page, in lower case with dashes. The sentence
                carries it in the role ``claim``.
            what: What was measured, in a few words, with its unit.
            value: The measurement: a number, True or False, or an estimate, whose whole
                interval must then stand in the relation.
            op: One of ``<``, ``<=``, ``>``, ``>=``, ``==``.
            threshold: What the value is compared with.

        Raises:
            ValueError: If the id is malformed, or an interval is compared by ``==``.
        """  # noqa: DOC502
        row = self._row(sentence, what, value, op, threshold)
        rows = rows_of(self.chapter)
        places = [place for place, old in enumerate(rows) if old["id"] == row["id"]]
        if places:  # the cell was run again
            rows[places[0]] = row
        else:
            rows.append(row)
        write_json_atomic(goals_file(self.chapter), rows)
        if not row["passed"]:
            _display(BrokenClaim(row))

    def _row(
        self,
        sentence: str,
        what: str,
        value: "float | bool | Estimate",
        op: str,
        threshold: float | bool,
    ) -> GoalRow:
        if not SENTENCE.fullmatch(sentence):
            raise ValueError(
                f"the sentence id {sentence!r} is malformed: write lower-case letters, digits "
                "and dashes, such as 'leak-looks-good'"
            )
        stage, _, page = self.chapter.rpartition("/")
        name = sentence.replace("-", "_")
        goal_id = f"{(stage or page).replace('/', '_')}.{name}"
        if isinstance(value, Estimate):
            if op == "==":
                raise ValueError(
                    f"{sentence}: an interval cannot equal a number: use <, <=, > or >="
                )
            bound = value.low if op.startswith(">") else value.high
            passed = Goal(goal_id, what, bound, threshold, op).passed
            goal = Goal(goal_id, what, value.value, threshold, op, value.n, value.ci)
        else:
            goal = Goal(goal_id, what, value, threshold, op)
            passed = goal.passed
        row = goal.row(self.chapter, self.preset)
        row["id"] = claim_id(self.chapter, sentence)
        row["kind"] = "claim"
        row["passed"] = passed
        return row


def claim_id(chapter: str, sentence: str) -> str:
    """Return the id of a claim among those of the whole book.

    Args:
        chapter: The chapter's path below ``book/``.
        sentence: The sentence's id on its page.

    Returns:
        Such as ``sft.lora.memory-halves``.
    """
    return f"{chapter.replace('/', '.')}.{sentence}"


def broken_text(row: GoalRow) -> str:
    """Write what stands beside a sentence whose claim does not hold.

    Args:
        row: The claim's row, or that of a goal.

    Returns:
        One sentence with what was measured and what the text needs.
    """
    return (
        f"Not on this machine: {row['goal']}: measured {measured_text(row)}; "
        f"the text needs {wanted_text(row)}."
    )


@dataclass(frozen=True, repr=False)
class BrokenClaim:
    """What a cell shows of a claim that does not hold."""

    row: GoalRow

    def __repr__(self) -> str:
        return f"✗ {self.row['id']}. {broken_text(self.row)}"

    def _repr_markdown_(self) -> str:
        return (
            f"✗ **The text does not hold here** (`{self.row['id']}`). {broken_text(self.row)}"
        )


def _display(broken: BrokenClaim) -> None:
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        get_ipython = None
    if get_ipython is None or get_ipython() is None:
        print(broken)
    else:
        display(broken)
