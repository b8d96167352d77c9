"""The judge of hidden states: what must not sway it, what it refuses, and SmolLM2's share."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from posttrain.core.assets import model_folder
from posttrain.core.errors import AssetError
from posttrain.core.judges.verdicts import both_orders
from posttrain.core.judges.verdicts import judge_pairs as judge_all
from posttrain.dpo.data.checks import count_words
from posttrain.dpo.judging.judge_pairs import JudgePair, judge_pairs
from posttrain.dpo.judging.judge_report import measure_judge
from posttrain.dpo.judging.preference_judge import PreferenceJudge, train_preference_judge
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT

CONFIG = GPTConfig(
    vocab_size=49152, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128,
    initializer_range=0.3,
)  # fmt: skip
GOOD, BAD = (
    "you rinse warm since soap lifts grease".split(),
    "one people vague tool many".split(),
)


def tiny() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG).double()


def pair(number: int, part: Any = "train", flipped: bool = False) -> JudgePair:
    """A better answer out of some words, a worse one out of others: this can be learned."""
    rng = random.Random(number)
    better, worse = (
        " ".join(rng.choices(words, k=rng.randint(4, 12))) + f" {number}."
        for words in (GOOD, BAD)
    )
    if flipped:
        better, worse = worse, better
    question = f"What about {number}?"
    return JudgePair(f"{part}-{number:03}", part, question, better, worse, ("vague",))


TRAIN = [pair(number) for number in range(40)]
TEST = [pair(number, "test") for number in range(100, 120)]


def train(tokenizer: Any, pairs: Any = TRAIN, **options: Any) -> PreferenceJudge:
    return train_preference_judge(
        options.pop("model", None) or tiny(), tokenizer, pairs, **{"layer": 2, **options}
    )


def score(judge: PreferenceJudge, pairs: Any = TEST) -> torch.Tensor:
    """Rewards of better and worse answers, shape (2, n)."""
    rewards = judge.scores(
        [pair.question for pair in pairs] * 2,
        [pair.better for pair in pairs] + [pair.worse for pair in pairs],
    )
    return torch.tensor(rewards).view(2, -1)


@pytest.fixture(scope="module")
def judge(tokenizer: Any) -> PreferenceJudge:
    return train(tokenizer)


def test_it_learns_and_a_flipped_sign_is_seen(judge: PreferenceJudge, tokenizer: Any):
    assert measure_judge(judge.scores, TEST).all.accuracy >= 0.95
    assert judge.head.chosen.accuracy > 0.9
    flipped = train(tokenizer, [pair(number, flipped=True) for number in range(40)])
    assert measure_judge(flipped.scores, TEST).all.accuracy <= 0.05
    torch.testing.assert_close(
        score(flipped)[0] - score(flipped)[1], score(judge)[1] - score(judge)[0]
    )


def test_the_order_of_the_pairs_plays_no_part(judge: PreferenceJudge, tokenizer: Any):
    for seed in range(3):
        shuffled = random.Random(seed).sample(TRAIN, len(TRAIN))
        again = train(tokenizer, shuffled)
        torch.testing.assert_close(again.head.weights, judge.head.weights, rtol=0, atol=1e-6)
        assert again.head.l2 == judge.head.l2
        assert again.length_slope == pytest.approx(judge.length_slope, abs=1e-6)


def test_batches_and_neighbors_play_no_part(judge: PreferenceJudge, tokenizer: Any):
    expected = score(judge)
    for batch_size in (1, 7, 64):
        found = score(train(tokenizer, batch_size=batch_size))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    for row, one in enumerate(TEST):  # alone, without longer answers beside it
        assert judge.score(one.question, one.better) == pytest.approx(
            float(expected[0, row]), abs=1e-6
        )


def test_the_order_of_the_answers_plays_no_part(judge: PreferenceJudge):
    for one in TEST:
        outcome = both_orders(judge, one.question, one.better, one.worse)
        assert outcome.is_consistent and outcome.place is None
        a, b = outcome.a_first, outcome.b_first
        assert a is not None and b is not None
        assert {a.winner, b.winner} == {"first", "second"}
        assert a.reason.replace("+", "-") == b.reason.replace("+", "-")
        margin = judge.score(one.question, one.better) - judge.score(one.question, one.worse)
        assert (a.winner == "first") == (margin > 0)
        assert f"{margin:+.2f} nats" in a.reason


def test_many_pairs_are_scored_together(
    judge: PreferenceJudge, tokenizer: Any, monkeypatch: Any
):
    fresh = replace(judge, batch_size=8)
    calls: list[int] = []
    usual = PreferenceJudge.scores

    def counted(self: Any, questions: Any, answers: Any) -> Any:
        calls.append(len(answers))
        return usual(self, questions, answers)

    monkeypatch.setattr(PreferenceJudge, "scores", counted)
    columns = [[getattr(one, name) for one in TEST] for name in ("question", "better", "worse")]
    outcomes = judge_all(fresh, *columns)
    assert calls == [2 * len(TEST)]  # each answer once, all at once
    winners = tuple(outcome.winner for outcome in outcomes)
    assert winners == measure_judge(judge.scores, TEST).winners


def test_ties(judge: PreferenceJudge):
    one = TEST[0]
    same = judge.judge(one.question, one.better, one.better)
    assert same.winner == "tie" and "+0.00 nats" in same.reason
    margin = abs(judge.score(one.question, one.better) - judge.score(one.question, one.worse))
    for band, tied in ((margin * 1.01, True), (margin * 0.99, False)):
        verdict = replace(judge, tie_band=band).judge(one.question, one.better, one.worse)
        assert (verdict.winner == "tie") == tied
    for band in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="give a finite number of nats, from 0"):
            replace(judge, tie_band=band)


def test_the_slope_of_length(tokenizer: Any):
    """Where the better answer is always the longer one, the slope says so."""
    longer = [
        replace(one, better=f"{one.better} {'warm ' * 8}you.", worse="one vague tool.")
        for one in TRAIN
    ]
    found = train(tokenizer, longer)
    assert found.length_slope is not None and found.length_slope > 0
    words = [count_words(one.better) - count_words(one.worse) for one in longer]
    margins = found.head.chosen.margins
    by_hand = sum(w * float(m) for w, m in zip(words, margins, strict=True))
    assert found.length_slope == pytest.approx(by_hand / sum(w * w for w in words))
    same = [replace(one, better=f"you rinse {i}", worse=f"one tool {i}") for i, one in
            enumerate(TRAIN)]  # fmt: skip
    assert train(tokenizer, same).length_slope is None


def test_a_model_that_was_trained_on_is_refused(tokenizer: Any):
    model = tiny()
    judge = train(tokenizer, model=model, layer=1)
    with torch.no_grad():
        model.layers[1].mlp.down_proj.weight.add_(0.1)  # above the layer: nothing changes
        judge.score("Why?", "So.")
        model.layers[0].mlp.down_proj.weight.add_(0.1)
    with pytest.raises(ValueError, match="give the judge a model of its own"):
        judge.score("Why?", "So.")


def test_bad_input(judge: PreferenceJudge, tokenizer: Any):
    with pytest.raises(ValueError, match="there are no pairs"):
        train(tokenizer, [])
    with pytest.raises(ValueError, match="is a pair of the part 'test'"):
        train(tokenizer, TRAIN + TEST[:1])
    with pytest.raises(ValueError, match="two pairs have the id"):
        train(tokenizer, TRAIN + TRAIN[:1])
    with pytest.raises(ValueError, match="there are 4 pairs for 5 folds"):
        train(tokenizer, TRAIN[:4])
    with pytest.raises(ValueError, match="tie_band is -1"):
        train(tokenizer, tie_band=-1.0)
    with pytest.raises(ValueError, match="layer is 3: give 1 to the model's 2 blocks"):
        train(tokenizer, layer=3)
    with pytest.raises(ValueError, match="there are no answers"):
        judge.scores([], [])
    with pytest.raises(ValueError, match="is blank: nothing can be read"):
        judge.judge("Why?", "So.", " ")


def test_a_damaged_model_is_refused(tokenizer: Any):
    model = tiny()
    with torch.no_grad():
        model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="is not finite: look whether the model's weights"):
        train(tokenizer, model=model)
    judge = train(tokenizer)
    broken = replace(judge, head=replace(judge.head, weights=judge.head.weights * torch.nan))
    with pytest.raises(ValueError, match="the reward of answer 0 is nan"):
        broken.score("Why?", "So.")


@pytest.mark.slow
def test_smollm2_tells_the_answers_apart(tokenizer: Any):
    """With a quarter of the pairs and half of the blocks; the chapter measures all."""
    from posttrain.pretraining.model.weights import load_pretrained

    try:
        model_folder("smollm2-135m-instruct")
    except AssetError as error:
        pytest.skip(str(error))
    model = load_pretrained("smollm2-135m-instruct")
    found = train_preference_judge(model, tokenizer, judge_pairs("train")[:40], layer=6)
    report = measure_judge(found.scores, judge_pairs("test")[:20])
    assert report.all.accuracy >= 0.75
