import importlib
import sys
from itertools import islice, pairwise

import pytest

from posttrain.core.errors import AssetError
from posttrain.sft.data import gym
from posttrain.sft.data.tasks import BY_NAME, KINDS


@pytest.fixture
def fresh_import():
    gym._reasoning_gym.cache_clear()
    yield
    gym._reasoning_gym.cache_clear()


def test_seeds_and_kinds_do_not_share_instances():
    def texts(name: str, seed: int) -> list[list[str]]:
        return [e["metadata"]["words"] for e in islice(gym.entries(BY_NAME[name], seed), 50)]

    assert texts("word_order", 0) == texts("word_order", 0)
    assert not [words for words in texts("word_order", 0) if words in texts("word_order", 1)]
    first = [gym.POOL * (seed * len(KINDS) + n) for seed in (0, 1) for n in range(len(KINDS))]
    assert [b - a for a, b in pairwise(first)] == [gym.POOL] * (len(first) - 1)
    asked = []

    class Gym:
        @staticmethod
        def create_dataset(name: str, size: int, seed: int, **arguments) -> list:
            asked.append((size, seed))
            return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gym, "_reasoning_gym", Gym)
        for seed in (0, 1):
            for kind in KINDS:
                list(gym.entries(kind, seed))
    assert asked == [(gym.POOL, seed) for seed in first]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_right_answer_is_accepted_and_those_of_others_are_not(kind):
    found = list(islice(gym.entries(kind, 5), 40))
    answers = [kind.write(entry["answer"]) for entry in found]
    for entry, right in zip(found, answers, strict=True):
        assert gym.accepts(kind, right, entry) and gym.accepts(kind, f" {right}\n", entry)
        wrong = {answer for answer in answers if answer != right}
        assert not any(gym.accepts(kind, answer, entry) for answer in wrong)
        assert not gym.accepts(kind, "", entry) and not gym.accepts(kind, "maybe", entry)


def test_only_the_full_mark_counts():
    kind = BY_NAME["legs"]
    entry = next(gym.entries(kind, 0))
    near = entry["answer"] + "0"  # contains the right answer
    assert 0 < gym._verifier("legs").score_answer(near, entry) < 1
    assert not gym.accepts(kind, near, entry)


def test_sorted_numbers_must_be_those_of_the_question():
    kind = BY_NAME["sorting"]
    entry = next(gym.entries(kind, 0))
    numbers = [int(n) for n in kind.write(entry["answer"]).split(", ")]
    ascending = entry["metadata"]["direction"] == "ascending"
    numbers[-1] += 1 if ascending else -1  # off by one: the verifier alone is satisfied
    wrong = ", ".join(map(str, numbers))
    as_list = str([str(n) for n in numbers])
    assert gym._verifier("sorting").score_answer(as_list, entry) == 1.0
    assert not gym.accepts(kind, wrong, entry)


def test_pycosat_is_not_needed(monkeypatch, fresh_import):
    seen = []

    def import_module(name: str) -> str:
        seen.append((name, "pycosat" in sys.modules))
        return "the module"

    monkeypatch.delitem(sys.modules, "pycosat", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(importlib, "import_module", import_module)
    assert gym._reasoning_gym() == "the module"
    assert seen == [("reasoning_gym", True)]
    assert "pycosat" not in sys.modules  # others shall see that it is missing


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch, fresh_import):
    def missing(name: str):
        raise ImportError("No module named 'reasoning_gym'")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        AssetError, match=r"No module named.*pip install --no-deps reasoning-gym==0\.1\.25"
    ):
        next(gym.entries(BY_NAME["sum"], 0))
