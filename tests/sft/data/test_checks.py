import pytest

from posttrain.sft.data import checks as data_checks
from posttrain.sft.data import duplicates
from posttrain.sft.data.checks import length_report, token_budget


def test_lengths_by_hand():
    report = length_report([10, 20, 30, 40, 100], max_length=35, bin_width=20)
    assert (report.count, report.mean, report.longest) == (5, 40.0, 100)
    assert report.percentiles[50] == 30 and report.percentiles[25] == 20
    assert list(report.percentiles) == list(data_checks.PERCENTILES)
    assert report.share_above == 0.4 and report.tokens_cut == 5 + 65
    assert report.histogram == {0: 1, 20: 2, 40: 1, 60: 0, 80: 0, 100: 1}
    assert sum(report.histogram.values()) == report.count


def test_a_length_at_the_limit_is_not_above_it():
    report = length_report([8, 8], max_length=8)
    assert report.share_above == 0 and report.tokens_cut == 0 and report.histogram == {8: 2}


def test_the_report_reads_well():
    assert repr(length_report([10, 20, 30, 40, 100], max_length=35)) == (
        "5 examples: mean 40.0 tokens, p5 12, p25 20, p50 30, p75 40, p95 88, p99 98, longest "
        "100; 40.0% above 35 (70 tokens would be cut)"
    )


def test_lengths_that_are_none_are_refused():
    for lengths in ([], [3, -1]):
        with pytest.raises(
            ValueError, match="give the lengths of at least one example, each 0"
        ):
            length_report(lengths, 10)
    with pytest.raises(ValueError, match="max_length is 0 and bin_width is 8: give at least 1"):
        length_report([3], 0)
    with pytest.raises(ValueError, match="bin_width is 0"):
        length_report([3], 1, bin_width=0)


def test_a_budget_by_hand():
    budget = token_budget(
        [60, 70, 50, 20], [30, 30, 30, 10], tokens_per_second=100, batch_size=3, epochs=2
    )
    assert (budget.tokens_per_epoch, budget.trained_per_epoch) == (200, 100)
    assert budget.trained_share == 0.5
    assert budget.steps == 4  # two steps per epoch, the second with one example
    assert budget.seconds == 4.0
    assert repr(budget) == ("2 x 200 tokens (50% trained), 4 optimizer steps, 4 s predicted")


@pytest.mark.parametrize(
    ("lengths", "trained", "options", "message"),
    [
        ([5], [1, 2], {}, "there are 1 lengths and 2 counts of trained tokens"),
        ([], [], {}, "there are 0 lengths"),
        ([5], [6], {}, "more trained tokens than tokens"),
        ([5], [-1], {}, "more trained tokens than tokens"),
        ([0], [0], {}, "or none has a token"),
        ([5], [1], {"tokens_per_second": 0}, "tokens_per_second is 0, batch_size 1"),
        ([5], [1], {"batch_size": 0}, "batch_size 0 and epochs 1: give numbers above 0"),
        ([5], [1], {"epochs": -1}, "epochs -1"),
    ],
)
def test_a_budget_of_nonsense_is_refused(lengths, trained, options, message):
    with pytest.raises(ValueError, match=message):
        token_budget(lengths, trained, **{"tokens_per_second": 1, "batch_size": 1} | options)


def test_the_search_for_duplicates_can_be_had_from_here():
    for name in ("near_duplicates", "exact_duplicates", "find_leaks", "Pair", "Leak"):
        assert getattr(data_checks, name) is getattr(duplicates, name)
