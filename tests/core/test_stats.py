"""posttrain.core.stats: hand-derived values, parity with statsmodels and scipy, bad input."""

import math

import numpy as np
import pytest
import scipy.stats

from posttrain.core.stats import (
    Estimate,
    mcnemar_exact,
    mean_interval,
    paired_bootstrap,
    share_difference,
    wilson_interval,
)


def test_wilson_by_hand() -> None:
    # With no success the lower end is 0 and the upper end z^2 / (n + z^2).
    z2 = 1.959963984540054**2
    none = wilson_interval(0, 10)
    assert none.value == 0 and none.low == pytest.approx(0, abs=1e-15)
    assert none.high == pytest.approx(z2 / (10 + z2))
    # The interval's middle is (k + z^2 / 2) / (n + z^2).
    some = wilson_interval(8, 10)
    assert (some.low + some.high) / 2 == pytest.approx((8 + z2 / 2) / (10 + z2))
    assert some.n == 10 and some.ci == (some.low, some.high)


def test_wilson_mirrors_successes_and_failures() -> None:
    left, right = wilson_interval(3, 20), wilson_interval(17, 20)
    assert left.low == pytest.approx(1 - right.high)
    assert left.high == pytest.approx(1 - right.low)


def test_wilson_covers_the_truth_about_as_often_as_it_says() -> None:
    n, rate = 50, 0.1
    chances = scipy.stats.binom(n, rate).pmf(range(n + 1))
    inside = [e.low <= rate <= e.high for e in (wilson_interval(k, n) for k in range(n + 1))]
    assert 0.93 < float(np.sum(chances[inside])) < 0.99


@pytest.mark.parity
@pytest.mark.parametrize(
    ("successes", "n"), [(0, 1), (1, 1), (3, 7), (431, 1319), (1319, 1319)]
)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_wilson_equals_statsmodels(successes: int, n: int, confidence: float) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    ours = wilson_interval(successes, n, confidence)
    theirs = proportion.proportion_confint(successes, n, 1 - confidence, method="wilson")
    assert ours.ci == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "n", "says"),
    [
        (0, 0, "n is 0: a share needs at least one item"),
        (5, 3, "5 successes of 3 items: give a count from 0 to 3"),
        (-1, 3, "-1 successes of 3 items"),
        (0.5, 3, "not a pair of counts"),
    ],
)
def test_wilson_refuses(successes: int, n: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        wilson_interval(successes, n)


def test_mean_interval_by_hand() -> None:
    # Mean 2, standard error 1 / sqrt(3), t(0.975, 2 degrees of freedom) = 4.302653.
    ours = mean_interval([1.0, 2.0, 3.0])
    assert ours.value == 2 and ours.n == 3
    assert ours.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert 2 - ours.low == pytest.approx(ours.high - 2)


@pytest.mark.parity
def test_mean_interval_equals_statsmodels() -> None:
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    values = np.random.default_rng(0).normal(1.7, 0.05, size=5)
    theirs = weightstats.DescrStatsW(values).tconfint_mean(alpha=0.1)
    assert mean_interval(values, 0.9).ci == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1.7], "run at least two seeds"),
        ([], r"values has the shape \(0,\)"),
        ([[1.0, 2.0]], r"values has the shape \(1, 2\)"),
        ([1.0, math.nan], "values holds nan at position 1"),
        ([math.inf, 1.0], "values holds inf at position 0"),
    ],
)
def test_mean_interval_refuses(values: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        mean_interval(values)


@pytest.mark.parametrize("confidence", [0, 1, 95, math.nan])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="give one between 0 and 1"):
        mean_interval([1.0, 2.0], confidence)


def test_bootstrap_p_value_by_hand() -> None:
    # The differences are -1 and 3, their mean 1. A resample has the mean -1, 1 or 3 with
    # chances 1/4, 1/2, 1/4: half of them lie at least 1 away from 1.
    result = paired_bootstrap([0, 0], [-1, 3], method="percentile", resamples=20_000)
    assert result.value == 1
    assert result.p_value == pytest.approx(0.5, abs=0.02)
    assert result.ci == (-1, 3)


def test_bootstrap_points_from_a_to_b_and_repeats_with_its_seed() -> None:
    generator = np.random.default_rng(1)
    a = generator.normal(size=80)
    b = a + 0.5 + generator.normal(scale=0.3, size=80)
    forward, again, back = (
        paired_bootstrap(a, b),
        paired_bootstrap(a, b),
        paired_bootstrap(b, a),
    )
    assert forward == again
    assert forward.value == pytest.approx(-back.value) and forward.low > 0 > back.high
    assert forward.p_value == 1 / 10_001
    assert paired_bootstrap(a, b, seed=1).ci != forward.ci


def test_bootstrap_uses_the_pairs() -> None:
    generator = np.random.default_rng(2)
    a = generator.normal(scale=10, size=60)
    b = a + generator.normal(0.2, 0.1, size=60)
    assert paired_bootstrap(a, b).p_value < 0.001  # far below the spread of a and b
    assert paired_bootstrap(a, generator.permutation(b)).p_value > 0.05


@pytest.mark.parametrize(("shift", "p_value"), [(0.0, 1.0), (0.25, 1 / 1001)])
def test_bootstrap_of_a_constant_difference(shift: float, p_value: float) -> None:
    a = np.array([0.0, 1.0, 2.0])
    result = paired_bootstrap(a, a + shift, resamples=1000)
    assert (result.value, result.low, result.high) == (shift, shift, shift)
    assert result.p_value == p_value


@pytest.mark.parity
@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_bootstrap_equals_scipy_with_pairs(method: str) -> None:
    generator = np.random.default_rng(3)
    a = generator.exponential(size=50)
    b = a + generator.exponential(scale=0.4, size=50) - 0.2
    theirs = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis: np.mean(y, axis=axis) - np.mean(x, axis=axis),
        paired=True,
        n_resamples=4000,
        method=method,
        rng=np.random.default_rng(7),
    ).confidence_interval
    ours = paired_bootstrap(a, b, method=method, resamples=4000, seed=7)  # type: ignore[arg-type]
    assert ours.ci == pytest.approx(tuple(theirs), abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "options", "says"),
    [
        ([1, 2], [1, 2, 3], {}, "2 and 3 values are not pairs"),
        ([1], [2], {}, "give at least two"),
        ([], [], {}, r"a has the shape \(0,\)"),
        ([1, 2], [1, math.nan], {}, "b holds nan at position 1"),
        ([1, 2], [2, 4], {"method": "bca"}, "use 'BCa' or 'percentile'"),
        ([1, 2], [2, 4], {"resamples": 10}, "use at least 100"),
    ],
)
def test_bootstrap_refuses(a: list[float], b: list[float], options: dict, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=says):
        paired_bootstrap(a, b, **options)


def test_mcnemar_by_hand() -> None:
    # They differ on six questions, 1 to 5: p = 2 (C(6,0) + C(6,1)) / 2^6 = 14 / 64.
    a = [1, 0, 0, 0, 0, 0, 1, 1, 0]
    b = [0, 1, 1, 1, 1, 1, 1, 1, 0]
    result = mcnemar_exact(a, b)
    assert (result.only_a, result.only_b, result.n) == (1, 5, 9)
    assert result.p_value == pytest.approx(14 / 64)
    assert mcnemar_exact(b, a).p_value == result.p_value


def test_mcnemar_without_a_difference() -> None:
    assert mcnemar_exact([True, False], [True, False]).p_value == 1


@pytest.mark.parity
def test_mcnemar_equals_statsmodels() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    generator = np.random.default_rng(4)
    a, b = generator.random(200) < 0.6, generator.random(200) < 0.7
    table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
    theirs = tables.mcnemar(table, exact=True).pvalue
    assert mcnemar_exact(a, b).p_value == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ([1, 0], [1], "2 and 1 values are not pairs"),
        ([], [], r"a_correct has the shape \(0,\)"),
        ([1, 0], [1, 0.5], "b_correct holds 0.5: use 0 and 1"),
        ([1, math.nan], [1, 0], "a_correct holds nan at position 1"),
    ],
)
def test_mcnemar_refuses(a: list[float], b: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        mcnemar_exact(a, b)


def test_estimates_read_as_text() -> None:
    assert str(Estimate(0.5, 0.25, 0.75, 12)) == "0.5 [0.25, 0.75], n = 12"
    assert str(paired_bootstrap([0, 1], [0, 1])) == "0 [0, 0], n = 2, p = 1"


@pytest.mark.parametrize(
    ("a", "b"), [((3, 40), (20, 40)), ((0, 10), (0, 25)), ((9, 9), (1, 7))]
)
def test_share_difference_is_newcombes(a: tuple[int, int], b: tuple[int, int]) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    ours = share_difference(wilson_interval(*a), wilson_interval(*b))
    low, high = proportion.confint_proportions_2indep(*b, *a, method="newcomb")
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=1e-12)
    assert ours.value == pytest.approx(b[0] / b[1] - a[0] / a[1]) and ours.n == a[1] + b[1]


def test_share_difference_wants_shares() -> None:
    with pytest.raises(ValueError, match=r"b is .*, not a share: give two of wilson_interval"):
        share_difference(wilson_interval(1, 2), Estimate(1.5, 1.2, 1.9, 3))
