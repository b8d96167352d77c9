"""Pairs as tokens: properties over drawn pairs, cut prompts, batches, and planted mistakes."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING, Any

import pytest
import torch

from posttrain.dpo.data.pair_formats import PairRow, answer_text, make_pair
from posttrain.dpo.data.tokenizing import (
    EncodedPair,
    PairBatch,
    collate_pairs,
    encode_pair,
    encode_pairs,
)
from posttrain.sft.chat.conversations import EDGES, PIECES, SYSTEM_MESSAGES
from posttrain.sft.chat.formats import FORMATS
from posttrain.sft.chat.masking import IGNORE_INDEX
from posttrain.sft.chat.template import encode_chat, special_tokens
from posttrain.sft.data.hub import MalformedRowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORDS = ["a", "the", "12", "3.14", "café", "☃", "naïve", "x\ny", "don't", "日本", " ", "\n\n"]


def text(generator: random.Random, edges: bool = True) -> str:
    if generator.random() < 0.5:
        body = "".join(generator.choices(WORDS, k=generator.randint(1, 12)))
    else:
        body = generator.choice([" ", "\n", ""]).join(generator.choices(PIECES, k=2))
    body = body if body.strip() else f"{body}w"
    return generator.choice(EDGES) + body + generator.choice(EDGES) if edges else body


def draw(generator: random.Random, turns: int | None = None) -> PairRow:
    """A pair of any texts; the question's end is the only place without white space."""
    prompt: list[Any] = []
    if generator.random() < 0.4:
        prompt.append({"role": "system", "content": generator.choice(SYSTEM_MESSAGES)})
    for _ in range(generator.randint(0, 2) if turns is None else turns):
        prompt.append({"role": "user", "content": text(generator)})
        prompt.append({"role": "assistant", "content": text(generator)})
    prompt.append({"role": "user", "content": text(generator).rstrip()})
    chosen = text(generator)
    rejected = chosen + " more" if generator.random() < 0.2 else text(generator)
    return make_pair(prompt, chosen, rejected)


def drawn(n: int, seed: int = 0, **options: Any) -> list[PairRow]:
    generator, pairs = random.Random(seed), []
    while len(pairs) < n:
        try:
            pairs.append(draw(generator, **options))
        except MalformedRowError:
            continue  # two answers that are the same
    return pairs


@pytest.fixture(scope="module")
def with_bos(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that writes a BOS of its own, and knows Llama's markers."""
    llama = copy.deepcopy(tokenizer)
    names = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    llama.add_special_tokens({"additional_special_tokens": names})
    llama.bos_token = names[0]
    return llama


# --- properties of encoded pairs ---


def faults(encoded: EncodedPair, pair: PairRow, tokenizer: Any, chat_format: str) -> list[str]:
    """What is wrong with the tokens of a pair."""
    found = []
    generation = encode_chat(pair["prompt"], tokenizer, chat_format, add_generation_prompt=True)
    if list(encoded.prompt_ids) != generation.input_ids:
        found.append("the prompt is not what the model is given at generation")
    stop = tokenizer.convert_tokens_to_ids(FORMATS[chat_format].stop_token)
    bos = tokenizer.convert_tokens_to_ids(FORMATS[chat_format].bos or "<|none|>")
    special = set(tokenizer.all_special_ids)
    for name, ids in (("chosen", encoded.chosen_ids), ("rejected", encoded.rejected_ids)):
        if ids[-1] != stop or stop in ids[:-1]:
            found.append(f"{name} has not one stop token, at its end")
        said = answer_text(pair, name)
        said = said.strip() if FORMATS[chat_format].trims_content else said
        if tokenizer.decode(ids[:-1]) != said:
            found.append(f"{name} does not say what it said")
        if special & set(ids[:-1]):
            found.append(f"{name} holds a special token")
        if FORMATS[chat_format].bos and (*encoded.prompt_ids, *ids).count(bos) != 1:
            found.append(f"{name} has not one BOS")
        whole = encode_chat(
            [*pair["prompt"], {"role": "assistant", "content": answer_text(pair, name)}],
            tokenizer,
            chat_format,
        ).input_ids
        if [*encoded.prompt_ids, *ids] != whole[: len(encoded.prompt_ids) + len(ids)]:
            found.append(f"{name} is not the conversation's own tokens")
    return found


def test_every_drawn_pair_keeps_the_rules(tokenizer: PreTrainedTokenizerBase):
    pairs = drawn(240)
    prefixed = 0
    for pair in pairs:
        encoded = encode_pair(pair, tokenizer)
        assert faults(encoded, pair, tokenizer, "smollm2") == []
        prefixed += (
            encoded.rejected_ids[: len(encoded.chosen_ids) - 1] == encoded.chosen_ids[:-1]
        )
    assert prefixed > 20  # one answer begins the other, and still the two differ
    found = encode_pairs(pairs, tokenizer)
    assert found.indices == list(range(240)) and not found.dropped and not found.cut
    assert found.pairs == [encode_pair(pair, tokenizer) for pair in pairs]


def test_a_format_with_a_bos_writes_it_once(with_bos: PreTrainedTokenizerBase):
    for pair in drawn(60, seed=1):
        try:
            encoded = encode_pair(pair, with_bos, "llama-3")
        except ValueError as error:  # it trims: answers may become the same
            assert "the same" in str(error)
            continue
        assert faults(encoded, pair, with_bos, "llama-3") == []


def ids(tokenizer: Any, written: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(written, add_special_tokens=False))


def test_the_check_finds_a_bos_before_each_part(with_bos: PreTrainedTokenizerBase):
    """Parts that are tokenized alone by a tokenizer that writes a BOS get one each."""
    bos = with_bos.convert_tokens_to_ids("<|begin_of_text|>")
    pair = make_pair("Why?", "So.", "No idea.")
    right = encode_pair(pair, with_bos, "llama-3")
    wrong = EncodedPair(right.prompt_ids, (bos, *right.chosen_ids), (bos, *right.rejected_ids))
    found = faults(wrong, pair, with_bos, "llama-3")
    assert "chosen has not one BOS" in found and "rejected has not one BOS" in found
    none = EncodedPair(right.prompt_ids[1:], right.chosen_ids, right.rejected_ids)
    assert "chosen has not one BOS" in faults(none, pair, with_bos, "llama-3")


@pytest.mark.parametrize(
    ("answer", "merges"),
    [
        (" So.", False),
        ("\nSo.", False),
        ("\n\n  So.", True),
        ("  So.", True),
        ("\n\nSo.", True),
    ],
)
def test_a_boundary_between_texts_shifts_and_ours_does_not(
    answer: str, merges: bool, tokenizer: PreTrainedTokenizerBase
):
    """Where texts are joined, white space merges with that of the header."""
    header = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    alone, joined = ids(tokenizer, header), ids(tokenizer, header + answer)
    assert (joined[: len(alone)] != alone) is merges
    pair = make_pair("Why?", answer, "No.")
    encoded = encode_pair(pair, tokenizer)
    assert faults(encoded, pair, tokenizer, "smollm2") == []
    assert encoded.prompt_ids[-len(alone) :] == alone


@pytest.mark.parametrize("end", [" ", "\n", "\t", "  "])
def test_white_space_at_the_end_of_a_question_stays_in_it(
    end: str, tokenizer: PreTrainedTokenizerBase
):
    """A file may not hold it; where a pair does all the same, it cannot reach the answer."""
    pair = make_pair("Why?", "So.", "No.")
    plain = encode_pair(pair, tokenizer)
    pair["prompt"][0]["content"] += end
    spaced = encode_pair(pair, tokenizer)
    assert faults(spaced, pair, tokenizer, "smollm2") == []
    assert spaced.prompt_ids != plain.prompt_ids
    assert (spaced.chosen_ids, spaced.rejected_ids) == (plain.chosen_ids, plain.rejected_ids)
    texts = ids(tokenizer, "Why?" + end), ids(tokenizer, "Why?" + end + "So.")
    if end == "  ":  # two spaces: the second one joins the word behind it
        assert texts[1][: len(texts[0])] != texts[0]


def test_the_check_finds_a_boundary_that_shifted(tokenizer: PreTrainedTokenizerBase):
    pair = make_pair("Why?", "\nSo.", "No.")
    right = encode_pair(pair, tokenizer)
    for moved in (-1, 1):
        cut = len(right.prompt_ids) + moved
        parts = [right.prompt_ids + answer for answer in (right.chosen_ids, right.rejected_ids)]
        wrong = EncodedPair(parts[0][:cut], parts[0][cut:], parts[1][cut:])
        assert faults(wrong, pair, tokenizer, "smollm2")
    merged = EncodedPair(
        right.prompt_ids[:-1], ids(tokenizer, "\n\nSo.<|im_end|>"), right.rejected_ids
    )
    assert faults(merged, pair, tokenizer, "smollm2")


def test_answers_of_the_same_tokens_are_refused(with_bos: PreTrainedTokenizerBase):
    pair = make_pair("Why?", "So.", "No.")
    pair["rejected"][0]["content"] = " So. "  # Llama's template trims it
    with pytest.raises(ValueError, match="are the same, so there is nothing to prefer"):
        encode_pair(pair, with_bos, "llama-3")
    found = encode_pairs(
        [pair, make_pair("a", "b", "c")], with_bos, "llama-3", on_bad_row="drop"
    )
    assert found.indices == [1] and found.dropped == {"not encoded": 1}
    for empty in (((), (1,), (2,)), ((1,), (), (2,)), ((1,), (2,), ())):
        with pytest.raises(ValueError, match="is empty: a pair needs a prompt and two answers"):
            EncodedPair(*empty)


def test_a_special_token_in_a_text_is_an_error_or_counted(tokenizer: PreTrainedTokenizerBase):
    special = next(token for token in special_tokens(tokenizer, "smollm2") if "|" not in token)
    pairs = [make_pair("a", "b", "c"), make_pair("a", f"b {special}", "c")]
    with pytest.raises(ValueError, match=r"pair 1 cannot be encoded: .*special token.*'drop'"):
        encode_pairs(pairs, tokenizer)
    found = encode_pairs(pairs, tokenizer, on_bad_row="drop")
    assert found.indices == [0] and found.first_dropped["not encoded"].startswith("pair 1: ")


# --- too long ---


def test_an_answer_is_whole_or_its_pair_is_counted(tokenizer: PreTrainedTokenizerBase):
    pairs = drawn(240, seed=2)
    whole = [encode_pair(pair, tokenizer) for pair in pairs]
    limits = {"drop": 120, "cut_prompt": 40}
    for mode, share in limits.items():
        middle = sorted(encoded.longest for encoded in whole)[share]
        found = encode_pairs(pairs, tokenizer, max_length=middle, on_too_long=mode)  # type: ignore[arg-type]
        assert len(found.pairs) + found.dropped["too long"] == 240
        assert all(encoded.longest <= middle for encoded in found.pairs)
        for index, encoded in zip(found.indices, found.pairs, strict=True):
            assert encoded.chosen_ids == whole[index].chosen_ids
            assert encoded.rejected_ids == whole[index].rejected_ids
            assert (encoded == whole[index]) == (index not in found.cut)
        if mode == "drop":
            kept = [i for i, encoded in enumerate(whole) if encoded.longest <= middle]
            assert found.indices == kept and not found.cut
        else:
            assert len(found.cut) >= 20 and found.dropped["too long"] >= 20


def test_a_prompt_loses_whole_exchanges_from_its_start(tokenizer: PreTrainedTokenizerBase):
    for seed, pair in enumerate(drawn(40, seed=3, turns=3)):
        start = int(pair["prompt"][0]["role"] == "system")
        for lost in range(4):
            shorter: Any = {
                **pair,
                "prompt": pair["prompt"][:start] + pair["prompt"][start + 2 * lost :],
            }
            expected = encode_pair(shorter, tokenizer)
            found = encode_pairs(
                [pair], tokenizer, max_length=expected.longest, on_too_long="cut_prompt"
            )
            assert found.pairs == [expected] and found.cut == [0] * bool(lost), (seed, lost)
        with pytest.raises(ValueError, match=r"none of 1 pairs is left \(pair 0: .* at most"):
            encode_pairs(
                [pair], tokenizer, max_length=expected.longest - 1, on_too_long="cut_prompt"
            )


def test_options_are_checked(tokenizer: PreTrainedTokenizerBase):
    pair = make_pair("a", "b", "c")
    for options, said in (
        ({"max_length": 0}, "max_length is 0: give at least 1 token"),
        ({"on_too_long": "keep_end"}, "on_too_long is 'keep_end': give 'drop' or 'cut_prompt'"),
        ({"on_bad_row": "raise"}, "on_bad_row is 'raise': give 'error' or 'drop'"),
    ):
        with pytest.raises(ValueError, match=said):
            encode_pairs([pair], tokenizer, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"none of 0 pairs is left \(there are none\)"):
        encode_pairs([], tokenizer)
    found = encode_pairs([pair, make_pair("a", "b " * 99, "c")], tokenizer, max_length=60)
    assert repr(found) == "1 encoded pairs; dropped: 1 too long"


# --- batches ---


def random_pairs(generator: random.Random, n: int) -> list[EncodedPair]:
    def some(least: int = 1) -> tuple[int, ...]:
        return tuple(generator.choices(range(5), k=generator.randint(least, 7)))

    return [EncodedPair(some(), (*some(), 5), (*some(), 6)) for _ in range(n)]


def unpadded(batch: PairBatch) -> list[tuple[list[int], list[int]]]:
    """The tokens of each row, and its labels."""
    masks = batch.attention_mask.bool()
    rows = zip(batch.input_ids, batch.labels, masks, strict=True)
    return [(ids[mask].tolist(), labels[mask].tolist()) for ids, labels, mask in rows]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("multiple", [1, 8])
def test_rows_of_a_batch_are_the_pairs(side: Any, multiple: int):
    generator = random.Random(multiple)
    for _ in range(25):
        pairs = random_pairs(generator, generator.randint(1, 5))
        pad = generator.randint(0, 6)  # ids of the texts, among them the stop token
        batch = collate_pairs(
            pairs, pad_token_id=pad, padding_side=side, pad_to_multiple_of=multiple
        )
        answers = [p.chosen_ids for p in pairs] + [p.rejected_ids for p in pairs]
        expected = [
            ([*p.prompt_ids, *a], [*[IGNORE_INDEX] * len(p.prompt_ids), *a])
            for p, a in zip(pairs * 2, answers, strict=True)
        ]
        assert unpadded(batch) == expected and batch.pairs == len(pairs)
        T = batch.input_ids.shape[1]
        assert T % multiple == 0 and T - max(p.longest for p in pairs) < multiple
        padding = batch.attention_mask == 0
        assert (batch.input_ids[padding] == pad).all()
        assert (batch.labels[padding] == IGNORE_INDEX).all()
        edge = batch.attention_mask[:, -1 if side == "left" else 0]
        assert edge.all() and all(t.dtype == torch.int64 for t in vars(batch).values())


def test_no_row_is_padding_alone(tokenizer: PreTrainedTokenizerBase):
    """Keeping the end of a row that is padded on the right keeps padding and no answer."""
    pairs = [
        make_pair("Why?", "So.", "No."),
        make_pair("Why? " * 60 + "Why?", "So.", "No. " * 30),
    ]
    found = encode_pairs(pairs, tokenizer, max_length=100)
    assert found.indices == [0] and found.dropped == {"too long": 1}
    batch = collate_pairs(found.pairs, pad_token_id=tokenizer.pad_token_id)
    assert ((batch.labels != IGNORE_INDEX).sum(1) >= 1).all()
    padded = collate_pairs(
        [encode_pair(pair, tokenizer) for pair in pairs], pad_token_id=tokenizer.pad_token_id
    )
    kept_end = padded.labels[:, -20:]  # the planted mistake
    assert ((kept_end != IGNORE_INDEX).sum(1) == 0).any()


def test_a_batch_can_be_moved_and_bad_options_are_refused():
    pairs = random_pairs(random.Random(0), 2)
    batch = collate_pairs(pairs, pad_token_id=0)
    assert all(t.device.type == "meta" for t in vars(batch.to("meta")).values())
    with pytest.raises(ValueError, match="there are no pairs"):
        collate_pairs([], pad_token_id=0)
    for options in ({"padding_side": "both"}, {"pad_to_multiple_of": 0}, {"pad_token_id": -1}):
        with pytest.raises(
            ValueError, match="give 'left' or 'right', 1 or more, and 0 or more"
        ):
            collate_pairs(pairs, **({"pad_token_id": 0} | options))  # type: ignore[arg-type]
