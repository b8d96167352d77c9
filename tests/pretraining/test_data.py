"""posttrain.pretraining.data: characters as tokens, random windows, evaluation windows."""

from collections import Counter

import pytest
import torch

from posttrain.pretraining.data import (
    Batch,
    CharTokenizer,
    RandomWindows,
    evaluation_windows,
    load_corpus,
)

TOKENS = torch.arange(101)

# --- characters ---


def test_text_comes_back():
    tokenizer = CharTokenizer("\n abc")
    assert tokenizer.encode("cab\n") == [4, 2, 3, 0]
    assert (
        tokenizer.decode([4, 2, 3, 0])
        == tokenizer.decode(torch.tensor([4, 2, 3, 0]))
        == "cab\n"
    )
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""
    assert tokenizer.vocab_size == 5


@pytest.mark.parametrize(
    ("characters", "message"),
    [
        ("aba", "stands in the vocabulary twice"),
        ("", "the vocabulary is empty"),
        (["a", "bc"], "'bc' is not one character"),
        (["a", ""], "'' is not one character"),
        ([97, 98], "97 is not one character"),
    ],
)
def test_vocabularies_that_cannot_be_are_refused(characters, message: str):
    with pytest.raises(ValueError, match=message):
        CharTokenizer(characters)


def test_an_unknown_character_is_named():
    with pytest.raises(ValueError, match="the character 'é' is not among the 3 of this") as got:
        CharTokenizer("abc").encode("abé")
    assert got.value.__suppress_context__


@pytest.mark.parametrize("token", [3, -1, 49152])
def test_an_unknown_id_is_named(token: int):
    """-1 would be the last character, without a word."""
    with pytest.raises(
        ValueError, match=f"the token id {token} is outside this vocabulary of 3"
    ):
        CharTokenizer("abc").decode([0, token])


@pytest.mark.parametrize("ids", ["01", [1.9], [True], [[1]], 1, [None]], ids=repr)
def test_what_is_no_list_of_ids_is_not_decoded(ids: object):
    with pytest.raises(ValueError, match=r"token_ids is .*: give a flat sequence of token ids"):
        CharTokenizer("abc").decode(ids)  # type: ignore[arg-type]


def test_the_corpus_is_two_texts_over_one_sorted_vocabulary(monkeypatch: pytest.MonkeyPatch):
    texts = {"train": "bad cab", "validation": "deed"}
    monkeypatch.setattr(
        "posttrain.pretraining.data.load_text", lambda name, split: texts[split]
    )
    corpus = load_corpus("any")
    assert corpus.tokenizer.characters == tuple(" abcde")
    assert corpus.tokenizer.decode(corpus.train) == corpus.train_text == "bad cab"
    assert corpus.tokenizer.decode(corpus.validation) == "deed"
    assert corpus.train.dtype == corpus.validation.dtype == torch.int64


# --- random windows ---


def test_a_window_and_what_follows_it():
    batch = next(RandomWindows(TOKENS, batch_size=5, context=7))
    assert batch.input_ids.shape == batch.labels.shape == (5, 7)
    assert torch.equal(batch.labels, batch.input_ids + 1)  # the tokens count up
    assert torch.equal(batch.input_ids[:, 1:], batch.input_ids[:, :-1] + 1)
    assert batch.input_ids.is_contiguous() and batch.labels.is_contiguous()


def test_every_start_is_drawn_about_equally_often():
    windows = RandomWindows(torch.arange(11), batch_size=1000, context=4)
    counts = Counter(next(windows).input_ids[:, 0].tolist())
    assert sorted(counts) == list(range(7))  # the last label is the last token
    assert all(100 < count < 190 for count in counts.values())  # 143 expected, sd 11


def test_the_shortest_text_has_one_window():
    batch = next(RandomWindows(torch.arange(5), batch_size=3, context=4))
    assert torch.equal(batch.input_ids, torch.arange(4).expand(3, 4))


def test_the_seed_decides_and_nothing_else():
    first, again, other = (RandomWindows(TOKENS, 4, 8, seed) for seed in (1, 1, 2))
    batches = [next(first) for _ in range(3)]
    torch.manual_seed(0)
    assert all(torch.equal(batch.input_ids, next(again).input_ids) for batch in batches)
    assert not torch.equal(batches[0].input_ids, next(other).input_ids)
    assert not torch.equal(batches[0].input_ids, batches[1].input_ids)


def test_batches_do_not_disturb_the_global_generator():
    before = torch.get_rng_state()
    next(RandomWindows(TOKENS, 4, 8))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_brings_back_what_follows():
    windows, other = RandomWindows(TOKENS, 4, 8, seed=1), RandomWindows(TOKENS, 4, 8, seed=2)
    next(windows)
    state = windows.state_dict()
    expected = [next(windows).input_ids for _ in range(3)]  # must not change the state given
    next(other)
    other.load_state_dict(state)
    assert all(torch.equal(next(other).input_ids, ids) for ids in expected)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (RandomWindows(TOKENS, 2, 8), "^batch_size differ from what is stored: batch_size=4$"),
        (RandomWindows(TOKENS, 4, 9), "^context differ from what is stored: context=8$"),
        (RandomWindows(TOKENS.flip(0), 4, 8), "^data differ from what is stored: data="),
        (RandomWindows(TOKENS[:-1], 4, 8), "^data differ"),
    ],
)
def test_a_state_of_other_batches_is_refused(other: RandomWindows, sentence: str):
    windows = RandomWindows(TOKENS, 4, 8)
    next(windows)
    before = other.state_dict()["generator"]
    with pytest.raises(ValueError, match=sentence):
        other.load_state_dict(windows.state_dict())
    with pytest.raises(ValueError, match="batch_size, context, data differ"):
        other.load_state_dict({"generator": windows.state_dict()["generator"]})
    assert torch.equal(other.state_dict()["generator"], before)


@pytest.mark.parametrize(
    ("tokens", "batch_size", "context", "message"),
    [
        (TOKENS, 4, 101, r"shape \(101,\) and a window needs 102 tokens in a row"),
        (TOKENS[:0], 4, 1, r"shape \(0,\)"),
        (TOKENS.view(1, 101), 4, 0, "give at least 1"),
        (TOKENS.expand(9, 101), 4, 8, r"shape \(9, 101\)"),
        (TOKENS, 0, 8, "batch_size is 0: give at least 1"),
        (TOKENS, 4, 0, "context is 0"),
        (TOKENS, 4, -3, "context is -3"),
    ],
)
def test_windows_that_cannot_be_are_refused(
    tokens, batch_size: int, context: int, message: str
):
    with pytest.raises(ValueError, match=message):
        RandomWindows(tokens, batch_size, context)
    with pytest.raises(ValueError, match=message):
        evaluation_windows(tokens, context, batch_size=batch_size)


# --- evaluation windows ---


@pytest.mark.parametrize(("n", "context"), [(101, 10), (101, 7), (9, 8), (2, 1)])
def test_each_position_is_scored_once(n: int, context: int):
    tokens = torch.arange(n)
    batches = evaluation_windows(tokens, context, batch_size=3)
    labels = torch.cat([batch.labels for batch in batches]).flatten()
    assert torch.equal(labels, tokens[1 : (n - 1) // context * context + 1])
    for batch in batches:
        assert torch.equal(batch.labels, batch.input_ids + 1)
        assert 1 <= len(batch.input_ids) <= 3 and batch.input_ids.shape[1] == context


@pytest.mark.parametrize("max_windows", [1, 2, 3, 9, 10, 11])
def test_a_sample_is_spread_evenly_without_repetition(max_windows: int):
    batches = evaluation_windows(TOKENS, 10, max_windows)
    starts = torch.cat([batch.input_ids[:, 0] for batch in batches]) // 10
    assert len(starts) == len(set(starts.tolist())) == min(max_windows, 10)
    assert starts[0] == 0 and (starts[-1] == 9 or max_windows == 1)
    gaps = starts.diff()
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_a_large_sample_repeats_no_window():
    """A rounded float32 grid over this many windows would."""
    count = 2**24 + 3
    sample = evaluation_windows(torch.arange(count + 1), 1, count - 1, batch_size=count)
    starts = sample[0].input_ids[:, 0]
    assert len(starts) == count - 1 and starts.diff().min() == 1


def test_a_negative_number_of_windows_is_refused():
    with pytest.raises(
        ValueError, match="max_windows is -1: give a number above 0, or 0 for all"
    ):
        evaluation_windows(TOKENS, 10, -1)


def test_a_batch_moves_as_a_whole():
    batch = Batch(torch.zeros(1, 2), torch.ones(1, 2)).to("meta")
    assert batch.input_ids.is_meta and batch.labels.is_meta
