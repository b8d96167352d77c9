"""The picture of the mask: what it shows, and that it shows nothing else."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import pytest

from posttrain.sft.chat.conversations import varied_conversations
from posttrain.sft.chat.mask_picture import MaskPicture, TokenRow, mask_rows, show_mask
from posttrain.sft.chat.template import EncodedChat, Message, encode_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MESSAGES: list[Message] = [
    {"role": "user", "content": "1 < 2\t&\n<b>?"},
    {"role": "assistant", "content": "Yes.\nIt is."},
]
TOKENS = re.compile(r"<(mark|span)>(.*?)</\1>(<br>)?", re.DOTALL)


def tokens_of(picture: MaskPicture) -> list[tuple[str, bool, bool]]:
    """Read text, trained and end of line of each token out of the HTML."""
    _, found, tokens = picture._repr_html_().partition('<p class="pt-mask-tokens" dir="ltr">')
    assert found and tokens.endswith("</p></div>")
    tokens = tokens.removesuffix("</p></div>")
    assert TOKENS.sub("", tokens) == ""
    return [
        (html.unescape(text), tag == "mark", bool(line))
        for tag, text, line in TOKENS.findall(tokens)
    ]


def test_rows_are_the_tokens_and_the_mask(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode_chat(MESSAGES, tokenizer, "chatml")
    rows = mask_rows(encoded, tokenizer)
    assert "".join(text for text, _ in rows) == tokenizer.decode(encoded.input_ids)
    assert [trained for _, trained in rows] == [entry == 1 for entry in encoded.assistant_mask]
    assert [row.text for row in rows if row.trained] == [
        "Yes", ".", "\n", "It", " is", ".", "<|im_end|>",
    ]  # fmt: skip
    half = tokenizer.encode("𓀀")[:1]
    assert mask_rows(EncodedChat(half, [1]), tokenizer) == [TokenRow("�", True)]
    with pytest.raises(ValueError, match="zip"):
        mask_rows(EncodedChat([1, 2], [0]), tokenizer)


def test_html_shows_each_token_once(tokenizer: PreTrainedTokenizerBase) -> None:
    picture = show_mask(encode_chat(MESSAGES, tokenizer, "chatml"), tokenizer)
    shown = tokens_of(picture)
    assert [(text, trained) for text, trained, _ in shown] == [
        (row.text.replace("\n", "↵").replace("\t", "⇥"), row.trained) for row in picture.rows
    ]
    assert [line for *_, line in shown] == ["\n" in row.text for row in picture.rows]
    assert ("Yes", True, False) in shown and ("↵", True, True) in shown
    page = picture._repr_html_()
    label = f"A conversation of {len(shown)} tokens. The 7 marked ones are trained, the others"
    assert f'role="group" aria-label="{label} are not."' in page
    assert "<mark>trained: 7</mark>" in page
    assert f"<span>not trained: {len(shown) - 7}</span>" in page
    assert "&lt;|im_end|&gt;" in page and "<b>" not in page


def test_color_is_not_the_only_sign(tokenizer: PreTrainedTokenizerBase) -> None:
    page = show_mask(encode_chat(MESSAGES, tokenizer), tokenizer)._repr_html_()
    style = page[page.index("<style>") : page.index("</style>")]
    (rule,) = re.findall(r"\.pt-mask mark \{(.*?)\}", style, re.DOTALL)
    assert "border-bottom: 3px solid" in rule
    assert "color: inherit" in style  # the text keeps the page's color, light or dark


def test_tokens_stand_on_the_left_where_a_page_centers_its_figures() -> None:
    page = MaskPicture([TokenRow("a", True)])._repr_html_()
    assert page.startswith('<div class="pt-figure pt-mask"')
    assert ".pt-mask { text-align: left; }" in page


def test_no_control_character_reaches_page_or_terminal(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    missing = "\x04\x06\x13\x14\x16\x1d"  # SmolLM2's vocabulary lacks them
    every = "".join(chr(code) for code in range(32) if chr(code) not in missing) + "\x7f"
    messages: list[Message] = [{"role": "user", "content": every}]
    picture = show_mask(encode_chat(messages, tokenizer, "chatml"), tokenizer)
    shown = "".join(text for text, *_ in tokens_of(picture))
    for text in (shown, repr(picture).replace("\n", "")):
        assert not any(ord(letter) < 32 or ord(letter) == 127 for letter in text)
        assert "␀␁␂" in text and "␛" in text and "␡" in text and "⇥↵" in text


def test_terminals_get_brackets(tokenizer: PreTrainedTokenizerBase) -> None:
    picture = show_mask(encode_chat(MESSAGES * 2, tokenizer, "chatml"), tokenizer)
    turns = (
        "<|im_start|>user↵\n1 < 2⇥&↵\n<b>?<|im_end|>↵\n"
        "<|im_start|>assistant↵\n⟦Yes.↵\nIt is.<|im_end|>⟧↵\n"
    )
    end = f"{len(picture.rows)} tokens, 14 trained: those between ⟦ and ⟧"
    assert repr(picture) == turns * 2 + end
    assert repr(MaskPicture([TokenRow("a", True)])) == "⟦a⟧\n1 tokens, 1 trained: those " + (
        "between ⟦ and ⟧"
    )


def test_varied_conversations_are_shown(tokenizer: PreTrainedTokenizerBase) -> None:
    for messages in varied_conversations(10, seed=2):
        encoded = encode_chat(messages, tokenizer)
        picture = show_mask(encoded, tokenizer)
        assert picture.trained == sum(encoded.assistant_mask)
        assert [trained for _, trained, _ in tokens_of(picture)] == [
            bool(entry) for entry in encoded.assistant_mask
        ]
