"""posttrain.pretraining.figures: what is drawn, and what the alternative texts say."""

from posttrain.core.stats import Estimate
from posttrain.pretraining.figures import decoding_times, kept_ranks, trade_off


def test_decoding_times_tell_the_measured_medians() -> None:
    seconds = {"without": [0.1] * 8 + [0.2] * 8, "with cache": [0.02] * 16}
    shown = str(decoding_times(seconds, 40)._repr_mimebundle_())
    assert "without: 100 ms in the first eight steps, 200 in the last" in shown
    assert "with cache: 20 ms in the first eight steps, 20 in the last" in shown


def test_kept_ranks_tell_how_many_each_filter_keeps() -> None:
    curves = {"peaked": [0.9, 0.05, 0.01], "flat": [0.2, 0.2, 0.1]}
    counts = {"peaked": {"top-k 2": 2, "top-p 0.9": 1}, "flat": {"top-k 2": 2, "top-p 0.9": 3}}
    shown = str(kept_ranks(curves, counts)._repr_mimebundle_())
    assert "peaked: top-k 2 2, top-p 0.9 1; flat: top-k 2 2, top-p 0.9 3." in shown


def test_trade_off_tells_where_each_sampler_lies() -> None:
    def at(value: float) -> Estimate:
        return Estimate(value, value - 0.1, value + 0.1, 32)

    points = {"τ = 1": (at(2.0), at(0.0)), "τ = 1.5": (at(4.0), at(0.5)),
              "top-k": (at(3.0), at(0.75))}  # fmt: skip
    shown = str(trade_off(points, ["τ = 1", "τ = 1.5"])._repr_mimebundle_())
    assert "a line through 2 temperatures" in shown
    assert "τ = 1.5 at 4.0 and 0.50; top-k at 3.0 and 0.75." in shown
