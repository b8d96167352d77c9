"""sft.training.packing: labels inside each document, order of the batches, what is refused."""

import pytest
import torch

from posttrain.sft.chat.masking import IGNORE_INDEX
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.training.packing import (
    PackedBatch,
    PackedBatches,
    by_length,
    examples_digest,
    pack,
)

A = EncodedChat([10, 11, 12, 13], [0, 0, 1, 1])
B = EncodedChat([20, 21], [0, 1])
C = EncodedChat([30, 31, 32], [0, 1, 0])
NO = IGNORE_INDEX


def examples(count: int) -> list[EncodedChat]:
    """Documents of different lengths; the first token tells them apart."""
    return [EncodedChat([index, 7, *[8] * (index % 3)], [0, 1, *[0] * (index % 3)])
            for index in range(count)]  # fmt: skip


def first_tokens(batch: PackedBatch) -> list[int]:
    return [int(part[0]) for part in batch.input_ids.split(batch.lengths)]


# --- one batch ---


def test_documents_lie_end_to_end() -> None:
    batch = pack([A, B, C])
    assert batch.input_ids.tolist() == [10, 11, 12, 13, 20, 21, 30, 31, 32]
    assert batch.lengths == (4, 2, 3) and batch.longest == 4
    assert batch.input_ids.dtype == batch.labels.dtype == torch.int64
    assert batch.stream is None and batch.first_block == 0


def test_a_label_is_the_next_token_of_the_same_document() -> None:
    batch = pack([A, B, C])
    #                              10  11  12  13  20  21  30  31  32
    assert batch.labels.tolist() == [NO, 12, 13, NO, 21, NO, 31, NO, NO]
    assert batch.trained_tokens == 4


def test_no_label_crosses_a_border() -> None:
    """A plain shift over the whole row would train 20 from 13, which is another's text."""
    trained_first = EncodedChat([20, 21], [1, 1])
    with pytest.raises(ValueError, match="the first token is trained"):
        pack([A, trained_first])
    for first in (A, B, C):
        batch = pack([first, B])
        assert batch.labels[len(first.input_ids) - 1] == NO


def test_slots_are_places_in_a_table_of_documents() -> None:
    # 4 columns: row 0 is full, row 1 has two tokens, row 2 three
    assert pack([A, B, C]).slots.tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 10]
    assert pack([B]).slots.tolist() == [0, 1]


def test_moving_a_batch_moves_its_tensors() -> None:
    batch = pack([A, B], [torch.zeros(4, 3), torch.ones(2, 3)], first_block=1)
    assert batch.stream is not None and batch.stream.shape == (6, 3)
    moved = batch.to("meta")
    assert moved.stream is not None
    assert {t.device.type for t in (moved.input_ids, moved.labels, moved.stream)} == {"meta"}
    assert moved.slots.device.type == "meta"
    assert moved.lengths == batch.lengths and moved.first_block == 1
    assert pack([A]).to("meta").stream is None


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(ValueError, match="there is nothing to pack: give at least one encoded"):
        pack([])
    with pytest.raises(ValueError, match="none of the 2 tokens is trained"):
        pack([A, EncodedChat([1, 2], [0, 0])])
    with pytest.raises(ValueError, match="1 mask entries for 2 tokens"):
        pack([EncodedChat([1, 2], [0])])


def test_streams_must_be_those_of_the_examples() -> None:
    streams = [torch.zeros(4, 3), torch.zeros(2, 3)]
    sentence = (
        r"the streams have \[4, 2\] rows and the examples \[2, 4\] tokens: give one stream"
    )
    with pytest.raises(ValueError, match=sentence):
        pack([B, A], streams, 1)
    with pytest.raises(ValueError, match=r"\[4, 2\] rows and the examples \[4\] tokens"):
        pack([A], streams, 1)
    with pytest.raises(ValueError, match="first_block is 2, and nothing says what the blocks"):
        pack([A], None, 2)


# --- batches without end ---


def test_every_example_comes_once_in_each_pass() -> None:
    batches = PackedBatches(examples(12), 4)
    assert batches.steps_per_epoch == 3
    passes = [[t for _ in range(3) for t in first_tokens(next(batches))] for _ in range(4)]
    assert all(sorted(seen) == list(range(12)) for seen in passes)
    assert len({tuple(seen) for seen in passes}) == 4  # shuffled anew


def test_the_rest_that_fills_no_batch_is_dropped_and_changes_from_pass_to_pass() -> None:
    batches = PackedBatches(examples(11), 4)
    passes = [{t for _ in range(2) for t in first_tokens(next(batches))} for _ in range(5)]
    assert all(len(seen) == 8 for seen in passes)
    assert set.union(*passes) == set(range(11))


def test_the_seed_decides_the_order() -> None:
    def order(seed: int) -> list[list[int]]:
        return [first_tokens(next(batches)) for batches in [PackedBatches(examples(9), 3, seed)]
                for _ in range(7)]  # fmt: skip

    assert order(1) == order(1) != order(2)
    state = torch.get_rng_state()
    order(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_order_can_be_kept() -> None:
    batches = PackedBatches(examples(7), 3, seed=None)
    assert [batches.rows(), first_tokens(next(batches))] == [[0, 1, 2]] * 2
    assert [first_tokens(next(batches)) for _ in range(3)] == [[3, 4, 5], [0, 1, 2], [3, 4, 5]]


def test_a_resumed_run_sees_what_follows() -> None:
    batches = PackedBatches(examples(10), 3, seed=5)
    for _ in range(4):  # into the second pass
        next(batches)
    state = batches.state_dict()
    expected = [first_tokens(next(batches)) for _ in range(6)]
    other = PackedBatches(examples(10), 3, seed=5)
    other.load_state_dict(state)
    assert [first_tokens(next(other)) for _ in range(6)] == expected
    assert iter(other) is other and state["step"] == 4


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (PackedBatches(examples(10), 2, seed=5), "^batch_size differ .*: batch_size=3$"),
        (PackedBatches(examples(10), 3, seed=6), "^seed differ .*: seed=5$"),
        (PackedBatches(examples(10), 3, seed=None), "^seed differ"),
        (PackedBatches(examples(9), 3, seed=5), "^data differ"),
        (PackedBatches(examples(10)[::-1], 3, seed=5), "^data differ"),
    ],
)
def test_a_state_of_other_batches_is_refused(other: PackedBatches, sentence: str) -> None:
    batches = PackedBatches(examples(10), 3, seed=5)
    next(batches)
    with pytest.raises(ValueError, match=sentence):
        other.load_state_dict(batches.state_dict())
    with pytest.raises(ValueError, match=r"batch_size, .*differ from what is stored"):
        other.load_state_dict({"step": 1})
    assert other.step == 0


def test_the_digest_is_that_of_tokens_masks_and_order() -> None:
    one = EncodedChat([1, 2, 3], [0, 1, 1])
    others = [[EncodedChat([1, 2, 3], [0, 0, 1])], [EncodedChat([1, 2, 4], [0, 1, 1])], [],
              [EncodedChat([1, 2], [0, 1]), EncodedChat([3], [1])], [one, one]]  # fmt: skip
    assert examples_digest([one]) == examples_digest([EncodedChat([1, 2, 3], [0, 1, 1])])
    assert len({examples_digest(x) for x in [[one], *others]}) == 6
    assert examples_digest([A, B]) != examples_digest([B, A])


def test_each_example_brings_its_own_stream() -> None:
    rows = examples(6)
    streams = [torch.full((len(row.input_ids), 2), float(i)) for i, row in enumerate(rows)]
    batch = next(PackedBatches(rows, 4, seed=3, streams=streams, first_block=1))
    assert batch.stream is not None and batch.first_block == 1
    starts = [int(part[0, 0]) for part in batch.stream.split(batch.lengths)]
    assert starts == first_tokens(batch) and len(set(starts)) == 4
    with pytest.raises(ValueError, match="5 streams for 6 examples: give one for each"):
        PackedBatches(rows, 4, streams=streams[:5], first_block=1)


@pytest.mark.parametrize(
    ("size", "sentence"),
    [(4, "4: give 1 to the number of examples, 3"), (0, "0: give a whole number from 1 up"),
     (-1, "-1: give a whole"), (True, "True: give a whole"), (2.0, "2.0: give a whole")],
)  # fmt: skip
def test_a_batch_that_cannot_be_filled_is_refused(size: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"batch_size is {sentence}"):
        PackedBatches([A, B, C], size)


# --- padded batches ---


def of_lengths(lengths: list[int]) -> list[EncodedChat]:
    return [
        EncodedChat([n, *[8] * (k - 1)], [0, *[1] * (k - 1)]) for n, k in enumerate(lengths)
    ]


def padded(examples: list[EncodedChat], batch_size: int) -> float:
    """Share of padding in batches that are padded to their longest row."""
    sizes = [len(x.input_ids) for x in examples]
    batches = [sizes[i : i + batch_size] for i in range(0, len(sizes), batch_size)]
    return 1 - sum(sizes) / sum(max(batch) * len(batch) for batch in batches)


def test_sorting_by_length_saves_most_of_the_padding() -> None:
    drawn = torch.distributions.LogNormal(5.0, 0.7)  # lengths of instructions: a long tail
    torch.manual_seed(0)
    given = of_lengths([int(x) + 2 for x in drawn.sample((1600,)).clamp(max=1000)])
    by_chance, found = by_length(given, 8, pool=1), by_length(given, 8)
    assert padded(by_chance, 8) > 0.4 > 4 * padded(found, 8)
    for order in (by_chance, found):
        assert sorted(x.input_ids[0] for x in order) == list(range(1600))


def test_the_widest_batch_comes_first_and_the_rest_last() -> None:
    lengths = [2 + n % 9 for n in range(50)]
    found = by_length(of_lengths(lengths), 4, seed=3, pool=2)
    sizes = [len(x.input_ids) for x in found]
    assert len(sizes) == 50 and max(sizes[:4]) == max(sizes[:48])
    batches = [sizes[i : i + 4] for i in range(0, 48, 4)]
    assert all(batch == sorted(batch) for batch in batches)
    assert [max(batch) for batch in batches] != sorted(max(batch) for batch in batches)


def test_the_seed_decides_the_order_of_padded_batches() -> None:
    given = of_lengths([3, 9, 4, 7, 5, 6, 8, 2, 3, 4, 5, 6])
    assert by_length(given, 2, seed=1) == by_length(given, 2, seed=1)
    assert by_length(given, 2, seed=1, pool=2) != by_length(given, 2, seed=2, pool=2)
    assert by_length([], 2) == [] and len(by_length(given[:1], 2)) == 1


@pytest.mark.parametrize("option", ["batch_size", "pool"])
def test_batches_need_a_size(option: str) -> None:
    sizes = {"batch_size": 2, "pool": 2, option: 0}
    with pytest.raises(ValueError, match=f"{option} is 0: give a whole number from 1 up"):
        by_length(of_lengths([3, 4]), sizes["batch_size"], pool=sizes["pool"])
