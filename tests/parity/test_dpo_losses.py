"""Preference losses: ours against TRL's trainers, values and every gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("trl")
from posttrain.dpo.losses import parity, parity_trl, preference
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.losses.kto import mismatched_rows
from posttrain.dpo.losses.logprobs import SequenceLogps, sequence_logps
from posttrain.dpo.losses.pairs import PairLogps
from posttrain.dpo.losses.parity import ParityRow, compare, summary
from posttrain.dpo.losses.parity_draws import (
    VARIANTS,
    DrawnBatch,
    draw_batch,
    llama_pair,
    table_pair,
)
from posttrain.dpo.losses.parity_trl import trl_loss

pytestmark = pytest.mark.parity

CLOSE = 1e-5
SEEDS = range(5 * len(VARIANTS))


@pytest.mark.parametrize(("model", "seeds"), [("table", range(540)), ("llama", range(36))])
def test_values_and_gradients_equal_trls(model: str, seeds: range) -> None:
    rows = [compare(seed, model) for seed in seeds]
    n, value, gradient = summary(rows)
    assert (n, value < CLOSE, gradient < CLOSE) == (len(seeds), True, True), rows
    for variant in VARIANTS:
        found = [row for row in rows if row.variant == variant]
        assert len(found) == len(seeds) // len(VARIANTS)
        assert max(row.gradient_size for row in found) > 100 * CLOSE


# --- planted mistakes ---


def wrong(seeds: range = SEEDS) -> set[str]:
    """The variants of which some batch differs clearly."""
    rows = [compare(seed) for seed in seeds]
    return {row.variant for row in rows if max(row.value, row.gradient) > 100 * CLOSE}


def with_logps(
    change: Callable[[Tensor, Tensor], SequenceLogps], patch: pytest.MonkeyPatch
) -> None:
    patch.setattr(parity, "sequence_logps", change)


def test_nothing_is_wrong_without_a_mistake() -> None:
    assert wrong() == set()


def test_the_sign_of_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    right = preference.margin
    monkeypatch.setattr(preference, "margin", lambda *logps: -right(*logps))
    assert wrong() == {"dpo", "conservative", "robust", "ipo mean", "ipo sum"}


def test_beta_on_one_side_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_sided(c: Tensor, r: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
        return -nn.functional.logsigmoid(beta * (c - rc) - (r - rr))

    monkeypatch.setattr(preference, "dpo_loss", one_sided)
    assert wrong() == {"dpo", "conservative", "robust"}


def test_the_mean_instead_of_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    def means(logits: Tensor, labels: Tensor) -> SequenceLogps:
        found = sequence_logps(logits, labels)
        return SequenceLogps(found.means, found.counts)

    with_logps(means, monkeypatch)
    assert wrong() == set(VARIANTS)


def test_a_mask_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(logits: Tensor, labels: Tensor) -> SequenceLogps:
        """Leave out the first token of each answer that has another."""
        answer = labels != -100
        first = answer & (answer.cumsum(dim=1) == 1) & (answer.sum(dim=1, keepdim=True) > 1)
        return sequence_logps(logits, labels.masked_fill(first, -100))

    with_logps(late, monkeypatch)
    assert wrong() == set(VARIANTS)


def test_labels_that_are_not_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    with_logps(lambda x, y: sequence_logps(x.roll(1, dims=1), y), monkeypatch)
    assert wrong() == set(VARIANTS)


def test_the_prompts_tokens_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    right = parity.our_loss

    def counted(batch: DrawnBatch, policy: nn.Module, reference: nn.Module) -> Tensor:
        rows = tuple((prompt[:1], prompt[1:] + answer) for prompt, answer in batch.rows)
        return right(replace(batch, rows=rows), policy, reference)

    monkeypatch.setattr(parity, "our_loss", counted)
    shared = {"orpo"}  # prompts of one token
    # a prompt's tokens are in both answers of a pair, and cancel in a sum
    cancel = {"dpo", "conservative", "robust", "ipo sum"}
    assert wrong() == set(VARIANTS) - shared - cancel


def test_a_reference_that_is_not_detached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "_frozen", parity._answers)
    with pytest.raises(ValueError, match=r"ref_chosen requires a gradient"):
        compare(0)
    # and if nothing refused it
    monkeypatch.setattr(PairLogps, "_check_gradients", lambda self: None)
    monkeypatch.setattr(preference, "log_ratio", torch.sub)
    rows: list[ParityRow] = [
        compare(seed) for seed in SEEDS if draw_batch(seed).variant == "dpo"
    ]
    assert all(row.value < CLOSE for row in rows)
    assert max(row.gradient for row in rows) > 100 * CLOSE


def test_a_wrong_scale_of_ipo(monkeypatch: pytest.MonkeyPatch) -> None:
    right = preference.ipo_loss
    monkeypatch.setattr(preference, "ipo_loss", lambda *a: right(*a[:4], a[4] / 2))
    assert wrong() == {"ipo mean", "ipo sum"}


def test_nan_is_not_taken_for_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    right = preference.dpo_loss
    monkeypatch.setattr(preference, "dpo_loss", lambda *a: right(*a) * float("nan"))
    assert wrong() == {"dpo", "conservative", "robust"}


# --- what the docstrings say of TRL ---


def test_trls_sigmoid_leaves_label_smoothing_out() -> None:
    policy, reference = table_pair(0)
    batch = replace(draw_batch(0), config=PreferenceLossConfig("sigmoid", beta=1.0))
    plain = trl_loss(batch, policy, reference)
    smoothed = replace(batch, config=PreferenceLossConfig("sigmoid", 1.0, 0.3))
    assert torch.equal(trl_loss(smoothed, policy, reference), plain)
    assert (parity.our_loss(smoothed, policy, reference) - plain).abs() > 1e-3


def test_trls_orpo_counts_the_prompt() -> None:
    policy, reference = table_pair(0)
    batch = draw_batch(VARIANTS.index("orpo"))
    longer = replace(
        batch, rows=tuple(([1, 2, *prompt], answer) for prompt, answer in batch.rows)
    )
    ours, theirs = (loss(longer, policy, reference) for loss in (parity.our_loss, trl_loss))
    assert (ours - theirs).abs() > 1e-3
    assert (ours - parity.our_loss(batch, policy, reference)).abs() < CLOSE  # a table's answers


def test_trl_starts_at_a_reward_accuracy_of_0() -> None:
    policy, _ = table_pair(0)
    trl_loss(draw_batch(0), policy, policy)
    metrics: dict[str, Any] = parity_trl._trainers().dpo._metrics["eval"]
    assert metrics["rewards/accuracies"][-1] == 0
    assert metrics["rewards/margins"][-1] == 0


@pytest.mark.parametrize("n", [2, 3, 5])
def test_mismatched_rows_are_those_of_trls_data(n: int, tmp_path: Path) -> None:
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    data = [
        {
            "prompt": f"{'ab'[row % 2]} {'abcd'[row % 4]}",
            "completion": " " + "abcd"[row % 3],
            "label": True,
        }
        for row in range(n)
    ]
    policy, reference = llama_pair(0)
    args = trl.KTOConfig(
        str(tmp_path), report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
        disable_tqdm=True, per_device_train_batch_size=n, train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = trl.KTOTrainer(
        policy, reference, args, train_dataset=datasets.Dataset.from_list(data),
        processing_class=parity_trl._tokenizer(),
    )  # fmt: skip
    rows = list(trainer.train_dataset)
    expected = [rows[other]["completion_ids"] for other in mismatched_rows(range(n))]
    assert [row["KL_completion_ids"] for row in rows] == expected
