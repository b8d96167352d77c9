"""Seeds of results: the base seed, and the runs that follow from it."""

import pytest

from posttrain.core.seeds import SPREAD, base_seed, seeds


def test_the_base_seed_is_zero_where_nothing_is_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("POSTTRAIN_SEED", raising=False)
    assert base_seed() == 0 and seeds(3) == (0, 1, 2)
    monkeypatch.setenv("POSTTRAIN_SEED", " ")
    assert base_seed() == 0


def test_base_seeds_of_the_rebuilds_share_no_seed(monkeypatch: pytest.MonkeyPatch):
    found: list[int] = []
    for base in (0, 1000, 2000):
        monkeypatch.setenv("POSTTRAIN_SEED", str(base))
        assert base_seed() == base and seeds(2) == (base, base + 1)
        found += seeds(SPREAD)
    assert len(set(found)) == 3 * SPREAD


@pytest.mark.parametrize("text", ["one", "-1", "1.5", "²", str(2**32)])
def test_what_is_no_seed_is_refused(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POSTTRAIN_SEED", text)
    with pytest.raises(ValueError, match=rf"POSTTRAIN_SEED is '{text}': set it to a whole"):
        base_seed()


@pytest.mark.parametrize("n", [0, -1, SPREAD + 1])
def test_more_seeds_than_a_base_seed_has_are_refused(n: int):
    with pytest.raises(ValueError, match=f"{n} seeds are asked for: one base seed has 1 to"):
        seeds(n)
