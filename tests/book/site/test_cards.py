"""Social cards: their size, their names, and where their lines break."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.image import imread

from book._ext.site.cards import ROOM, SIZE, Card, card_name, wrap, write_card

CARD = Card(
    book="A Book",
    part="Stage 1 · Fine-tuning",
    title="A title that costs $5 and $6",
    summary="What it says, in a sentence or two.",
    address="owner.github.io/book",
)


def test_a_card_is_a_picture_of_the_size_that_open_graph_asks_for(tmp_path: Path) -> None:
    write_card(CARD, tmp_path / "cards" / "a.png")
    data = (tmp_path / "cards" / "a.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == SIZE == (1200, 630)
    assert len(data) < 150_000


def test_every_line_stands_on_the_paper_and_left_of_the_panel(tmp_path: Path) -> None:
    """The longest texts that occur: nothing runs into the panel, nothing off the card."""
    full = replace(CARD, title="A wide title, " * 20, summary="Many words that go on. " * 30)
    empty = Card("", "", "", "", "")
    for card, name in ((full, "full.png"), (empty, "empty.png")):
        write_card(card, tmp_path / name)
    full_pixels, bare = imread(tmp_path / "full.png"), imread(tmp_path / "empty.png")
    rows, columns = np.nonzero(np.abs(full_pixels - bare).max(axis=2) > 0.2)
    assert len(rows) > 5000  # something was written
    assert columns.min() >= 60 and columns.max() < SIZE[0] - 260
    assert rows.min() > 40 and rows.max() < SIZE[1] - 40


def test_the_name_changes_with_what_the_card_shows() -> None:
    name = card_name(CARD, "book/sft/lora")
    assert name.startswith("book-sft-lora-") and name.endswith(".png")
    assert name == card_name(replace(CARD), "book/sft/lora")
    for change in ({"title": "Other"}, {"summary": ""}, {"part": ""}, {"address": "x"}):
        assert card_name(replace(CARD, **change), "book/sft/lora") != name


def test_lines_break_between_words() -> None:
    font = FontProperties(family="DejaVu Sans", size=18)
    lines = wrap("one two three four five six seven eight nine ten " * 3, font, 300)
    assert len(lines) > 3
    assert " ".join(lines) == " ".join(["one two three four five six seven eight nine ten"] * 3)
    assert wrap("", font, ROOM) == []
    assert wrap("unbreakable" * 30, font, 300) == ["unbreakable" * 30]
