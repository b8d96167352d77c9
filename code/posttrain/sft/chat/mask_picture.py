"""The mask as a picture: every token of a conversation, and whether it is trained.

Chapter: sft/chat_templates.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from posttrain.sft.chat.template import EncodedChat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Control characters become visible, so that none of them acts on the page or the terminal.
_VISIBLE = {code: chr(0x2400 + code) for code in range(32)} | {0x7F: "␡"}
_VISIBLE |= {ord("\n"): "↵", ord("\t"): "⇥"}
# Colors are translucent or the theme's, for a light and a dark page; the line under a trained
# token says the same without color. The class pt-figure takes the page's ground and text color.
# Jupyter Book centers figures, which rows of tokens are not made for.
_STYLE = """
.pt-mask { text-align: left; }
.pt-mask-tokens, .pt-mask-legend { line-height: 2; margin: 0 0 0.5rem; }
.pt-mask-tokens { font-family: var(--pst-font-family-monospace, monospace); font-size: 0.9em; }
.pt-mask :is(mark, span) { color: inherit; padding: 0.1em 0.05em; margin-right: 1px;
  border-radius: 2px; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate;
  background: rgba(128, 128, 128, 0.16); }
.pt-mask mark { background: rgba(60, 160, 90, 0.3);
  border-bottom: 3px solid var(--pst-color-success, #2a8a4a); }
.pt-mask-legend :is(mark, span) { padding: 0.1em 0.4em; margin-right: 0.6em; }
"""


class TokenRow(NamedTuple):
    """One token: its text, and whether it is trained."""

    text: str
    trained: bool


@dataclass(frozen=True, repr=False)
class MaskPicture:
    """Tokens that a notebook shows in two colors, and a terminal in two kinds of brackets.

    Attributes:
        rows: The tokens, in order.
    """

    rows: Sequence[TokenRow]

    @property
    def trained(self) -> int:
        """How many tokens are trained."""
        return sum(row.trained for row in self.rows)

    def _repr_html_(self) -> str:
        label = (
            f"A conversation of {len(self.rows)} tokens. The {self.trained} marked ones are "
            "trained, the others are not."
        )
        legend = f"<mark>trained: {self.trained}</mark> "
        legend += f"<span>not trained: {len(self.rows) - self.trained}</span>"
        tokens = "".join(map(_token_html, self.rows))
        return (
            f'<div class="pt-figure pt-mask" role="group" aria-label="{label}" '
            f'style="overflow-x:auto"><style>{_STYLE}</style>'
            f'<p class="pt-mask-legend">{legend}</p>'
            f'<p class="pt-mask-tokens" dir="ltr">{tokens}</p></div>'
        )

    def __repr__(self) -> str:
        text = ""
        for trained, run in groupby(self.rows, key=lambda row: row.trained):
            joined = "".join(row.text for row in run).translate(_VISIBLE)
            text += f"⟦{joined}⟧" if trained else joined
        text = text.replace("↵", "↵\n").removesuffix("\n")
        return f"{text}\n{len(self.rows)} tokens, {self.trained} trained: those between ⟦ and ⟧"


def _token_html(row: TokenRow) -> str:
    tag = "mark" if row.trained else "span"
    text = html.escape(row.text.translate(_VISIBLE))
    return f"<{tag}>{text}</{tag}>" + ("<br>" if "\n" in row.text else "")


def mask_rows(encoded: EncodedChat, tokenizer: PreTrainedTokenizerBase) -> list[TokenRow]:
    """Decode a conversation token by token.

    Args:
        encoded: A conversation.
        tokenizer: The tokenizer that encoded it.

    Returns:
        Text of each token and whether it is trained. A token that is a part of a character only
        reads "�".

    Chapter: sft/chat_templates.
    """
    texts = tokenizer.batch_decode([[token] for token in encoded.input_ids])
    return [
        TokenRow(text, bool(trained))
        for text, trained in zip(texts, encoded.assistant_mask, strict=True)
    ]


def show_mask(encoded: EncodedChat, tokenizer: PreTrainedTokenizerBase) -> MaskPicture:
    """Draw which tokens of a conversation are trained.

    Args:
        encoded: A conversation.
        tokenizer: The tokenizer that encoded it.

    Returns:
        An object that notebooks display, in light and dark, and terminals print.

    Chapter: sft/chat_templates.
    """
    return MaskPicture(mask_rows(encoded, tokenizer))
