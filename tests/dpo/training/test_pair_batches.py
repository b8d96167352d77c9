"""posttrain.dpo.training.pair_batches: every token where it belongs, every pair once a pass."""

from __future__ import annotations

import pytest
import torch

from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.training.pair_batches import (
    PairBatches,
    ReferenceLogps,
    pack_pairs,
    pairs_digest,
)

PAIRS = [EncodedPair((i, i + 1), (i + 2, 7), (i + 3, i + 4, 7)) for i in range(10, 60, 10)]
REFERENCE = ReferenceLogps(-torch.arange(5.0), -torch.arange(5.0) - 0.5)


def test_a_batch_by_hand() -> None:
    batch = pack_pairs(PAIRS[:2], REFERENCE.rows([0, 1]))
    assert batch.input_ids.tolist() == [10, 11, 12, 7, 13, 14, 7, 20, 21, 22, 7, 23, 24, 7]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 2, 3, 4] * 2
    assert batch.targets.tolist() == [12, 7, 13, 14, 7, 22, 7, 23, 24, 7]
    assert batch.sources.tolist() == [1, 2, 1, 4, 5, 8, 9, 8, 11, 12]
    assert batch.owners.tolist() == [0, 0, 2, 2, 2, 1, 1, 3, 3, 3]
    assert batch.counts.tolist() == [2, 2, 3, 3]
    assert (batch.pairs, batch.longest, batch.lengths) == (2, 7, (7, 7))


def test_a_pass_has_every_pair_once_with_its_own_reference() -> None:
    batches = PairBatches(PAIRS, 2, seed=3, reference=REFERENCE)
    assert batches.steps_per_epoch == 2  # one pair is left over
    seen = []
    for _ in range(2):
        rows = batches.rows()
        batch = next(batches)
        assert batch.reference is not None
        assert batch.reference.chosen.tolist() == [-float(row) for row in rows]
        assert batch.input_ids[0] == PAIRS[rows[0]].prompt_ids[0]
        seen += rows
    assert len(set(seen)) == 4
    assert PairBatches(PAIRS, 2, seed=None).rows() == [0, 1]


def test_batches_go_on_where_they_stopped() -> None:
    one, other = (PairBatches(PAIRS, 2, seed=3, reference=REFERENCE) for _ in range(2))
    next(one)
    other.load_state_dict(one.state_dict())
    assert torch.equal(next(one).input_ids, next(other).input_ids)
    changed = ReferenceLogps(REFERENCE.chosen, REFERENCE.rejected - 1)
    for wrong in (
        PairBatches(PAIRS, 3, 3, REFERENCE), PairBatches(PAIRS, 2, 4, REFERENCE),
        PairBatches(PAIRS, 2, 3, changed), PairBatches(PAIRS[::-1], 2, 3, REFERENCE),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            wrong.load_state_dict(one.state_dict())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to pack"):
        pack_pairs([])
    with pytest.raises(ValueError, match="5 log-probabilities of the reference for 2 pairs"):
        pack_pairs(PAIRS[:2], REFERENCE)
    with pytest.raises(ValueError, match="give one for each"):
        PairBatches(PAIRS[:2], 2, reference=REFERENCE)
    with pytest.raises(ValueError, match="1 to the number of pairs, 5"):
        PairBatches(PAIRS, 6)
    with pytest.raises(ValueError, match="one number a pair"):
        ReferenceLogps(torch.zeros(2), torch.zeros(3))


def test_the_digest_knows_tokens_order_and_reference() -> None:
    digests = {
        pairs_digest(PAIRS), pairs_digest(PAIRS[::-1]), pairs_digest(PAIRS, REFERENCE),
        pairs_digest([EncodedPair((10, 11, 12), (7,), PAIRS[0].rejected_ids), *PAIRS[1:]]),
    }  # fmt: skip
    assert len(digests) == 4
