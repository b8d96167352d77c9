"""posttrain.sft.practice.packing_gain: one loss in three layouts, and less padding."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.practice import packing_gain
from posttrain.sft.practice.packing_gain import LAYOUTS, batches_of, padded, parts, run

SHORT, LONG = EncodedChat([1, 2], [0, 1]), EncodedChat([3, 4, 5, 6], [0, 0, 1, 1])


def test_padding_is_never_trained() -> None:
    a, b = padded([SHORT, LONG], 9)
    assert (a.input_ids, a.assistant_mask) == ([1, 2, 9, 9], [0, 1, 0, 0])
    assert b == LONG


def test_layouts_hold_the_same_rows() -> None:
    examples = [SHORT, LONG, SHORT, LONG]
    counts = {}
    for layout in LAYOUTS:
        batches = batches_of(layout, examples, 2, 9, seed=0)
        counts[layout] = sum(len(x.input_ids) for batch in batches for x in batch)
        assert sum(sum(x.assistant_mask) for batch in batches for x in batch) == 6
    assert counts["packed"] == counts["sorted"] == 12 <= counts["padded"] <= 16
    with pytest.raises(ValueError, match="no layout 'flat'"):
        batches_of("flat", examples, 2, 9, 0)


def test_the_losses_agree(small: Callable[..., None]) -> None:
    small(packing_gain, SHORT=10, LONG=6)
    rows = {row["layout"]: row for row in run({"seed": 1})}
    assert len(parts((0, 1))) == 2 and rows.keys() == set(LAYOUTS)
    losses = [row["loss"] for row in rows.values()]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)
    positions = {layout: row["positions"] for layout, row in rows.items()}
    assert rows["packed"]["tokens"] == positions["packed"]
    assert positions["packed"] < positions["sorted"] < positions["padded"]
