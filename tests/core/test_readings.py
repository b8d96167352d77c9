"""posttrain.core.readings: words by intervals."""

import pytest

from posttrain.core.readings import difference, listed, reading, sort_by_reading
from posttrain.core.stats import Estimate, mean_interval, paired_bootstrap


def estimate(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high, 5)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.1, 0.3, "better"),
        (-0.3, -0.1, "worse"),
        (-0.1, 0.3, "no difference that 5 seeds can show"),
        (0.0, 0.3, "no difference that 5 seeds can show"),
        (-0.3, 0.0, "no difference that 5 seeds can show"),
    ],
)
def test_words_follow_the_interval(low: float, high: float, words: str) -> None:
    assert reading(estimate(low, high), above="better", below="worse") == words


def test_what_no_difference_means_can_be_chosen() -> None:
    found = estimate(0.9, 1.2)
    assert reading(found, above="more", below="less", zero=1.0, of="runs").endswith(
        "5 runs can show"
    )
    assert reading(found, above="more", below="less", zero=2.0) == "less"
    assert reading(found, above="a", below="b", zero=1, unclear="as {n} {of}") == "as 5 seeds"


def test_a_reading_takes_what_the_statistics_return() -> None:
    assert reading(mean_interval([1.0, 1.1, 0.9]), above="up", below="down") == "up"
    paired = paired_bootstrap([1.0, 2.0, 3.0, 4.0], [0.0, 1.1, 1.9, 3.0])
    assert reading(paired, above="up", below="down", of="items") == "down"


def test_names_are_sorted_by_what_their_intervals_show() -> None:
    found = {
        "legs": estimate(-0.1, 0.1),
        "sums": estimate(0.1, 0.2),
        "units": estimate(0.4, 0.6),
        "years": estimate(-0.5, -0.2),
        "letters": estimate(0.0, 0.3),
    }
    kinds = sort_by_reading(found)
    assert (kinds.above, kinds.below, kinds.unclear) == (
        "units and sums",
        "years",
        "legs and letters",
    )
    assert sort_by_reading({}).above == "none"


@pytest.mark.parametrize(
    ("names", "text"),
    [([], "none"), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_lists(names: list[str], text: str) -> None:
    assert listed(names) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.45, 0.59, "0.52 nats higher (0.45 to 0.59, 5 seeds)"),
        (-0.59, -0.45, "0.52 nats lower (0.45 to 0.59, 5 seeds)"),
        (-0.02, 0.11, "with no difference that 5 seeds can show (−0.02 to 0.11 nats)"),
    ],
)
def test_a_difference_in_words(low: float, high: float, text: str) -> None:
    assert difference(estimate(low, high)) == text


def test_a_difference_of_other_things() -> None:
    found = estimate(0.1, 0.3)
    text = difference(found, above="more", below="less", unit="points", of="runs", digits=1)
    assert text == "0.2 points more (0.1 to 0.3, 5 runs)"
