"""Pairs as tokens and batches: what TRL's DPO trainer makes of the same rows."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import torch

from posttrain.dpo.data.pair_formats import PairRow, make_pair
from posttrain.dpo.data.tokenizing import EncodedPair, collate_pairs, encode_pair
from posttrain.sft.chat.conversations import varied_conversations
from posttrain.sft.chat.masking import IGNORE_INDEX
from posttrain.sft.data.hub import MalformedRowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

pytestmark = pytest.mark.parity


def varied_pairs(n: int) -> list[PairRow]:
    """Pairs whose answers do not begin with white space: there the two differ on purpose."""
    talks = varied_conversations(12 * n, seed=5)
    pairs = []
    for talk, other in zip(talks[::2], talks[1::2], strict=True):
        prompt = [*talk[:-2], {**talk[-2], "content": talk[-2]["content"].rstrip()}]
        answers = talk[-1]["content"], other[-1]["content"]
        try:
            pairs.append(make_pair(prompt, *answers))
        except MalformedRowError:
            continue  # an empty message, or a text that is too long
    return pairs[:n]


def test_tokens_are_those_of_the_chat_template(tokenizer: PreTrainedTokenizerBase):
    """TRL's rule: the answer is what follows the prompt in the tokens of both."""
    pairs = varied_pairs(60)
    assert len(pairs) == 60
    newline = tokenizer.encode("\n")
    for pair in pairs:
        prompt = tokenizer.apply_chat_template(
            pair["prompt"], add_generation_prompt=True, return_dict=False
        )
        encoded = encode_pair(pair, tokenizer)
        assert list(encoded.prompt_ids) == prompt
        for name, ids in (("chosen", encoded.chosen_ids), ("rejected", encoded.rejected_ids)):
            whole = tokenizer.apply_chat_template(
                [*pair["prompt"], *pair[name]],  # type: ignore[literal-required]
                return_dict=False,
            )
            assert whole[: len(prompt)] == prompt
            assert whole[len(prompt) :] == [*ids, *newline]  # theirs trains the newline too


def test_batches_are_those_of_the_collator():
    trainer = pytest.importorskip("trl.trainer.dpo_trainer")
    generator = random.Random(0)

    def some() -> list[int]:
        return generator.choices(range(9), k=generator.randint(1, 8))

    for _ in range(40):
        rows = [
            {"prompt_ids": some(), "chosen_ids": [*some(), 9], "rejected_ids": [*some(), 10]}
            for _ in range(generator.randint(1, 5))
        ]
        multiple = generator.choice([None, 8])
        theirs = trainer.DataCollatorForPreference(0, pad_to_multiple_of=multiple)(rows)
        pairs = [EncodedPair(*map(tuple, row.values())) for row in rows]
        ours = collate_pairs(pairs, pad_token_id=0, pad_to_multiple_of=multiple or 1)
        assert torch.equal(ours.input_ids, theirs["input_ids"])
        assert torch.equal(ours.attention_mask, theirs["attention_mask"])
        mask = theirs["completion_mask"].bool()
        assert torch.equal(ours.labels, ours.input_ids.where(mask, torch.tensor(IGNORE_INDEX)))
