"""Our templates give transformers' tokens, and our mask is TRL's but for newlines.

The reference templates are the Jinja files that TRL ships, and SmolLM2's own. The tokenizers of
Llama 3 and Qwen2.5 are not here. In their place stands SmolLM2's, with the markers of the
format added as special tokens, and with the rule by which Qwen2.5 cuts text into words; Llama
3's differs in the digits only.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tokenizers import Regex, pre_tokenizers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from posttrain.sft.chat.conversations import varied_conversations
from posttrain.sft.chat.masking import check_encoded
from posttrain.sft.chat.recognition import chat_format_of
from posttrain.sft.chat.template import FORMATS, encode_chat, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

pytestmark = pytest.mark.parity

CONVERSATIONS = varied_conversations(250, seed=0)
# without tools and a system message, Qwen3 2507 writes plain ChatML
JINJA = {
    "smollm2": None,
    "chatml": "qwen3_instruct_2507.jinja",
    "qwen2.5": "qwen2_5.jinja",
    "llama-3": "llama3.jinja",
    "llama-3.2": "llama3_2.jinja",
}
DATE = "26 Jul 2024"  # what llama3_2.jinja writes where it knows neither a date nor a clock
# how many newlines around each answer TRL trains and we do not
NEWLINES = {"chatml": 1, "qwen2.5": 2, "llama-3": 0}


def template(name: str | None) -> str | None:
    """Read one of TRL's templates, without importing TRL; None is the tokenizer's own."""
    if name is None:
        return None
    trl = find_spec("trl")
    if trl is None or trl.origin is None:
        pytest.skip("trl, which ships the reference templates, is not installed")
    return (Path(trl.origin).parent / "chat_templates" / name).read_text(encoding="utf-8")


def stand_in(smollm2: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """Give SmolLM2's tokenizer the markers and the word rule of a format's models."""
    tokenizer = copy.deepcopy(smollm2)
    markers = [m for m in FORMATS[name].markers if m not in tokenizer.get_vocab()]
    if markers:
        tokenizer.add_special_tokens({"additional_special_tokens": markers})
    if FORMATS[name].bos:
        tokenizer.bos_token = FORMATS[name].bos
    if name in ("qwen2.5", "llama-3", "llama-3.2"):
        words = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated")
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    return tokenizer


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_recognised_by_their_templates(
    tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    known = stand_in(tokenizer, name)
    known.chat_template = template(JINJA[name]) or known.chat_template
    assert chat_format_of(known) == name


@pytest.mark.parametrize("name", FORMATS)
def test_text_and_tokens_equal_transformers(
    tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    tokenizer, jinja = stand_in(tokenizer, name), template(JINJA[name])
    for messages in CONVERSATIONS:
        for part, prompt in ((messages, False), (messages[:-1], True)):
            text = tokenizer.apply_chat_template(
                part, chat_template=jinja, tokenize=False, add_generation_prompt=prompt,
                date_string=DATE,
            )  # fmt: skip
            ids = tokenizer.apply_chat_template(
                part, chat_template=jinja, return_dict=False, add_generation_prompt=prompt,
                date_string=DATE,
            )  # fmt: skip
            assert render(part, name, add_generation_prompt=prompt) == text
            encoded = encode_chat(part, tokenizer, name, add_generation_prompt=prompt)
            assert encoded.input_ids == ids
            if name not in NEWLINES and not prompt:
                check_encoded(encoded, tokenizer, name)


@pytest.mark.parametrize("name", NEWLINES)
def test_mask_equals_the_training_templates(
    tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    tokenizer = stand_in(tokenizer, name)
    jinja = template(str(JINJA[name]).replace(".jinja", "_training.jinja"))
    newline = tokenizer.encode("\n")
    for messages in CONVERSATIONS:
        theirs = tokenizer.apply_chat_template(
            messages, chat_template=jinja, return_dict=True, return_assistant_tokens_mask=True
        )
        ours = encode_chat(messages, tokenizer, name)
        check_encoded(ours, tokenizer, name)
        assert ours.input_ids == theirs["input_ids"]
        pairs = zip(ours.assistant_mask, theirs["assistant_masks"], strict=True)
        differ = [
            (token, own, other)
            for token, (own, other) in zip(ours.input_ids, pairs, strict=True)
            if own != other
        ]
        answers = sum(message["role"] == "assistant" for message in messages)
        assert differ == [(*newline, 0, 1)] * (NEWLINES[name] * answers)


def test_a_served_prompt_has_the_date_of_training_only_if_it_is_told(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer = stand_in(tokenizer, "llama-3.2")
    question = [{"role": "user", "content": "Hi"}]
    options = {"chat_template": template(JINJA["llama-3.2"]), "return_dict": False}
    options["add_generation_prompt"] = True
    row = [*question, {"role": "assistant", "content": "Hello."}]
    trained = encode_chat(row, tokenizer, "llama-3.2").input_ids

    told = tokenizer.apply_chat_template(question, date_string=DATE, **options)
    assert trained[: len(told)] == told
    by_the_clock = tokenizer.apply_chat_template(question, **options)
    assert trained[: len(by_the_clock)] != by_the_clock


def test_the_references_differ_from_each_other() -> None:
    assert len({template(name) for name in JINJA.values()}) == 5
