"""posttrain.dpo.runs.before_after: implicit rewards, both models, answers side by side."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.core.assets import load_tokenizer
from posttrain.dpo.data.pair_formats import PairRow, make_pair
from posttrain.dpo.data.tokenizing import encode_pairs
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.losses.pairs import PairLogps
from posttrain.dpo.losses.rewards import implicit_rewards, reward_accuracy
from posttrain.dpo.runs.before_after import (
    MeasuredPairs,
    compare_pairs,
    held_out_prompts,
    measure_speaker,
    pair_comparison_lines,
    write_answers,
)
from posttrain.dpo.training.pair_forward import reference_logps
from posttrain.sft.runs.speaker import HandSpeaker, load_speaker


def rows(count: int = 4) -> list[PairRow]:
    return [make_pair(f"Add one to {n}.", f"{n + 1}", f"About {n}.") for n in range(count)]


def test_a_speaker_says_what_the_run_computes(llama: Path) -> None:
    base = str(llama / "base")
    tokenizer = load_tokenizer(base)
    pairs = encode_pairs(rows(), tokenizer, "smollm2").pairs
    speaker, _ = load_speaker(base, llama / "sft", dtype=torch.float32)
    assert isinstance(speaker, HandSpeaker)
    prompts = held_out_prompts(rows())
    found = measure_speaker(speaker, tokenizer, pairs, prompts, "smollm2", 5)
    expected = reference_logps(speaker.model, pairs)
    assert found.chosen == pytest.approx(expected.chosen.tolist(), abs=1e-3)
    assert found.rejected == pytest.approx(expected.rejected.tolist(), abs=1e-3)
    assert len(found.answers) == 4
    with pytest.raises(ValueError, match="at least one held-out pair"):
        measure_speaker(speaker, tokenizer, [], prompts, "smollm2")


LOSSES: list[dict[str, Any]] = [
    {}, {"loss_type": "sigmoid_norm"}, {"loss_type": "orpo"}, {"loss_type": "robust"},
    {"loss_type": "simpo", "simpo_gamma": 0.5},
    {"loss_type": "ipo", "ipo_aggregation": "mean"},
    {"loss_type": "ipo", "ipo_aggregation": "sum"},
]  # fmt: skip


@pytest.mark.parametrize("options", LOSSES, ids=str)
def test_rewards_are_those_of_the_loss(options: dict[str, Any]) -> None:
    config = PreferenceLossConfig(beta=0.4, **options)
    for seed in range(20):
        rng = random.Random(seed)
        n = rng.randint(2, 9)
        draw = [[rng.uniform(-50, -1) for _ in range(n)] for _ in range(4)]
        lengths = [(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(n)]
        before, after = MeasuredPairs(draw[0], draw[1], []), MeasuredPairs(draw[2], draw[3], [])
        found = compare_pairs(before, after, lengths, config)
        reference = {}
        if config.needs.reference:
            reference = {
                "ref_chosen": torch.tensor(draw[0]), "ref_rejected": torch.tensor(draw[1])
            }  # fmt: skip
        counts = [torch.tensor(part) for part in zip(*lengths, strict=True)]
        good, bad = implicit_rewards(
            config,
            PairLogps(
                torch.tensor(draw[2]), torch.tensor(draw[3]), **reference,
                chosen_lengths=counts[0], rejected_lengths=counts[1],
            ),
        )  # fmt: skip
        assert found["margin"]["value"] == pytest.approx(float((good - bad).mean()), rel=1e-4)
        accuracy = float(reward_accuracy(good, bad))
        assert found["reward_accuracy"]["value"] == pytest.approx(accuracy, abs=1e-6)


def test_what_is_said_of_both_models() -> None:
    before = MeasuredPairs([-9.0, -9.0, -9.0, -2.0], [-5.0, -5.0, -5.0, -5.0], ["a"] * 4)
    after = MeasuredPairs([-3.0, -3.0, -9.0, -7.0], [-5.0, -5.0, -5.0, -5.0], ["b"] * 4)
    found = compare_pairs(before, after, [(1, 1)] * 4, PreferenceLossConfig(beta=0.5))
    assert found["reward_accuracy"]["value"] == (2 + 0.5) / 4  # a tie is half
    assert found["chosen_likelier"]["before"]["value"] == 0.25
    assert found["chosen_likelier"]["after"]["value"] == 0.5
    assert (found["chosen_likelier"]["gained"], found["chosen_likelier"]["lost"]) == (2, 1)
    assert found["margin"]["value"] == pytest.approx(0.5 * (6 + 6 + 0 - 5) / 4)
    told = "\n".join(pair_comparison_lines(found))
    for part in ("held-out pairs: 4", "reward accuracy: 62 % [", "25 % [", "2 gained, 1 lost",
                 "chosen -7.2 before, -5.5 after"):  # fmt: skip
        assert part in told, part
    one = compare_pairs(
        MeasuredPairs([-2.0], [-1.0], []), MeasuredPairs([-1.0], [-1.0], []), [(1, 1)],
        PreferenceLossConfig(),
    )  # fmt: skip
    assert one["margin"]["n"] == 1 and pair_comparison_lines(one)


def test_answers_stand_side_by_side(tmp_path: Path) -> None:
    long = make_pair(
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"},
         {"role": "user", "content": "Hé?"}], "a", "b",
    )  # fmt: skip
    prompts = held_out_prompts([*rows(2), rows(1)[0], long])
    assert len(prompts) == 3  # each once
    before, after = (MeasuredPairs([], [], [f"{name}{i}" for i in range(3)]) for name in "xy")
    file = write_answers(tmp_path, prompts, before, after)
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert found[0] == {"prompt": "Add one to 0.", "before": "x0", "after": "y0"}
    assert found[2]["prompt"] == long["prompt"] and found[2]["after"] == "y2"
    assert len(held_out_prompts(rows(130))) == 100
