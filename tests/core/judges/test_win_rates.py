"""Win-rates: by hand, against scipy and statsmodels, their coverage, and at equal length."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from posttrain.core.judges.verdicts import Outcome, Verdict
from posttrain.core.judges.win_rates import _fit, _wilson, length_controlled_win_rate, win_rate
from posttrain.core.stats import wilson_interval

A, B, TIE = (
    Outcome(Verdict("first"), Verdict("second")),
    Outcome(Verdict("second"), Verdict("first")),
    Outcome(Verdict("tie"), Verdict("tie")),
)
FIRST, SECOND = (Outcome(Verdict(place), Verdict(place)) for place in ("first", "second"))
UNREAD = Outcome(Verdict("first"), None, "NoVerdictError: none")


def test_a_rate_by_hand():
    found = win_rate([A, A, A, B, TIE, FIRST, FIRST, SECOND, UNREAD, A])
    assert (found.wins, found.losses, found.ties, found.unread) == (4, 1, 5, 1)
    assert found.n == 10 and found.value == pytest.approx(0.65)
    assert found.first_twice.value == pytest.approx(0.2)
    assert found.second_twice.value == pytest.approx(0.1)
    assert found.first_twice.n == 10
    assert found.low < found.value < found.high
    assert str(found) == (
        f"65.0% [{found.low:.1%}, {found.high:.1%}], n = 10 (4 won, 1 lost, 5 tied, of these 1 "
        "unread); the first place won both times in 20.0%, the second in 10.0%"
    )


def test_pairs_without_a_verdict_are_counted():
    """Two wins and six unread verdicts are not a win-rate of 100 %."""
    found = win_rate([A] * 2 + [UNREAD] * 6)
    assert found.n == 8 and found.value == pytest.approx(5 / 8) and found.unread == 6


def test_swapping_the_answers_mirrors_the_rate():
    draw = np.random.default_rng(0)
    swap = {id(A): B, id(B): A, id(TIE): TIE}
    for _ in range(30):
        drawn = [(A, B, TIE)[i] for i in draw.integers(0, 3, size=draw.integers(1, 60))]
        one, other = win_rate(drawn), win_rate([swap[id(o)] for o in drawn])
        assert one.value == pytest.approx(1 - other.value)
        assert one.low == pytest.approx(1 - other.high)


def test_without_ties_the_interval_is_wilsons():
    draw = np.random.default_rng(1)
    for _ in range(40):
        n = int(draw.integers(1, 200))
        wins = int(draw.integers(0, n + 1))
        level = float(draw.uniform(0.5, 0.99))
        found = win_rate([A] * wins + [B] * (n - wins), level)
        expected = wilson_interval(wins, n, level)
        assert found.ci == pytest.approx(expected.ci, abs=1e-12)


@pytest.mark.parametrize("ties", [0.0, 0.1, 0.4, 0.8])
@pytest.mark.parametrize("rate", [0.5, 0.7, 0.9])
def test_the_interval_covers_the_truth(rate: float, ties: float):
    """Exactly: the chance of each sum of half points, times whether its interval holds it."""
    n, ties = 60, min(ties, 2 * (1 - rate))
    one_pair, chances = [1 - rate - ties / 2, ties, rate - ties / 2], np.ones(1)
    for _ in range(n):
        chances = np.convolve(chances, one_pair)
    inside = [
        low <= rate <= high
        for low, high in (_wilson(k / 2 / n, n, 0.95) for k in range(2 * n + 1))
    ]
    covered = float(chances[inside].sum())
    assert covered > 0.93
    assert covered > 0.97 or ties < 0.3  # ties make it wider than it need be


@pytest.mark.parametrize("one", [A, B, TIE])
def test_the_interval_of_unanimous_pairs_has_a_width(one: Outcome):
    found = win_rate([one] * 12)
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.high - found.low > 0.2


def test_no_outcomes_have_no_rate():
    with pytest.raises(ValueError, match="there are no outcomes: give one for each prompt"):
        win_rate([])


# --- at equal length ---


def drawn(rng, n: int, intercept: float, slope: float, shift: float = 0.0, ties: float = 0.1):
    """Outcomes of a judge that likes long answers, with the lengths of both."""
    length_a, length_b = rng.integers(20, 200, n) + shift, rng.integers(20, 200, n)
    feature = np.tanh((length_a - length_b) / np.sqrt(np.mean((length_a - length_b) ** 2)))
    wins = rng.random(n) < 1 / (1 + np.exp(-(intercept + slope * feature)))
    tied = rng.random(n) < ties
    outcomes = [TIE if t else A if w else B for w, t in zip(wins, tied, strict=True)]
    return outcomes, length_a, length_b


def scores(outcomes: list[Outcome]) -> np.ndarray:
    return np.array([{"a": 1.0, "tie": 0.5, "b": 0.0}[o.winner] for o in outcomes])


def test_the_fit_is_the_optimum_that_scipy_finds():
    rng = np.random.default_rng(3)
    for _ in range(25):
        n, ridge = int(rng.integers(5, 80)), float(rng.uniform(0.01, 3))
        feature, wins = rng.uniform(-1, 1, n), rng.choice([0, 0.5, 1], n)
        weights = rng.integers(0, 4, n).astype(float)

        def loss(theta, f=feature, y=wins, w=weights, r=ridge):
            logit = theta[0] + theta[1] * f
            return w @ (np.logaddexp(0, logit) - y * logit) + r / 2 * theta @ theta

        best = scipy.optimize.minimize(loss, np.zeros(2), tol=1e-12).x
        assert _fit(feature, wins, weights[None], ridge)[0] == pytest.approx(best, abs=2e-4)


@pytest.mark.parity
def test_the_fit_equals_statsmodels_without_a_ridge():
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(4)
    for _ in range(20):
        feature, wins = rng.uniform(-1, 1, 120), rng.choice([0, 0.5, 1], 120)
        theirs = api.GLM(wins, api.add_constant(feature), family=api.families.Binomial()).fit()
        ours = _fit(feature, wins, np.ones((1, 120)), 1e-12)[0]
        assert ours == pytest.approx(theirs.params, abs=1e-6)


def test_many_fits_at_once_are_those_one_by_one():
    rng = np.random.default_rng(5)
    feature, wins = rng.uniform(-1, 1, 30), rng.choice([0, 0.5, 1], 30)
    weights = rng.integers(0, 4, (25, 30)).astype(float)
    alone = [_fit(feature, wins, row[None], 0.1)[0] for row in weights]
    assert _fit(feature, wins, weights, 0.1) == pytest.approx(np.array(alone), abs=1e-8)


def test_length_is_taken_out_of_the_rate():
    """A judge that likes length alone: the plain rate is high, at equal length it is a half."""
    outcomes, a, b = drawn(np.random.default_rng(6), 1500, 0.0, 3.0, shift=60)
    found = length_controlled_win_rate(outcomes, a, b, resamples=400)
    assert win_rate(outcomes).low > 0.6
    assert found.low < 0.5 < found.high and found.value == pytest.approx(0.5, abs=0.05)
    assert found.slope > 1 and found.mean_difference > 40 and not found.extrapolated
    # At the mean difference in place of zero, the length would stay in the rate.
    logit = np.log(found.value / (1 - found.value))
    at_mean = logit + found.slope * np.tanh(found.mean_difference / found.scale)
    assert 1 / (1 + np.exp(-at_mean)) > found.high


def test_swapping_the_answers_mirrors_the_rate_at_equal_length():
    rng = np.random.default_rng(7)
    swap = {id(A): B, id(B): A, id(TIE): TIE}
    for _ in range(20):
        outcomes, a, b = drawn(rng, int(rng.integers(20, 150)), rng.normal(), rng.normal())
        one = length_controlled_win_rate(outcomes, a, b, resamples=200)
        other = length_controlled_win_rate([swap[id(o)] for o in outcomes], b, a, resamples=200)
        assert one.value == pytest.approx(1 - other.value, abs=1e-9)
        assert one.slope == pytest.approx(other.slope, abs=1e-8)
        assert one.low == pytest.approx(1 - other.high, abs=1e-6)
        unit = length_controlled_win_rate(outcomes, a * 4, b * 4, resamples=200)
        assert unit.ci == pytest.approx(one.ci, abs=1e-9) and unit.scale > one.scale


def test_where_length_plays_no_part_the_rate_is_the_plain_one():
    rng = np.random.default_rng(8)
    for intercept in (-2.0, 0.0, 1.4, 2.1):
        outcomes, _, _ = drawn(rng, 300, intercept, 0.0)
        found = length_controlled_win_rate(outcomes, np.full(300, 9), np.full(300, 9))
        plain = win_rate(outcomes)
        assert found.value == pytest.approx(plain.value, abs=0.0015)  # the ridge
        assert found.slope == 0 and found.scale == 0
        assert found.ci == pytest.approx(plain.ci, abs=0.02)


def test_a_tie_is_half_a_win_and_half_a_loss():
    rng = np.random.default_rng(9)
    for _ in range(20):
        d = rng.integers(-50, 50, 12).astype(float) + 0.5
        tied = length_controlled_win_rate([TIE] * 4 + [A] * 8, d + 99, np.full(12, 99))
        rows = np.concatenate([d[:4], d[:4], np.repeat(d[4:], 2)])
        halves = [A] * 4 + [B] * 4 + [A] * 16
        twice = length_controlled_win_rate(halves, rows + 99, np.full(24, 99), ridge=0.2)
        assert tied.value == pytest.approx(twice.value, abs=1e-6)


def test_the_interval_covers_the_truth_at_equal_length():
    rng, inside, runs = np.random.default_rng(10), 0, 120
    truth = 1 / (1 + np.exp(-0.8))
    for _ in range(runs):
        outcomes, a, b = drawn(rng, 250, 0.8, 1.5, shift=30, ties=0.0)
        found = length_controlled_win_rate(outcomes, a, b, resamples=300)
        inside += found.low <= truth <= found.high
    assert inside / runs > 0.89  # three standard errors below 95 %


def test_separated_and_unanimous_pairs_stay_finite():
    d = np.array([-30.0, -10, -5, 5, 10, 30])
    found = length_controlled_win_rate([B] * 3 + [A] * 3, d + 99, np.full(6, 99))
    assert found.value == pytest.approx(0.5, abs=1e-9) and 1 < found.slope < 20
    all_won = length_controlled_win_rate([A] * 6, d + 99, np.full(6, 99))
    assert 0.9 < all_won.value < 1 and all_won.low < 0.7 and all_won.high == 1
    assert all_won.low == pytest.approx(win_rate([A] * 6).low)


def test_longer_answers_throughout_are_an_extrapolation():
    outcomes = [A, B, A, TIE]
    found = length_controlled_win_rate(outcomes, [20, 30, 40, 50], [9, 9, 9, 9])
    assert found.extrapolated and str(found).endswith(", extrapolated")
    shorter = length_controlled_win_rate(outcomes, [9, 9, 9, 9], [20, 30, 40, 50])
    assert shorter.extrapolated
    mixed = length_controlled_win_rate(outcomes, [20, 5, 40, 50], [9, 9, 9, 9])
    assert not mixed.extrapolated and "at equal length, n = 4" in str(mixed)


def test_the_same_seed_gives_the_same_interval():
    outcomes, a, b = drawn(np.random.default_rng(11), 60, 0.5, 1.0)
    one, again, other = (
        length_controlled_win_rate(outcomes, a, b, seed=seed) for seed in (0, 0, 1)
    )
    assert one == again and one.value == other.value and one.ci != other.ci


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"length_a": [1, 2]}, r"length_a has the shape \(2,\) and there are 3 outcomes"),
        ({"length_b": [1, -2, 3]}, "length_b holds -2.0 at position 1"),
        ({"length_b": [1, 2, np.nan]}, "length_b holds nan at position 2"),
        ({"length_a": [5, 6, 7]}, "all 3 pairs differ in length by 4, so length and quality"),
        ({"ridge": 0}, "ridge is 0: give a finite number above 0"),
        ({"resamples": 9}, "9 resamples are too few"),
        ({"confidence": 95}, "give one between 0 and 1"),
        ({"outcomes": []}, "there are no outcomes"),
    ],
)
def test_what_is_refused(change: dict, problem: str):
    given = {"outcomes": [A, B, TIE], "length_a": [3, 2, 9], "length_b": [1, 2, 3]} | change
    with pytest.raises(ValueError, match=problem):
        length_controlled_win_rate(**given)
